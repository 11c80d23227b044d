"""One ratio for the end of a stage, pooled over its last intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.estimate import Ratios, bounds
from smdlens.diagnosis.one_step import OneStep
from smdlens.diagnosis.stage_end import StageEnd

Array = NDArray[np.float64]
# How far the unit gradient may drift within an interval that had to be split, as a share of what
# the steady law makes of it.
_UNSTEADY = 0.5


@dataclass(frozen=True, slots=True)
class Pooled:
    """Squared ratio over some intervals of one tensor.

    Attributes:
        q: Mean squared angle over mean squared equilibrium angle; NaN where unknown.
        low: Lower end of the 95% interval of q.
        high: Upper end.
        relaxed: Squared ratio an undisturbed tensor would show over the same intervals.
        kappa_ratio: Mean epsilon leak over the weight decay.
        errors: Parts of the standard error of q by what they come from.
    """

    q: float
    low: float
    high: float
    relaxed: float
    kappa_ratio: float
    errors: Mapping[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Measured over equilibrium angle."""
        return float(np.sqrt(self.q))


UNKNOWN = Pooled(np.nan, np.nan, np.nan, np.nan, 0.0)


def pool(
    row: int,
    end: StageEnd,
    lengths: NDArray[np.int64],
    steps: OneStep,
    expected: Array,
    ratios: Ratios,
    relaxed: Array,
    blur: Array,
    fall: Array,
) -> Pooled:
    """Pools the end of a stage for tensor `row`.

    Neighbouring intervals share the boundary terms of the norm balance, which therefore cancel
    between them: the pool has the uncertainty of one interval of the summed length.

    Args:
        row: Tensor.
        end: The intervals; those without a ratio are left out.
        lengths: Updates per interval.
        steps: Measured one-step angles.
        expected: Equilibrium turn2, [T, I].
        ratios: Their ratios.
        relaxed: Squared ratio of the relaxation curve, [T, I].
        blur: Standard error of ln |w|^2 per snapshot, [T, S].
        fall: Fall of ln |w|^2 by decay alone per interval, [I].
    """
    known = end.which[np.isfinite(ratios.q[row, end.which])]
    if len(known) == 0:
        return UNKNOWN
    n = lengths[known].astype(np.float64)
    q_each, factor = ratios.q[row, known].copy(), 1.0
    if end.skip and known[0] == end.which[0]:
        n[0] -= end.skip
        factor = float(end.factor[row])
        q_each[0] *= factor
    weight = n * expected[row, known]
    share = weight / weight.sum()
    q = float((share * q_each).sum())
    with_model = ~steps.with_state[row, known] & (lengths[known] > 1)
    split = 0.0
    if end.skip and known[0] == end.which[0]:
        # The part taken scatters around the mean of its interval, and the law is a model.
        drawn = float(ratios.scatter[row]) * np.sqrt(1.0 / n[0] - 1.0 / lengths[known[0]])
        split = float(np.hypot(_UNSTEADY * abs(1.0 - 1.0 / factor), drawn) * share[0] * q_each[0])
    errors = {
        "method": float((share * ratios.systematic[row, known]).sum()),
        "leak": float((share * ratios.leak_error[row, known]).sum()),
        "boundary": float(ratios.boundary[row]) * q / n.sum() if with_model.any() else 0.0,
        "independent": float(np.sqrt(((share * ratios.independent[row, known]) ** 2).sum())),
        "split": split,
        "storage": 0.0,
    }
    if (lengths[known] > 1).any():
        ends = np.hypot(blur[row, known[0]], blur[row, known[-1] + 1])
        errors["storage"] = float(ends / fall[known].sum())
    bias_low = float((share * ratios.bias_low[row, known]).sum())
    sigma = float(np.sqrt(sum(part**2 for part in errors.values())))
    low, high = bounds(*(np.array(value) for value in (q, sigma, bias_low)))
    curve = relaxed[row, known]
    return Pooled(
        q=q,
        low=float(low),
        high=float(high),
        relaxed=float((share * curve).sum()) if np.isfinite(curve).all() else np.nan,
        kappa_ratio=float((share * ratios.kappa_ratio[row, known]).sum()),
        errors=errors | {"one_sided": bias_low / 2.0},
    )
