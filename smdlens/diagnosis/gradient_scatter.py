"""How much the boundary terms of the norm balance scatter, measured where the run shows it.

Their standard error is k(a) c_h / n of the squared ratio (docs/theory.md §11), c_h the relative
scatter of the unit gradient. Neighbouring intervals show it: the second difference of the ratio has
the variance c_h^2 (6 / n + 10 k^2 / n^2), the first part from the gradients themselves, the second
from the boundary terms that three intervals share; a linear drift drops out of it. Few intervals
say little, so c_h^2 starts from what real networks show and the number of intervals it rests on
goes into a Student factor.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.update_rule import Law
from smdlens.theory.uncertainty import momentum_factor

Array = NDArray[np.float64]
Z95 = 1.959963984540054
# Mean c_h^2 of real networks (docs/theory.md §11), and the intervals that belief is worth.
_PRIOR, _PRIOR_INTERVALS = 0.8, 4.0
# Intervals of more than this many memories 1 / (1 - a) drift more than they scatter.
_LONGEST = 10.0


def gradient_scatter(
    law: Law | None,
    q: Array,
    lengths: NDArray[np.int64],
    breaks: NDArray[np.bool_],
    storage: Array,
) -> tuple[Array, Array]:
    """c_h per tensor from the ratios of neighbouring intervals, and its Student factor, [T] each.

    Args:
        law: Theory of the tensors' optimizer.
        q: Squared ratios, [T, I].
        lengths: Updates per interval.
        breaks: Intervals that hold or follow a jump of the rate.
        storage: Standard error of q from rounding to the storage dtype, [T, I].
    """
    if law is None or law.rule is None:
        return np.zeros(len(q)), np.ones(len(q))
    k = float(momentum_factor(law.momentum))
    squares, count = _second_differences(q, lengths, breaks, storage, k, law.momentum)
    c2 = (_PRIOR_INTERVALS * _PRIOR + squares) / (_PRIOR_INTERVALS + count)
    return np.sqrt(c2), student95(_PRIOR_INTERVALS + count) / Z95


def student95(freedom: Array) -> Array:
    """97.5% quantile of Student's t by its Cornish-Fisher expansion, 2% off at 4 degrees."""
    z, v = Z95, np.asarray(freedom, dtype=np.float64)
    first = (z**3 + z) / 4.0
    second = (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0
    return np.asarray(z + first / v + second / v**2)


def _second_differences(
    q: Array,
    lengths: NDArray[np.int64],
    breaks: NDArray[np.bool_],
    storage: Array,
    k: float,
    momentum: float,
) -> tuple[Array, Array]:
    """Sum and number of squared second differences of q over their variance at c_h = 1, [T]."""
    if q.shape[1] < 3:
        return np.zeros(len(q)), np.zeros(len(q))
    n = lengths[1:-1].astype(np.float64)
    even = (lengths[:-2] == n) & (lengths[2:] == n) & (n <= _LONGEST / (1.0 - momentum)) & (n > 1)
    whole = even & ~(breaks[:-2] | breaks[1:-1] | breaks[2:])
    second = q[:, :-2] - 2.0 * q[:, 1:-1] + q[:, 2:]
    scale = (q[:, :-2] + q[:, 1:-1] + q[:, 2:]) / 3.0
    unit = scale**2 * (6.0 / n + 10.0 * k**2 / n**2)
    # Rounding of four norms, in the proportions 1, 3, 3, 1; storage is that of two of them.
    rounding = 10.0 * storage[:, 1:-1] ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        square = (second**2 - rounding) / unit
    usable = whole & np.isfinite(square) & (scale > 0.0) & (rounding < unit)
    # One wild interval (a cut nobody recorded) is no scatter.
    square = np.where(usable, np.clip(square, -1.0, 25.0), 0.0)
    return np.maximum(square.sum(axis=1), 0.0), usable.sum(axis=1).astype(np.float64)
