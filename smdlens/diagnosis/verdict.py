"""The state of one tensor at the end of one stage: physics, then statistics, then honest doubt.

Each test below returns a state with its reason or None; the first that speaks decides. The last one
always speaks: an equivalence test of the ratio's 95% interval against 1 +- tolerance.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
# A destabilisation multiplies the squared ratio by more than this within one interval.
_SAWTOOTH = 9.0


@dataclass(frozen=True)
class StageEvidence:
    """What is known of one tensor in one stage; arrays run over the stage's intervals.

    Attributes:
        pooled: Ratio over the last part of the stage.
        last: Positions of the last part within the arrays.
        q: Squared ratios.
        angle: Angle between the snapshots, radians.
        floor: Rounding floor of that angle.
        log_norm2: ln |w|^2 at the snapshots, one longer than the intervals.
        lengths: Updates per interval.
        below: The norm fell as fast as decay alone makes it.
        decay_rate: -2 ln x1 per update, the fall of ln |w|^2 without gradients; NaN if unknown.
        nonfinite: Weights that are NaN or infinite at the end of the stage.
        smooth: The rate changes smoothly within the stage.
        has_decay: Weight decay above 0; None where unknown.
        unknown: What is missing to say more, ready to print with its remedy.
    """

    pooled: Pooled
    last: NDArray[np.intp]
    q: Array
    angle: Array
    floor: Array
    log_norm2: Array
    lengths: NDArray[np.int64]
    below: NDArray[np.bool_]
    decay_rate: Array
    nonfinite: int
    smooth: bool
    has_decay: bool | None
    unknown: str


Verdict = tuple[State, str]
Test = Callable[[StageEvidence, float], Verdict | None]


def _broken(evidence: StageEvidence, tolerance: float) -> Verdict | None:
    if evidence.nonfinite:
        return State.DIVERGING, f"{evidence.nonfinite} weights are NaN or infinite"
    return None


def _no_intervals(evidence: StageEvidence, tolerance: float) -> Verdict | None:
    if len(evidence.last) == 0:
        return State.UNDETERMINED, "no two snapshots lie within this stage: save more often"
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
    moving = evidence.angle[evidence.last] > 10.0 * np.maximum(
        evidence.floor[evidence.last], _FIXED_NORM
    )
    span = float(np.ptp(evidence.log_norm2[_ends(evidence)]))
    if len(evidence.last) >= 2 and moving.all() and span < _FIXED_NORM:
        return State.FIXED_NORM, "the norm is held constant while the direction moves"
    return None


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
    q = evidence.q[np.isfinite(evidence.q)]
    if len(q) < 6:
        return None
    with np.errstate(divide="ignore"):
        rise = np.diff(np.log(np.maximum(q, 1e-12)))
    teeth = np.flatnonzero(rise > np.log(_SAWTOOTH))
    falls_between = len(teeth) >= 2 and all(
        (rise[a + 1 : b] < 0).any() for a, b in itertools.pairwise(teeth)
    )
    if falls_between:
        return State.PERIODIC, f"the angle jumps up {len(teeth)} times and falls back in between"
    return None


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
        return State.EQUILIBRIUM, ""
    if high >= 1.0 - tolerance and low <= 1.0 + tolerance:
        return (
            State.UNDETERMINED,
            f"the ratio's 95% interval {low:.2f}-{high:.2f} crosses the border of "
            f"1 +- {tolerance:g}: save more snapshots in the last third of this stage",
        )
    if evidence.smooth and np.isfinite(pooled.relaxed) and pooled.relaxed > 0.0:
        follows = pooled.ratio / np.sqrt(pooled.relaxed)
        if abs(follows - 1.0) <= tolerance:
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


def _inside(pooled: Pooled, tolerance: float) -> bool:
    low, high = np.sqrt(pooled.low), np.sqrt(pooled.high)
    return bool(low >= 1.0 - tolerance and high <= 1.0 + tolerance)


def _was_held(evidence: StageEvidence, tolerance: float) -> bool:
    """Three intervals in a row, before the last part, well inside the tolerance."""
    before = np.sqrt(evidence.q[: int(evidence.last[0])])
    held = np.abs(before - 1.0) <= tolerance / 2.0
    return bool((held[:-2] & held[1:-1] & held[2:]).any()) if len(held) >= 3 else False


def _ends(evidence: StageEvidence) -> NDArray[np.intp]:
    """Snapshots that bound the last part."""
    return np.append(evidence.last, evidence.last[-1] + 1)
