"""Shooting through every interval of a group, the moments carried from one to the next."""

from __future__ import annotations

import numpy as np

from smdlens.diagnosis.one_step_record import Array
from smdlens.diagnosis.rates import IntervalRates
from smdlens.diagnosis.update_rule import Law
from smdlens.theory.closed_form import trend_moments
from smdlens.theory.moments import UpdateRule
from smdlens.theory.shooting import Shot, shoot

# Shooting starts each interval with the moments the one before ended with; one more pass than the
# moments need to be forgotten is enough.
_PASSES = 3


def decays_of_rule(law: Law, rates: IntervalRates, kappa: Array) -> tuple[Array, Array]:
    """Coupled and decoupled decay as [n or 1, T or 1, I], the leak joining the coupled one."""
    if rates.steady_decay[rates.known].all():
        decay = rates.decay[:1, None, :]
    else:
        decay = rates.decay[:, None, :]
    leak = kappa[None]
    if law.decoupled:
        return leak, decay
    return decay + leak if leak.any() else decay, np.zeros((1, 1, 1))


def shoot_through(
    rule: UpdateRule,
    w2: Array,
    lean: Array,
    buffer: Array,
    rates: IntervalRates,
    coupled: Array,
    decoupled: Array,
) -> Shot:
    """Shoots through every interval; where no buffer was saved, carries the moments along.

    Args:
        rule: The optimizer.
        w2: Squared norms, [T, S].
        lean: <w, v> at the snapshots, NaN where not saved, [T, S].
        buffer: |v|^2, likewise.
        rates: Recorded rates.
        coupled: [n or 1, T or 1, I].
        decoupled: Likewise.
    """
    W0, W1 = w2[:, :-1], w2[:, 1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        trend = (np.log(W1) - np.log(W0)) / rates.lengths
        # The buffer at the start was filled at the first rate, and norms move as the rate does.
        trend = trend * np.nan_to_num(rates.first_lr() / rates.mean_lr(), nan=1.0)
    guess = trend_moments(
        rule, trend, rates.first_lr(), coupled[0], np.broadcast_to(decoupled[0], W0.shape)
    )
    missing = ~np.isfinite(lean[:, :-1] + buffer[:, :-1])
    P = np.where(missing, guess.P_over_W * W0, lean[:, :-1])
    with np.errstate(divide="ignore", invalid="ignore"):
        V = np.where(missing, np.maximum(guess.V_over_W * W0, P**2 / W0), buffer[:, :-1])
    shot = None
    for _ in range(_PASSES if missing.any() else 1):
        shot = shoot(
            rule,
            rates.lr[:, None, :],
            coupled,
            decoupled,
            W0,
            P,
            V,
            W1,
            count=rates.count,
            guess=None if shot is None else shot.G,
        )
        carried = missing[:, 1:] & np.isfinite(shot.P_end[:, :-1] + shot.V_end[:, :-1])
        P[:, 1:] = np.where(carried, shot.P_end[:, :-1], P[:, 1:])
        V[:, 1:] = np.where(carried, shot.V_end[:, :-1], V[:, 1:])
    assert shot is not None
    return shot
