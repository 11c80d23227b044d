"""What would have brought a tensor to equilibrium within the stage after a cut, with its number.

Three remedies, each offered only where the relaxation law (docs/theory.md §8) says that it works:
a longer stage, more weight decay in it, or rescaling the weights at the cut.
"""

from __future__ import annotations

import numpy as np

from smdlens.diagnosis.reequilibration import AfterCut, whole
from smdlens.diagnosis.update_rule import Law
from smdlens.theory.relaxation import iterations_from_ratio, iterations_to_tolerance, norm_power

# Beyond this multiple more weight decay is no advice.
_MOST_DECAY = 10.0
# Beyond this many times its length a longer stage is none either.
_LONGEST = 1000.0


def enough(law: Law, cut: AfterCut, tolerance: float) -> dict[str, float | int | None]:
    """What would have been enough, None where it was enough as it was or would not have been.

    Args:
        law: Theory of the tensor's optimizer.
        cut: What is known of the cut.
        tolerance: How close is close enough.

    Returns:
        `enough_iterations`: length of the stage, restarted from the ratio at its end;
        `enough_weight_decay_factor`: multiple of the decay for which the same length suffices, with
        the unit gradient measured after the cut;
        `enough_weight_divisor`: divide the weights by this at the cut.
    """
    none: dict[str, float | int | None] = {
        "enough_iterations": None,
        "enough_weight_decay_factor": None,
        "enough_weight_divisor": None,
    }
    if not (np.isfinite(cut.q_last) and cut.q_last > 0.0 and cut.rate > 0.0):
        return none
    ratio = float(np.sqrt(cut.q_last))
    if abs(ratio - 1.0) <= tolerance:
        return none
    longer = cut.available + float(iterations_from_ratio(ratio, tolerance, cut.rate))
    if longer <= _LONGEST * cut.available:
        none["enough_iterations"] = whole(longer)
    gain = cut.gain if np.isfinite(cut.gain) and cut.gain > 0.0 else 1.0
    excess = cut.excess / gain
    none["enough_weight_divisor"] = excess ** (1.0 / norm_power(law.family))
    if ratio < 1.0:
        none["enough_weight_decay_factor"] = _decay_factor(excess, cut, tolerance)
    return none


def _decay_factor(excess: float, cut: AfterCut, tolerance: float) -> float | None:
    """Weight decay that ends the stage in its equilibrium, as a multiple of the one it had.

    M times the decay relaxes M times as fast, from norms M times too large: the least M with
    n_e(M excess, M R) at most the stage, by bisection of a function that falls with M.
    """

    def needed(more: float) -> float:
        return float(iterations_to_tolerance(excess * more, tolerance, cut.rate * more))

    if needed(1.0) <= cut.available:
        return None
    low, high = 1.0, _MOST_DECAY
    if needed(high) > cut.available:
        return None
    for _ in range(60):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if needed(middle) > cut.available else (low, middle)
    return high
