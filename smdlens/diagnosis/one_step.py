"""The one-step angle of every interval, by the best estimator that applies (docs/theory.md §6-7).

In order: neighbouring snapshots one update apart give the angle itself; saved buffers give heavy
ball's exact boundary identity; saved moments give AdamW in the norm weighted by sqrt(vhat); weights
alone give the norm balance, by shooting through the recorded schedule.
"""

from __future__ import annotations

import numpy as np

from smdlens.diagnosis.one_step_adaptive import measure_adam, measure_lion
from smdlens.diagnosis.one_step_record import Array, OneStep
from smdlens.diagnosis.one_step_sgd import measure_sgd
from smdlens.diagnosis.rates import IntervalRates
from smdlens.diagnosis.tracks import Tracks
from smdlens.diagnosis.update_rule import Law
from smdlens.theory.angles import angle, rounding_floor, turn2_from_angle
from smdlens.theory.buffers import last_step_angle
from smdlens.vocabulary import Method

__all__ = ["OneStep", "last_step", "one_step", "snapshot_angles"]

# Angles smaller than this many storage floors say more about rounding than about motion.
_FLOORS = 3.0


def snapshot_angles(tracks: Tracks) -> tuple[Array, Array]:
    """Angle between neighbouring snapshots and its rounding floor, radians, [T, I] each."""
    w2, round2 = tracks.at["w2"], tracks.at["round2"]
    a, b = w2[:, :-1], w2[:, 1:]
    theta = angle(a, b, tracks.between["chord2"], tracks.between["dot"])
    return theta, rounding_floor(round2[:, :-1], a, round2[:, 1:], b)


def last_step(tracks: Tracks, law: Law, rates: IntervalRates) -> Array:
    """Angle of the update that made each snapshot but the first, radians [T, I].

    Exact for heavy ball and the Adam family, whose saved buffer is the step (docs/theory.md §3);
    NaN for Nesterov, without buffers, or where the rate that made the step is unknown.
    """
    nothing = np.full_like(tracks.between["dot"], np.nan)
    if law.rule is None or law.rule.q != 0.0 or (law.momentum == 0.0 and not law.adaptive):
        return nothing
    cross, square = ("wu", "u2") if law.adaptive else ("wv", "v2")
    return last_step_angle(
        tracks.at["w2"][:, 1:], tracks.at[cross][:, 1:], tracks.at[square][:, 1:], rates.last_lr()
    )


def one_step(tracks: Tracks, law: Law | None, rates: IntervalRates, kappa: Array) -> OneStep:
    """Measures every interval of the given tensors, which share one parameter group.

    Args:
        tracks: The group's tensors.
        law: Theory of their optimizer; None leaves only what neighbouring snapshots show.
        rates: The group's recorded rates.
        kappa: Epsilon leak per tensor and interval, [T, I]; adds to the coupled decay.
    """
    theta, floor = snapshot_angles(tracks)
    shape = theta.shape
    found = OneStep(
        turn2=np.full(shape, np.nan),
        method=np.full(shape, "", dtype="<U16"),
        angle=theta,
        floor=floor,
        last=np.full(shape, np.nan) if law is None else last_step(tracks, law, rates),
        drive=np.full(shape, np.nan),
        unit_gradient2=np.full(shape, np.nan),
        unclosed=np.zeros(shape),
        assumed_error=np.zeros(shape),
        below=np.zeros(shape, dtype=bool),
        with_state=np.zeros(shape, dtype=bool),
    )
    if law is not None and rates.known.any():
        if law.rule is None:
            measure_lion(found, tracks, rates)
        elif law.adaptive:
            measure_adam(found, tracks, law, law.rule, rates, kappa)
        else:
            measure_sgd(found, tracks, law, law.rule, rates, kappa)
    _adjacent(found, tracks)
    return found


def _adjacent(found: OneStep, tracks: Tracks) -> None:
    """One update apart, the angle between the snapshots is the one-step angle."""
    single = np.broadcast_to(tracks.adjacent, found.angle.shape)
    clear = single & np.isfinite(found.angle) & (found.angle > _FLOORS * found.floor)
    exact = single & np.isfinite(found.last) & ~clear
    # Rounding both ends adds a random vector of the floor's length to the chord.
    found.turn2[clear] = turn2_from_angle(found.angle[clear]) - found.floor[clear] ** 2
    found.turn2[exact] = turn2_from_angle(found.last[exact])
    found.method[clear] = Method.ADJACENT.value
    found.method[exact] = Method.OPTIMIZER_STATE.value
    found.below[clear | exact] = False
