"""The state of one tensor at the end of one stage: physics, then statistics, then honest doubt.

Each test below returns a state with its reason or None; the first that speaks decides. The last one
always speaks: an equivalence test of the ratio's 95% interval against 1 +- tolerance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.held_norm import Norm, norm_of
from smdlens.diagnosis.pooled import Pooled
from smdlens.vocabulary import State

Array = NDArray[np.float64]

# A norm that moves less than this while the direction moves is held by the optimizer.
_FIXED_NORM = 1e-5
# Beyond this share of the decay, epsilon and not the sphere sets a layer's motion.
_LEAK_LIMIT = 0.1
# Below this multiple of the leak the angle cannot be measured from norms.
_LEAK_BLIND = 3.0
# Three times the equilibrium angle and rising by half over the stage is no relaxation.
_DIVERGING_RATIO = 3.0
_DIVERGING_RISE = 1.5
# Fall of ln |w|^2 by decay alone over a stage, from which on equilibrium can be left in it.
_RELAXED = 0.5
# A destabilisation multiplies the squared ratio by more than this within one interval.
_SAWTOOTH = 9.0


@dataclass(frozen=True)
class StageEvidence:
    """What is known of one tensor in one stage; arrays run over the stage's intervals.

    Attributes:
        pooled: Ratio over the last part of the stage.
        last: Positions of the last part within the arrays.
        q: Squared ratios.
        low: Lower ends of their 95% intervals.
        high: Upper ends.
        angle: Angle between the snapshots, radians.
        floor: Rounding floor of that angle.
        log_norm2: ln |w|^2 at the snapshots, one longer than the intervals.
        norm_error: Its standard error from rounding to the storage dtype.
        lengths: Updates per interval.
        below: The norm fell as fast as decay alone makes it.
        decay_rate: -2 ln x1 per update, the fall of ln |w|^2 without gradients; NaN if unknown.
        nonfinite: Weights that are NaN or infinite at the end of the stage.
        smooth: The rate changes smoothly within the stage.
        has_decay: Weight decay above 0; None where unknown.
        updates: Updates of the stage.
        unknown: What is missing to say more, ready to print with its remedy.
    """

    pooled: Pooled
    last: NDArray[np.intp]
    q: Array
    low: Array
    high: Array
    angle: Array
    floor: Array
    log_norm2: Array
    norm_error: Array
    lengths: NDArray[np.int64]
    below: NDArray[np.bool_]
    decay_rate: Array
    nonfinite: int
    smooth: bool
    has_decay: bool | None
    updates: int
    unknown: str


Verdict = tuple[State, str]
Test = Callable[[StageEvidence, float], Verdict | None]


def _broken(evidence: StageEvidence, tolerance: float) -> Verdict | None:
    if evidence.nonfinite:
        return State.DIVERGING, f"{evidence.nonfinite} weights are NaN or infinite"
    return None


def _no_intervals(evidence: StageEvidence, tolerance: float) -> Verdict | None:
    if len(evidence.last) == 0:
        return (
            State.UNDETERMINED,
            "no two snapshots lie within this stage: save more often, every "
            f"{max(1, evidence.updates // 6)} iterations or fewer",
        )
    return None


def _frozen(evidence: StageEvidence, tolerance: float) -> Verdict | None:
    still = evidence.angle[evidence.last] == 0.0
    if still.all() and np.ptp(evidence.log_norm2[_ends(evidence)]) == 0.0:
        return State.FROZEN, "the stored weights do not change"
    return None


def _no_decay(evidence: StageEvidence, tolerance: float) -> Verdict | None:
    if evidence.has_decay is False:
        return State.NO_DECAY, "weight decay is 0: the norm only grows, no equilibrium exists"
    return None


def _fixed_norm(evidence: StageEvidence, tolerance: float) -> Verdict | None:
    if len(evidence.last) < 2 or not _turns(evidence):
        return None
    still = float(np.ptp(evidence.log_norm2[_ends(evidence)])) < _FIXED_NORM
    if still or _norm(evidence) is Norm.HELD:
        return State.FIXED_NORM, "the norm is held constant while the direction moves"
    return None


def _turns(evidence: StageEvidence) -> bool:
    floor = np.maximum(3.0 * evidence.floor[evidence.last], 10.0 * _FIXED_NORM)
    return bool((evidence.angle[evidence.last] > floor).all())


def _norm(evidence: StageEvidence) -> Norm:
    """What all norms of the stage show; free where the decay is not known."""
    pull = float(evidence.decay_rate.mean()) if len(evidence.decay_rate) else np.nan
    if not 0.0 < pull < np.inf:
        return Norm.FREE
    steps = np.concatenate([[0], np.cumsum(evidence.lengths)])
    return norm_of(evidence.log_norm2, np.nan_to_num(evidence.norm_error), steps, pull)


def _pure_decay(evidence: StageEvidence, tolerance: float) -> Verdict | None:
    last = evidence.last
    still = evidence.angle[last] <= 3.0 * np.maximum(evidence.floor[last], 1e-7)
    fall = -np.diff(evidence.log_norm2)[last] / evidence.lengths[last]
    as_decay = np.isclose(fall, evidence.decay_rate[last], rtol=0.02)
    if still.all() and as_decay.all():
        return State.PURE_DECAY, "the norm decays and the direction stands still: no gradient"
    return None


def _undecidable(evidence: StageEvidence, tolerance: float) -> Verdict | None:
    if not np.isfinite(evidence.pooled.q):
        return State.UNDETERMINED, evidence.unknown
    return None


def _periodic(evidence: StageEvidence, tolerance: float) -> Verdict | None:
    known = np.isfinite(evidence.q)
    q, low, high = evidence.q[known], evidence.low[known], evidence.high[known]
    # Less than a relaxation time shows the scatter of gradients, not norms that are thrown back.
    if len(q) < 6 or _pulled(evidence) < _RELAXED:
        return None
    teeth = _teeth(q, low, high)
    if teeth >= 2:
        return State.PERIODIC, f"the angle climbs {teeth} times and falls back in between"
    return None


def _teeth(q: Array, low: Array, high: Array) -> int:
    """Climbs of the squared ratio by more than a tooth, beyond doubt, with such a fall between."""
    # Where q is not resolved, its upper end is all that is known.
    level = np.log(np.maximum(np.maximum(q, (high - q) / 2.0), 1e-12))
    teeth, top, bottom, rising = 0, 0, 0, False
    for i in range(1, len(level)):
        if rising:
            top = i if level[i] > level[top] else top
            if level[top] - level[i] > np.log(_SAWTOOTH) and high[i] < low[top]:
                rising, bottom = False, i
            continue
        bottom = i if level[i] < level[bottom] else bottom
        if level[i] - level[bottom] > np.log(_SAWTOOTH) and low[i] > high[bottom]:
            teeth, top, rising = teeth + 1, i, True
    return teeth


def _epsilon(evidence: StageEvidence, tolerance: float) -> Verdict | None:
    pooled = evidence.pooled
    leak = abs(pooled.kappa_ratio)
    if leak <= _LEAK_LIMIT or _inside(pooled, tolerance):
        return None
    shifted = np.sqrt(max(1.0 + pooled.kappa_ratio, 0.0))
    blind = pooled.q < _LEAK_BLIND * leak
    if blind or abs(pooled.ratio - shifted) <= tolerance * max(shifted, 1e-3):
        return (
            State.EPSILON_LIMITED,
            f"the normalisation's epsilon acts like {pooled.kappa_ratio:+.0%} of the weight decay",
        )
    return None


def _diverging(evidence: StageEvidence, tolerance: float) -> Verdict | None:
    q = evidence.q[np.isfinite(evidence.q)]
    if len(q) < 4:
        return None
    third = max(1, len(q) // 3)
    early, late = np.sqrt(q[:third].mean()), np.sqrt(q[-third:].mean())
    if np.sqrt(evidence.pooled.low) > _DIVERGING_RATIO and late > _DIVERGING_RISE * early:
        return State.DIVERGING, "the angle is far above equilibrium and still rising"
    return None


def _equivalence(evidence: StageEvidence, tolerance: float) -> Verdict | None:
    """Inside 1 +- tolerance, outside it, or neither."""
    pooled = evidence.pooled
    low, high = np.sqrt(pooled.low), np.sqrt(pooled.high)
    if _inside(pooled, tolerance):
        if len(evidence.last) >= 2 and _turns(evidence) and _norm(evidence) is Norm.UNCLEAR:
            return (
                State.UNDETERMINED,
                "its norm moves no more than rounding does: in equilibrium, or held constant: "
                "save the weights as float32",
            )
        return State.EQUILIBRIUM, ""
    if high >= 1.0 - tolerance and low <= 1.0 + tolerance:
        return (
            State.UNDETERMINED,
            f"the ratio's 95% interval {low:.2f}-{high:.2f} crosses the border of "
            f"1 +- {tolerance:g}: {_what_would_decide(evidence)}",
        )
    if evidence.smooth and np.isfinite(pooled.relaxed) and pooled.relaxed > 0.0:
        law = np.sqrt(pooled.relaxed)
        if low <= (1.0 + tolerance) * law and high >= (1.0 - tolerance) * law:
            return State.LAGGING, "off equilibrium as the relaxation law predicts for this schedule"
    if not evidence.smooth and _was_held(evidence, tolerance):
        return State.LEAVING, "was in equilibrium earlier in the stage and drifted away"
    if high < 1.0 - tolerance:
        return State.APPROACHING_FROM_BELOW, "the angle is too small, the norm too large"
    return State.APPROACHING_FROM_ABOVE, "the angle is too large, the norm too small"


TESTS: tuple[Test, ...] = (
    _broken,
    _no_intervals,
    _frozen,
    _no_decay,
    _fixed_norm,
    _pure_decay,
    _undecidable,
    _periodic,
    _epsilon,
    _diverging,
    _equivalence,
)


def decide(evidence: StageEvidence, tolerance: float) -> Verdict:
    """State of a tensor at the end of a stage, with the reason in words."""
    for test in TESTS:
        verdict = test(evidence, tolerance)
        if verdict is not None:
            return verdict
    raise AssertionError("the equivalence test always speaks")


def _what_would_decide(evidence: StageEvidence) -> str:
    """The remedy for the largest part of the error."""
    errors = evidence.pooled.errors
    worst = max(errors, key=lambda name: errors[name]) if errors else "method"
    if worst == "split":
        return f"save every {max(1, evidence.updates // 6)} iterations or fewer"
    if worst == "storage":
        return "save the weights as float32"
    if worst in ("boundary", "independent", "one_sided"):
        return "save the optimizer's state with the weights"
    if worst == "leak":
        return "the normalisation's epsilon acts on it by an amount not known better"
    return "nothing that could be saved tells sides so close to the border apart"


def _inside(pooled: Pooled, tolerance: float) -> bool:
    low, high = np.sqrt(pooled.low), np.sqrt(pooled.high)
    return bool(low >= 1.0 - tolerance and high <= 1.0 + tolerance)


def _was_held(evidence: StageEvidence, tolerance: float) -> bool:
    """Three intervals in a row, before the last part, inside the tolerance and 1 in their mean."""
    before = evidence.q[: int(evidence.last[0])]
    # Within less than a relaxation time a tensor wanders, it does not leave.
    if len(before) < 3 or _pulled(evidence) < _RELAXED:
        return False
    ratio = np.sqrt(before)
    held = np.abs(ratio - 1.0) <= tolerance
    mean = np.sqrt((before[:-2] + before[1:-1] + before[2:]) / 3.0)
    near = np.abs(mean - 1.0) <= tolerance / 2.0
    return bool((held[:-2] & held[1:-1] & held[2:] & near).any())


def _pulled(evidence: StageEvidence) -> float:
    """Fall of ln |w|^2 over the stage by decay alone."""
    return float(np.nan_to_num(evidence.decay_rate * evidence.lengths).sum())


def _ends(evidence: StageEvidence) -> NDArray[np.intp]:
    """Snapshots that bound the last part."""
    return np.append(evidence.last, evidence.last[-1] + 1)
