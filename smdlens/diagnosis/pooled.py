"""One ratio for the end of a stage, pooled over its last intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.estimate import Z95, Ratios
from smdlens.diagnosis.one_step import OneStep

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pooled:
    """Squared ratio over some intervals of one tensor.

    Attributes:
        q: Mean squared angle over mean squared equilibrium angle; NaN where unknown.
        low: Lower end of the 95% interval of q.
        high: Upper end.
        relaxed: Squared ratio an undisturbed tensor would show over the same intervals.
        kappa_ratio: Mean epsilon leak over the weight decay.
    """

    q: float
    low: float
    high: float
    relaxed: float
    kappa_ratio: float

    @property
    def ratio(self) -> float:
        """Measured over equilibrium angle."""
        return float(np.sqrt(self.q))


UNKNOWN = Pooled(np.nan, np.nan, np.nan, np.nan, 0.0)


def pool(
    row: int,
    which: NDArray[np.intp],
    lengths: NDArray[np.int64],
    steps: OneStep,
    expected: Array,
    ratios: Ratios,
    relaxed: Array,
    scatter: float,
    blur: Array,
    fall: Array,
) -> Pooled:
    """Pools the intervals `which` of tensor `row`.

    Neighbouring intervals share the boundary terms of the norm balance, which therefore cancel
    between them: the pool has the uncertainty of one interval of the summed length.

    Args:
        row: Tensor.
        which: Intervals; those without a ratio are left out.
        lengths: Updates per interval.
        steps: Measured one-step angles.
        expected: Equilibrium turn2, [T, I].
        ratios: Their ratios.
        relaxed: Squared ratio of the relaxation curve, [T, I].
        scatter: k(a) c_h of the boundary term.
        blur: Standard error of ln |w|^2 per snapshot, [T, S].
        fall: Fall of ln |w|^2 by decay alone per interval, [I].
    """
    known = which[np.isfinite(ratios.q[row, which])]
    if len(known) == 0:
        return UNKNOWN
    n = lengths[known].astype(np.float64)
    weight = n * expected[row, known]
    q = float((n * steps.turn2[row, known]).sum() / weight.sum())
    systematic = float(np.average(ratios.systematic[row, known], weights=weight))
    kappa_ratio = float(np.average(ratios.kappa_ratio[row, known], weights=weight))
    bias_low = float(np.average(ratios.bias_low[row, known], weights=weight))
    with_model = ~steps.with_state[row, known] & (lengths[known] > 1)
    statistical = scatter * q / n.sum() if with_model.any() else 0.0
    leak = float(np.average(ratios.leak_error[row, known], weights=weight))
    storage = 0.0
    if (lengths[known] > 1).any():
        ends = np.hypot(blur[row, known[0]], blur[row, known[-1] + 1])
        storage = float(ends / fall[known].sum())
    sigma = float(np.sqrt(statistical**2 + systematic**2 + leak**2 + storage**2))
    curve = relaxed[row, known]
    return Pooled(
        q=q,
        low=max(q - Z95 * sigma - bias_low, 0.0),
        high=q + Z95 * sigma,
        relaxed=float(np.average(curve, weights=weight)) if np.isfinite(curve).all() else np.nan,
        kappa_ratio=kappa_ratio,
    )
