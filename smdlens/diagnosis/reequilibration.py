"""After each cut: the iterations the next equilibrium takes, by every name, and what happened."""

from __future__ import annotations

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


def predicted_iterations(
    law: Law,
    lr_before: float,
    lr_after: float,
    decay_before: float,
    decay_after: float,
    q_before: float,
    q_after: float,
    middle_after: float,
    tolerance: float,
) -> dict[str, int | None]:
    """The iteration figures of one tensor after one cut (docs/theory.md §8).

    Args:
        law: Theory of the tensor's optimizer.
        lr_before: Rate before the cut.
        lr_after: Rate after it; every figure uses this one.
        decay_before: Weight decay before.
        decay_after: Weight decay after.
        q_before: Squared ratio at the end of the stage before, NaN if unknown.
        q_after: Squared ratio of the first interval after the cut, NaN if unknown.
        middle_after: Updates from the cut to the middle of that interval.
        tolerance: How close is close enough, as a fraction of the equilibrium angle.

    Returns:
        Keys of the contract; None where it never comes or cannot be known.
    """
    factor = (lr_before / decay_before) / (lr_after / decay_after)
    rate = float(relaxation_rate(lr_after, decay_after, law.momentum, law.family))
    excess = factor / q_before if np.isfinite(q_before) and q_before > 0.0 else factor
    momentum = law.momentum if law.family in ("sgd", "nesterov") else 0.0
    measured = np.nan
    if np.isfinite(q_after) and q_after > 0.0:
        ahead = float(iterations_from_ratio(np.sqrt(q_after), tolerance, rate))
        # Already there in the first interval: the law runs backwards to where it came in.
        measured = middle_after + ahead
    return {
        "iterations_corollary": whole(
            float(iterations_corollary(factor, lr_after, decay_after, momentum))
        ),
        "iterations_lower_bound": whole(float(iterations_lower_bound(factor, rate))),
        "iterations_to_tolerance": whole(float(iterations_to_tolerance(excess, tolerance, rate))),
        "iterations_to_tolerance_measured": whole(measured),
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
