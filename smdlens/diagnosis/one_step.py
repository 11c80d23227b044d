"""The one-step angle of every interval, by the best estimator that applies (docs/theory.md §6-7).

In order: neighbouring snapshots one update apart give the angle itself; saved buffers give heavy
ball's exact boundary identity; saved moments give AdamW in the norm weighted by sqrt(vhat); weights
alone give the norm balance, by shooting through the recorded schedule.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.rates import IntervalRates
from smdlens.diagnosis.tracks import Tracks
from smdlens.diagnosis.update_rule import Law
from smdlens.theory.angles import angle, rounding_floor, turn2_from_angle
from smdlens.theory.buffers import last_step_angle, mean_turn2_plain_sgd
from smdlens.theory.closed_form import trend_moments
from smdlens.theory.equilibrium import step_angle_lion
from smdlens.theory.moments import UpdateRule
from smdlens.theory.shooting import Shot, shoot
from smdlens.theory.weighted import plain_turn2
from smdlens.vocabulary import Method

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
# Shooting starts each interval with the moments the one before ended with; one more pass than the
# moments need to be forgotten is enough.
_PASSES = 3
# Angles smaller than this many storage floors say more about rounding than about motion.
_FLOORS = 3.0


@dataclass(frozen=True)
class OneStep:
    """What was measured between neighbouring snapshots; arrays are [T, I], NaN where unknown.

    Attributes:
        turn2: Mean squared one-step angle, as 2 (1 - cos Delta).
        method: `Method` values as strings, "" where nothing could be measured.
        angle: Angle between the two snapshots, radians.
        floor: Angle that rounding to the storage dtype alone would show, radians.
        last: Angle of the last single update, radians, from optimizer state.
        drive: G of the recursion, the second moment that explains the norms.
        unit_gradient2: Mean effective squared unit gradient.
        below: The norm falls as fast as decay alone makes it: the angle is below resolution.
        with_state: The interval's boundary terms come from saved optimizer state.
    """

    turn2: Array
    method: NDArray[np.str_]
    angle: Array
    floor: Array
    last: Array
    drive: Array
    unit_gradient2: Array
    below: Flags
    with_state: Flags


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
        below=np.zeros(shape, dtype=bool),
        with_state=np.zeros(shape, dtype=bool),
    )
    if law is not None and rates.known.any():
        if law.rule is None:
            _lion(found, tracks, rates)
        elif law.adaptive:
            _adam(found, tracks, law, law.rule, rates, kappa)
        else:
            _sgd(found, tracks, law, law.rule, rates, kappa)
    _adjacent(found, tracks)
    return found


def _adjacent(found: OneStep, tracks: Tracks) -> None:
    """One update apart, the angle between the snapshots is the one-step angle."""
    single = np.broadcast_to(tracks.lengths == 1, found.angle.shape)
    clear = single & np.isfinite(found.angle) & (found.angle > _FLOORS * found.floor)
    exact = single & np.isfinite(found.last) & ~clear
    found.turn2[clear] = turn2_from_angle(found.angle[clear])
    found.turn2[exact] = turn2_from_angle(found.last[exact])
    found.method[clear] = Method.ADJACENT.value
    found.method[exact] = Method.OPTIMIZER_STATE.value
    found.below[clear | exact] = False


def _sgd(
    found: OneStep, tracks: Tracks, law: Law, rule: UpdateRule, rates: IntervalRates, kappa: Array
) -> None:
    w2 = tracks.at["w2"]
    has_buffers = law.momentum > 0.0
    lean = tracks.at["wv"] if has_buffers else np.zeros_like(w2)
    buffer = tracks.at["v2"] if has_buffers else np.zeros_like(w2)
    if tracks.steps[0] == 0:
        # Nothing has moved yet: an optimizer that has not stepped has an empty buffer.
        lean, buffer = lean.copy(), buffer.copy()
        lean[:, 0], buffer[:, 0] = 0.0, 0.0
    coupled, decoupled = _decays(law, rates, kappa)
    shot = _shoot(rule, w2, lean, buffer, rates, coupled, decoupled)
    found.turn2[:] = shot.turn2_mean
    found.drive[:] = shot.G
    # h~ = |g|^2 + 2 a <v', g>: heavy ball's G is h~ itself, Nesterov's is |g|^2.
    effective = shot.G * (1.0 + 2.0 * rule.a * rule.correlation)
    found.unit_gradient2[:] = effective
    found.below[:] = shot.below_resolution
    found.method[np.isfinite(found.turn2)] = Method.NORM_BALANCE.value
    if law.momentum == 0.0 and not law.decoupled:
        exact = _plain_sgd(tracks, rates, kappa)
        usable = rates.known & np.isfinite(exact)
        found.turn2[usable], found.below[usable] = exact[usable], exact[usable] <= 0.0
    elif has_buffers:
        _close_with_buffers(found, shot, effective, rule, w2, lean, buffer, rates)


def _close_with_buffers(
    found: OneStep,
    shot: Shot,
    effective: Array,
    rule: UpdateRule,
    w2: Array,
    lean: Array,
    buffer: Array,
    rates: IntervalRates,
) -> None:
    """Puts the saved buffer in place of the modelled one at the end of each interval.

    The norm balance holds for any gradients once both boundary terms are measured: what the saved
    <w, v> differs from the modelled one is a difference in the energy of the steps, and what |v|^2
    differs is a difference in that of the gradients (docs/theory.md §6).
    """
    known = np.isfinite(lean[:, :-1] + lean[:, 1:] + buffer[:, :-1] + buffer[:, 1:])
    usable = known & (rates.lengths > 1) & np.isfinite(shot.turn2_mean)
    a, lr = rule.a, rates.last_lr()
    if rule.q == 0.0:
        share = 2.0 * a / (1.0 + a)
    else:
        # Nesterov: the step u = h + a v, with |u|^2 and <u, v> of white gradients.
        step2 = (1.0 + a) ** 2 + a**4 / (1.0 - a * a)
        step_buffer = 1.0 + a + a**3 / (1.0 - a * a)
        share = 2.0 * a * a / (1.0 - a + 2.0 * a * a * step_buffer / step2)
    with np.errstate(divide="ignore", invalid="ignore"):
        energy = -share * lr * (lean[:, 1:] - shot.P_end)
        added = energy / (rates.lengths * w2[:, 1:])
        relative = np.where(shot.turn2_mean > 0.0, added / shot.turn2_mean, 0.0)
        moved = np.maximum(shot.turn2_mean + added, 0.0)
        # (1 - a^2) sum |v|^2 + a^2 (change of |v|^2) = sum of h~ / |w|^2 (docs/theory.md §10).
        gradient2 = a * a * (buffer[:, 1:] - shot.V_end) * shot.W_mean / rates.lengths
    found.turn2[usable] = moved[usable]
    found.below[usable] = moved[usable] <= 0.0
    found.unit_gradient2[usable] = np.maximum(
        effective * (1.0 + relative) + gradient2 / rule.c**2, 0.0
    )[usable]
    found.method[usable] = Method.OPTIMIZER_STATE.value
    found.with_state[usable] = True


def _plain_sgd(tracks: Tracks, rates: IntervalRates, kappa: Array) -> Array:
    """Exact for any schedule: decay's share of the norm is known update by update."""
    w2 = tracks.at["w2"]
    shape = kappa.shape
    log_decay = np.zeros(shape)
    for i in np.flatnonzero(rates.known):
        n = int(rates.count[i])
        pull = rates.decay[:n, i, None] + kappa[None, :, i]
        log_decay[:, i] = np.log1p(-rates.lr[:n, i, None] * pull).sum(axis=0)
    return mean_turn2_plain_sgd(w2[:, :-1], w2[:, 1:], rates.lengths.astype(np.float64), log_decay)


def _adam(
    found: OneStep, tracks: Tracks, law: Law, rule: UpdateRule, rates: IntervalRates, kappa: Array
) -> None:
    """Plain norm first; where moments are saved, the norm in which the gradient is tangent."""
    w2, between = tracks.at["w2"], tracks.between
    coupled, decoupled = _decays(law, rates, np.zeros_like(kappa))
    unknown = np.full_like(w2, np.nan)
    if tracks.steps[0] == 0:
        unknown[:, 0] = 0.0
    if not law.is_l2_adam:
        shot = _shoot(rule, w2, unknown, unknown, rates, coupled, decoupled)
        found.turn2[:] = shot.turn2_mean
        found.drive[:] = shot.G
        found.below[:] = shot.below_resolution
        found.method[np.isfinite(found.turn2)] = Method.NORM_BALANCE.value
    start, end = between["s_w2_from"], between["s_w2_to"]
    lean = np.where(np.isnan(between["s_wu_from"]), unknown[:, :-1], between["s_wu_from"])
    square = np.where(np.isnan(between["s_u2_from"]), unknown[:, :-1], between["s_u2_from"])
    if law.is_l2_adam:
        # In this norm the L2 term pulls with lam |w|^2 where decay would pull with lam |w|_S^2.
        scale = np.exp((np.log(w2[:, :-1] * w2[:, 1:]) - np.log(start * end)) / 2.0)
        coupled = coupled * scale / between["s_mean"]
    usable = np.isfinite(start + end + lean + square) & rates.known
    with np.errstate(invalid="ignore"):
        shot = shoot(
            rule,
            rates.lr[:, None, :],
            coupled,
            decoupled,
            np.where(usable, start, np.nan),
            lean,
            square,
            end,
            count=rates.count,
        )
    turn2 = plain_turn2(shot.turn2_mean, start, end, w2[:, :-1], w2[:, 1:])
    found.turn2[usable] = turn2[usable]
    found.below[usable] = shot.below_resolution[usable]
    found.method[usable] = Method.OPTIMIZER_STATE.value
    found.with_state[usable] = True
    squares = tracks.at["vhat_sum"]
    raw = np.sqrt(squares[:, :-1] * squares[:, 1:])
    raw = np.where(np.isnan(raw), squares[:, 1:], raw)
    found.unit_gradient2[:] = raw * np.sqrt(w2[:, :-1] * w2[:, 1:])


def _lion(found: OneStep, tracks: Tracks, rates: IntervalRates) -> None:
    """Every entry moves by the rate: the angle needs the norm and the number of entries only."""
    w2 = tracks.at["w2"]
    mean_square = (rates.lr**2).sum(axis=0) / np.maximum(rates.count, 1)
    norm = (w2[:, :-1] * w2[:, 1:]) ** 0.25
    theta = step_angle_lion(np.sqrt(mean_square), tracks.numel[:, None], norm)
    found.turn2[:] = np.where(rates.known, turn2_from_angle(theta), np.nan)
    found.method[np.isfinite(found.turn2)] = Method.NORM_BALANCE.value


def _decays(law: Law, rates: IntervalRates, kappa: Array) -> tuple[Array, Array]:
    """Coupled and decoupled decay as [n or 1, T or 1, I], the leak joining the coupled one."""
    if rates.steady_decay[rates.known].all():
        decay = rates.decay[:1, None, :]
    else:
        decay = rates.decay[:, None, :]
    leak = kappa[None]
    if law.decoupled:
        return leak, decay
    return decay + leak if leak.any() else decay, np.zeros((1, 1, 1))


def _shoot(
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
    guess = trend_moments(
        rule, trend, rates.first_lr(), coupled[0], np.broadcast_to(decoupled[0], W0.shape)
    )
    missing = ~np.isfinite(lean[:, :-1] + buffer[:, :-1])
    P = np.where(missing, guess.P_over_W * W0, lean[:, :-1])
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
