"""One-step angles of Adam, AdamW and Lion."""

from __future__ import annotations

import numpy as np

from smdlens.diagnosis.adam_errors import step_shape
from smdlens.diagnosis.carried_shooting import decays_of_rule, shoot_through
from smdlens.diagnosis.one_step_record import Array, OneStep
from smdlens.diagnosis.one_step_sgd import closing_rate
from smdlens.diagnosis.rates import IntervalRates
from smdlens.diagnosis.tracks import Tracks
from smdlens.diagnosis.update_rule import Law
from smdlens.theory.equilibrium import mean_inverse_norm2_lion, turn2_lion
from smdlens.theory.moments import UpdateRule
from smdlens.theory.shooting import shoot
from smdlens.theory.weighted import plain_turn2
from smdlens.vocabulary import Method


def measure_adam(
    found: OneStep, tracks: Tracks, law: Law, rule: UpdateRule, rates: IntervalRates, kappa: Array
) -> None:
    """Plain norm first; where moments are saved, the norm in which the gradient is tangent."""
    w2, between = tracks.at["w2"], tracks.between
    coupled, decoupled = decays_of_rule(law, rates, np.zeros_like(kappa))
    unknown = np.full_like(w2, np.nan)
    if tracks.steps[0] == 0:
        unknown[:, 0] = 0.0
    if not law.is_l2_adam:
        shot = shoot_through(rule, w2, unknown, unknown, rates, coupled, decoupled)
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
    with np.errstate(divide="ignore", invalid="ignore"):
        # The norm balance with the saved <w, u> in place of the modelled one (docs/theory.md §6).
        lr, doubt = closing_rate(rates, rule.a, 1.0 + rule.a)
        missed = 2.0 * rule.a / (1.0 + rule.a) * (between["s_wu_to"] - shot.P_end)
        missed = np.nan_to_num(missed / (rates.lengths * end))
        closed = shot.turn2_mean - lr * missed
    measured = np.maximum(closed, 0.0)
    shape, error = step_shape(tracks, rule.a)
    turn2 = plain_turn2(measured, start, end, w2[:, :-1], w2[:, 1:]) / shape
    found.turn2[usable] = turn2[usable]
    found.assumed_error[usable] = error[usable]
    found.unclosed[usable] = np.abs(doubt * missed)[usable]
    found.below[usable] = (closed <= 0.0)[usable]
    found.method[usable] = Method.OPTIMIZER_STATE.value
    found.with_state[usable] = True
    squares = tracks.at["vhat_sum"]
    raw = np.sqrt(squares[:, :-1] * squares[:, 1:])
    raw = np.where(np.isnan(raw), squares[:, 1:], raw)
    found.unit_gradient2[:] = raw * np.sqrt(w2[:, :-1] * w2[:, 1:])


def measure_lion(found: OneStep, tracks: Tracks, rates: IntervalRates) -> None:
    """Every entry moves by the rate: the angle needs the norm and the number of entries only."""
    before, after = tracks.at["w2"][:, :-1], tracks.at["w2"][:, 1:]
    count = np.maximum(rates.count, 1)
    lr = np.sqrt((rates.lr**2).sum(axis=0) / count)
    decay = np.nan_to_num((rates.lr * rates.decay).sum(axis=0) / rates.lr.sum(axis=0))
    fall = -2.0 * np.log1p(-rates.lr * np.nan_to_num(rates.decay)).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        middle2 = 1.0 / mean_inverse_norm2_lion(before, after, fall)
        growth = np.exp(np.log(after / before) / count)
    turn2 = turn2_lion(lr, decay, tracks.numel[:, None], middle2, middle2 * growth)
    found.turn2[:] = np.where(rates.known, turn2, np.nan)
    found.method[np.isfinite(found.turn2)] = Method.NORM_BALANCE.value
