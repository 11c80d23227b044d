"""After each cut: the iterations the next equilibrium takes, by every name, and what happened."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.rates import Array
from smdlens.diagnosis.update_rule import Law
from smdlens.theory.relaxation import (
    iterations_corollary,
    iterations_from_ratio,
    iterations_lower_bound,
    iterations_to_tolerance,
    relaxation_rate,
)


def whole(value: float) -> int | None:
    """Iterations as a whole number, rounded up; None where infinite or unknown."""
    return int(np.ceil(value - 1e-9)) if np.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class AfterCut:
    """What is known of one tensor at one cut.

    Attributes:
        excess: (|w| / |w*|)^m right after the cut, w* the equilibrium at the new rate and decay
            with the unit gradient of before; 1 / excess is the squared ratio there.
        factor: k, by which lr / decay fell.
        lr: New rate.
        decay: New weight decay.
        rate: R per update at which the excess relaxes.
        gain: Factor by which the mean squared unit gradient changed; NaN if unknown.
        q_first: Squared ratio of the first interval after the cut, NaN if unknown.
        middle_first: Updates from the cut to the middle of that interval.
        q_last: Squared ratio of the stage's last interval, NaN if unknown.
        available: Updates of the stage.
    """

    excess: float
    factor: float
    lr: float
    decay: float
    rate: float
    gain: float
    q_first: float
    middle_first: float
    q_last: float
    available: int


def after_cut(
    law: Law,
    lr: Array,
    decay: Array,
    q: Array,
    gain: float,
    middle_first: float,
    available: int,
) -> AfterCut:
    """Gathers what the figures of one tensor and cut rest on (docs/theory.md §8).

    Args:
        law: Theory of the tensor's optimizer.
        lr: Rates before and after the cut, [2].
        decay: Weight decays before and after, [2].
        q: Squared ratios of the last interval before the cut, the first after it and the stage's
            last one, [3]; NaN where unknown.
        gain: Change of the mean squared unit gradient.
        middle_first: Updates from the cut to the middle of the first interval after it.
        available: Updates of the stage.
    """
    factor = float((lr[0] / decay[0]) / (lr[1] / decay[1]))
    excess = factor / float(q[0]) if np.isfinite(q[0]) and q[0] > 0.0 else factor
    rate = float(relaxation_rate(lr[1], decay[1], law.momentum, law.family))
    return AfterCut(
        excess, factor, float(lr[1]), float(decay[1]), rate, gain, float(q[1]), middle_first,
        float(q[2]), available,
    )  # fmt: skip


def predicted_iterations(law: Law, cut: AfterCut, tolerance: float) -> dict[str, int | None]:
    """The iteration figures of one tensor after one cut (docs/theory.md §8).

    Args:
        law: Theory of the tensor's optimizer.
        cut: What is known of the cut.
        tolerance: How close is close enough, as a fraction of the equilibrium angle.

    Returns:
        Keys of the contract; None where it never comes or cannot be known.
    """
    momentum = law.momentum if law.family in ("sgd", "nesterov") else 0.0
    measured = np.nan
    if np.isfinite(cut.q_first) and cut.q_first > 0.0:
        ahead = float(iterations_from_ratio(np.sqrt(cut.q_first), tolerance, cut.rate))
        # Already there in the first interval: the law runs backwards to where it came in.
        measured = cut.middle_first + ahead
    missing = np.nan
    if np.isfinite(cut.q_last) and cut.q_last > 0.0:
        missing = float(iterations_from_ratio(np.sqrt(cut.q_last), tolerance, cut.rate))
    prior = float(iterations_to_tolerance(cut.excess, tolerance, cut.rate))
    renewed = float(iterations_to_tolerance(cut.excess / cut.gain, tolerance, cut.rate))
    corollary = float(iterations_corollary(cut.factor, cut.lr, cut.decay, momentum))
    return {
        "iterations_corollary": whole(corollary),
        "iterations_lower_bound": whole(float(iterations_lower_bound(cut.factor, cut.rate))),
        "iterations_to_tolerance": whole(prior),
        "iterations_to_tolerance_measured": whole(measured),
        "iterations_to_tolerance_new_gradient": whole(renewed),
        "iterations_missing": whole(missing),
    }


def reached_step(
    q: Array, steps: NDArray[np.int64], own: NDArray[np.intp], tolerance: float
) -> int | None:
    """Step at which the ratio first came within tolerance, or None if it never did.

    One interval inside counts when the next one is inside too, so that noise does not arrive early.
    Ratios belong to the middle of their interval; the crossing is interpolated between middles.

    Args:
        q: Squared ratios of one tensor, [I].
        steps: Steps of the snapshots.
        own: Intervals of the stage in order.
        tolerance: As a fraction of the equilibrium angle.
    """
    known = own[np.isfinite(q[own])]
    if len(known) == 0:
        return None
    off = np.sqrt(q[known]) - 1.0
    inside = np.abs(off) <= tolerance
    arrived = inside & np.append(inside[1:], True)
    if not arrived.any():
        return None
    first = int(np.argmax(arrived))
    middle = (steps[known] + steps[known + 1]) / 2.0
    if first == 0:
        return int(steps[known[0]])
    border = np.sign(off[first - 1]) * tolerance
    gone, come = off[first - 1], off[first]
    share = (border - gone) / (come - gone) if come != gone else 1.0
    crossing = middle[first - 1] + min(max(share, 0.0), 1.0) * (middle[first] - middle[first - 1])
    return round(float(crossing))
