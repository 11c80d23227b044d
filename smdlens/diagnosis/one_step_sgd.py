"""One-step angles of the SGD family: the exact identities where they hold, shooting elsewhere."""

from __future__ import annotations

import numpy as np

from smdlens.diagnosis.carried_shooting import decays_of_rule, shoot_through
from smdlens.diagnosis.gradient_correlation import use_shown_correlation
from smdlens.diagnosis.one_step_record import Array, OneStep
from smdlens.diagnosis.rates import IntervalRates
from smdlens.diagnosis.tracks import Tracks
from smdlens.diagnosis.update_rule import Law
from smdlens.theory.buffers import mean_turn2_plain_sgd
from smdlens.theory.moments import UpdateRule
from smdlens.theory.shooting import Shot
from smdlens.vocabulary import Method


def measure_sgd(
    found: OneStep, tracks: Tracks, law: Law, rule: UpdateRule, rates: IntervalRates, kappa: Array
) -> None:
    """Fills `found` for tensors of one group under SGD, with or without momentum.

    Args:
        found: Where the results go.
        tracks: The group's tensors.
        law: Its theory.
        rule: The law's recursion.
        rates: Recorded rates.
        kappa: Epsilon leak, [T, I].
    """
    w2 = tracks.at["w2"]
    has_buffers = law.momentum > 0.0
    lean = tracks.at["wv"] if has_buffers else np.zeros_like(w2)
    buffer = tracks.at["v2"] if has_buffers else np.zeros_like(w2)
    if tracks.steps[0] == 0:
        # Nothing has moved yet: an optimizer that has not stepped has an empty buffer.
        lean, buffer = lean.copy(), buffer.copy()
        lean[:, 0], buffer[:, 0] = 0.0, 0.0
    coupled, decoupled = decays_of_rule(law, rates, kappa)
    shot = shoot_through(rule, w2, lean, buffer, rates, coupled, decoupled)
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
    if rule.q != 0.0:
        use_shown_correlation(found, rule, rates.lengths.astype(np.float64))


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
    a = rule.a
    if rule.q == 0.0:
        share, held = 2.0 * a, 1.0 + a
    else:
        # Nesterov: the step u = h + a v, with |u|^2 and <u, v> of white gradients.
        step2 = (1.0 + a) ** 2 + a**4 / (1.0 - a * a)
        step_buffer = 1.0 + a + a**3 / (1.0 - a * a)
        share, held = 2.0 * a * a, 1.0 - a + 2.0 * a * a * step_buffer / step2
    lr, doubt = closing_rate(rates, a, held)
    share /= held
    with np.errstate(divide="ignore", invalid="ignore"):
        missed = share * (lean[:, 1:] - shot.P_end) / (rates.lengths * w2[:, 1:])
        added = -lr * missed
        relative = np.where(shot.turn2_mean > 0.0, added / shot.turn2_mean, 0.0)
        moved = np.maximum(shot.turn2_mean + added, 0.0)
        # (1 - a^2) sum |v|^2 + a^2 (change of |v|^2) = sum of h~ / |w|^2 (docs/theory.md §10).
        gradient2 = a * a * (buffer[:, 1:] - shot.V_end) * shot.W_mean / rates.lengths
    found.turn2[usable] = moved[usable]
    found.unclosed[usable] = np.abs(doubt * missed)[usable]
    found.below[usable] = moved[usable] <= 0.0
    found.unit_gradient2[usable] = np.maximum(
        effective * (1.0 + relative) + gradient2 / rule.c**2, 0.0
    )[usable]
    found.method[usable] = Method.OPTIMIZER_STATE.value
    found.with_state[usable] = True


def closing_rate(rates: IntervalRates, momentum: float, held: float) -> tuple[Array, Array]:
    """Rate that a difference in the last buffer acts at, and its standard error, [I] each.

    With d_t = <w_t, v_(t-1)> off by e_t, summing the norm's change and the buffer's by parts leaves
    the last rate times e_n, less sum (lr_t - lr_(t-1)) e_t. The measured norm at the end fixes
    sum lr_t e_t, so relative changes of one size r per update only divide by 1 - r / `held`
    (docs/theory.md §6); how r varies within the interval meets an e_t that is not known.

    Args:
        rates: Recorded rates.
        momentum: a.
        held: What the change of the steps' energy is divided by at constant rate.
    """
    last = rates.last_lr()
    within = np.arange(1, len(rates.lr))[:, None] < rates.count
    later = np.where(within, rates.lr[1:], 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        total = later.sum(axis=0)
        mean = np.where(total > 0.0, (last - rates.first_lr()) / total, 0.0)
    uneven = np.where(within, np.diff(rates.lr, axis=0) - mean * later, 0.0)
    # The unknown e_t are of the size of the last one and forgotten as the buffer forgets.
    running, square = np.zeros(len(last)), np.zeros(len(last))
    for change in uneven if uneven.any() else ():
        running = momentum * running + change
        square += change * (2.0 * running - change)
    return last / (1.0 - mean / held), np.sqrt(square)


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
