"""Ratios with their intervals: q = (angle / equilibrium angle)^2, for one interval or several.

sigma_q^2 = (k(a) c_h q / n)^2 + (m q)^2 + (0.35 kappa / lam)^2 (docs/theory.md §11). The first term
is the boundary term of the norm balance; it telescopes, so neighbouring intervals that are pooled
count as one long interval, not as independent draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.one_step import OneStep
from smdlens.diagnosis.rates import IntervalRates
from smdlens.diagnosis.tracks import Tracks
from smdlens.diagnosis.update_rule import Law
from smdlens.theory.epsilon_leak import kappa_error
from smdlens.theory.uncertainty import SYSTEMATIC, ErrorKind, momentum_factor
from smdlens.vocabulary import Method

Array = NDArray[np.float64]
Z95 = 1.959963984540054
# c_h = sqrt(V) / L, the relative scatter of h~: 0.8 to 1 on real networks (docs/theory.md §11).
GRADIENT_SCATTER = 0.9
# AdamW without its saved moments: the truth lies up to this far below q (docs/theory.md §6).
ADAM_ONE_SIDED = 0.1
# Adam's second moment builds up over its first 1 / (1 - beta2) updates: relative error of q there.
_FIRST_ADAM = 0.15
# Error of the leak over the weight decay, per unit of the mean eps / (var + eps).
_LEAK_SCATTER = 0.6
# Relative error of q per unit of lr * decay / (1 - a): between snapshots the norm's path is taken
# as that of a steady unit gradient (docs/theory.md §11).
_PATH = 0.4
# An interval whose rate changes by more than this within it holds a jump.
_JUMP = 1.5


@dataclass(frozen=True)
class Ratios:
    """Squared ratios per tensor and interval with a 95% interval; [T, I], NaN where unknown.

    `sigma` is the standard error of q and `systematic` the part of it that does not average out;
    `kappa_ratio` is the epsilon leak over the weight decay, `leak_error` its error; `bias_low` is
    how far the truth may lie below q from a known one-sided error.
    """

    q: Array
    low: Array
    high: Array
    sigma: Array
    systematic: Array
    kappa_ratio: Array
    leak_error: Array
    bias_low: Array


def interval_ratios(
    tracks: Tracks,
    law: Law | None,
    rates: IntervalRates,
    steps: OneStep,
    expected: Array,
    kappa: Array,
) -> Ratios:
    """Squared ratio of each interval with its uncertainty.

    Args:
        tracks: The tensors, for interval lengths.
        law: Their optimizer's theory.
        rates: Recorded rates.
        steps: Measured one-step angles.
        expected: Equilibrium 2 (1 - cos Delta*) per interval, [T, I].
        kappa: Epsilon leak, [T, I].
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.where(expected > 0.0, steps.turn2 / expected, np.nan)
        kappa_ratio = np.where(rates.mean_decay() > 0.0, kappa / rates.mean_decay(), 0.0)
    systematic, statistical, bias_low = (np.zeros_like(q) for _ in range(3))
    if law is not None:
        systematic = _systematic(law, rates, steps, tracks) * q
        statistical = np.where(steps.with_state, 0.0, _boundary(law, rates, q, tracks))
        if law.adaptive and law.rule is not None:
            bias_low = np.where(steps.with_state, 0.0, ADAM_ONE_SIDED)
    direct = (steps.method == Method.ADJACENT.value) | (
        (rates.lengths == 1) & (steps.method == Method.OPTIMIZER_STATE.value)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        # Measured directly, only rounding blurs the angle.
        blur = np.where(steps.method == Method.ADJACENT.value, steps.floor / steps.angle, 0.0)
    systematic = np.where(direct, 0.0, systematic)
    # What cancels between channels in the mean leak still errs channel by channel.
    fraction = np.nan_to_num(tracks.between["eps_fraction"])
    leak = np.hypot(kappa_error(kappa_ratio), _LEAK_SCATTER * fraction)
    storage = np.zeros_like(q)
    if law is not None and law.rule is not None:
        blurred = log_norm_error(tracks)
        with np.errstate(divide="ignore", invalid="ignore"):
            storage = np.hypot(blurred[:, :-1], blurred[:, 1:]) / decay_fall(law, rates)
    sigma = np.where(
        direct,
        2.0 * blur * q,
        np.sqrt(statistical**2 + systematic**2 + leak**2 + storage**2),
    )
    q, sigma = _with_last_steps(tracks, law, rates, steps, expected, q, sigma, leak)
    bias_low = np.where(direct, 0.0, bias_low)
    return Ratios(
        q=q,
        low=np.maximum(q - Z95 * sigma - bias_low, 0.0),
        high=q + Z95 * sigma,
        sigma=sigma,
        systematic=systematic,
        kappa_ratio=kappa_ratio,
        leak_error=leak,
        bias_low=bias_low,
    )


def _systematic(law: Law, rates: IntervalRates, steps: OneStep, tracks: Tracks) -> Array:
    """Relative error that does not average out: of the method, or of a jump in or just before."""
    model = np.where(steps.with_state, SYSTEMATIC[_kind(law, True)], SYSTEMATIC[_kind(law, False)])
    jump = holds_jump(rates) | follows_jump(rates)
    error = np.where(jump, np.maximum(model, SYSTEMATIC["jump"]), model)
    if len(jump) and tracks.steps[0] == 0:
        # The first updates of all: gradients change faster than anywhere else.
        error[:, 0] = _FIRST_ADAM if law.adaptive else SYSTEMATIC["jump"]
    strength = rates.lr * rates.decay
    if law.rule is not None and law.momentum > 0.0:
        # Norms that relax within few updates wander between the snapshots.
        quick = _PATH * decay_fall(law, rates) / (2.0 * np.maximum(rates.count, 1))
        error = np.hypot(error, np.nan_to_num(quick))
    ends = np.abs(rates.first_lr() * rates.decay[0] - rates.last_lr() * rates.mean_decay())
    with np.errstate(divide="ignore", invalid="ignore"):
        share = rates.place_error * ends * rates.count / strength.sum(axis=0)
    return np.asarray(np.hypot(error, np.where(np.isfinite(share), share, 0.0)))


def _boundary(law: Law, rates: IntervalRates, q: Array, tracks: Tracks) -> Array:
    """Standard error from the boundary terms of the norm balance, [T, I].

    Each end contributes k c_h / (sqrt2 n) of the squared ratio in force there; just after a cut the
    start still carries the motion of the old rate.
    """
    before = np.concatenate([q[:, :1], q[:, :-1]], axis=1)
    if tracks.steps[0] == 0:
        before[:, 0] = 0.0
    before = np.where(np.isfinite(before), before, q)
    return np.asarray(scatter(law) / rates.lengths * np.sqrt((q**2 + before**2) / 2.0))


def _with_last_steps(
    tracks: Tracks,
    law: Law | None,
    rates: IntervalRates,
    steps: OneStep,
    expected: Array,
    q: Array,
    sigma: Array,
    leak: Array,
) -> tuple[Array, Array]:
    """Joins in the exact angles of the updates that made both snapshots, where a leak blurs q.

    They are two draws of the interval's squared angle and know nothing of epsilon; the two are
    weighted by their precision. Left alone where the leak is no part of the error worth naming.
    """
    if law is None or law.adaptive or law.rule is None or not np.isfinite(steps.last).any():
        return q, sigma
    squared = steps.last**2 / expected
    before = np.concatenate([np.full((len(q), 1), np.nan), squared[:, :-1]], axis=1)
    draws = np.stack([squared, before])
    known = np.isfinite(draws)
    count = known.sum(axis=0)
    mean = np.where(known, draws, 0.0).sum(axis=0) / np.maximum(count, 1)
    spread = GRADIENT_SCATTER * _energy_scatter(law.momentum)
    drawn = spread * mean / np.sqrt(np.maximum(count, 1))
    # A rate that changed in or before the interval makes its first end speak of another rate.
    steady = rates.constant & ~follows_jump(rates)
    use = steady & (count > 0) & (leak > 0.5 * sigma) & np.isfinite(q) & (drawn > 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.where(use, drawn**-2.0 / (drawn**-2.0 + sigma**-2.0), 0.0)
    joined = np.where(use, weight * mean + (1.0 - weight) * q, q)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(use, (drawn**-2.0 + sigma**-2.0) ** -0.5, sigma)
    return joined, error


def _energy_scatter(momentum: float) -> float:
    """Relative scatter of |v|^2, a mean over about 1 / (1 - a^2) independent |g|^2 of scatter 1."""
    return float(np.sqrt((1.0 - momentum**2) / (1.0 + momentum**2)))


def log_norm_error(tracks: Tracks) -> Array:
    """Standard error of ln |w|^2 that rounding to the storage dtype leaves, [T, S].

    2 sqrt(sum w^2 ulp^2 / 12) / |w|^2, where rounding is relative and weights are Gaussian.
    """
    w2, round2 = tracks.at["w2"], tracks.at["round2"]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(2.0 * np.sqrt(3.0 * round2 / (w2 * tracks.numel[:, None])))


def decay_fall(law: Law, rates: IntervalRates) -> Array:
    """Fall of ln |w|^2 by decay alone over an interval, [I]; an error of ln |w|^2 over it is dq."""
    strength = (rates.lr * rates.decay).sum(axis=0)
    held_back = 1.0 if law.decoupled else 1.0 - law.momentum
    with np.errstate(divide="ignore"):
        return np.asarray(np.where(rates.known, 2.0 * strength / held_back, np.nan))


def scatter(law: Law) -> float:
    """k(a) c_h: relative standard error of q times the number of updates."""
    if law.rule is None:
        return 0.0
    return float(momentum_factor(law.momentum)) * GRADIENT_SCATTER


def _kind(law: Law, with_state: bool) -> ErrorKind:
    if law.is_l2_adam:
        return "adam_l2"
    if law.adaptive:
        return "adamw_state" if with_state else "one_sided"
    if law.rule is not None and law.rule.q != 0.0:
        return "nesterov"
    if law.momentum == 0.0 and not law.decoupled:
        return "plain_sgd"
    return "heavy_ball_state" if with_state else "heavy_ball"


def holds_jump(rates: IntervalRates) -> NDArray[np.bool_]:
    """Intervals within which neighbouring updates differ by a factor of 1.5 or more in rate."""
    if len(rates.lr) < 2:
        return np.zeros(len(rates.count), dtype=bool)
    within = np.arange(1, len(rates.lr))[:, None] < rates.count
    # A rate that ends at zero shrinks by large factors without doing anything.
    floor = 1e-2 * rates.lr.max(axis=0, initial=0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.abs(np.log(rates.lr[1:] / rates.lr[:-1]))
    counts = (rates.lr[1:] > floor) | (rates.lr[:-1] > floor)
    return np.asarray((within & counts & (change > np.log(_JUMP))).any(axis=0))


def follows_jump(rates: IntervalRates) -> NDArray[np.bool_]:
    """Intervals that begin with a rate 1.5x or more away from the one before, or follow a jump."""
    follows = np.zeros(len(rates.count), dtype=bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.abs(np.log(rates.first_lr()[1:] / rates.last_lr()[:-1]))
    follows[1:] = (change > np.log(_JUMP)) | holds_jump(rates)[:-1]
    return follows
