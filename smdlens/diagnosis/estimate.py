"""Ratios with their intervals: q = (angle / equilibrium angle)^2, for one interval or several.

sigma_q^2 adds up what is known to err (docs/theory.md §11): the boundary terms of the norm balance,
at the scatter that the run itself shows; rounding to the storage dtype; the leak of epsilon; the
path between the snapshots; and what the way of measuring has to assume. The boundary terms
telescope, so neighbouring intervals that are pooled count as one long interval, not as independent
draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.adam_errors import radial_errors
from smdlens.diagnosis.error_terms import (
    decay_fall,
    fall_error,
    follows_jump,
    holds_jump,
    log_norm_error,
    storage_error,
)
from smdlens.diagnosis.gradient_scatter import Z95, gradient_scatter
from smdlens.diagnosis.leak import Leak
from smdlens.diagnosis.one_step import OneStep
from smdlens.diagnosis.rates import IntervalRates
from smdlens.diagnosis.tracks import Tracks
from smdlens.diagnosis.update_rule import Law
from smdlens.theory.epsilon_leak import kappa_error
from smdlens.theory.uncertainty import (
    SYSTEMATIC,
    ErrorKind,
    boundary_correlation,
    momentum_factor,
)
from smdlens.vocabulary import Method

Array = NDArray[np.float64]
# c_h = sqrt(V) / L, the relative scatter of h~: 0.8 to 1 on real networks (docs/theory.md §11).
GRADIENT_SCATTER = 0.9
# AdamW without its saved moments: the truth lies up to this far below q (docs/theory.md §6).
ADAM_ONE_SIDED = 0.1
# Standard error of a one-sided error in units of its usual size.
_ONE_SIDED = 0.4
# The first updates of a run are directed, and Adam's second moment builds up: relative error of q.
_FIRST = 0.15
# Error of the leak over the weight decay, per unit of the mean eps / (var + eps).
_LEAK_SCATTER = 0.6
# Relative error of q per unit of q lr decay / (1 - a): the norm of a single update scatters, which
# enters the balance in second order (docs/theory.md §11); less in plain SGD's exact identity.
_PATH, _PATH_PLAIN = 0.3, 0.2
# Nesterov: scatter of <v', g> / |g|^2 in one update, as an error of q; it averages out as sqrt(n).
_CORRELATION = 0.1
# Relative error of q that float32 buffers and rates leave in an angle of a single update.
_SINGLE = 2e-6
# The same in the angle between two snapshots.
_ARITHMETIC = 2e-7
# 95% quantile of a Gaussian.
_Z95_ABOVE = 1.6448536269514722


@dataclass(frozen=True)
class Ratios:
    """Squared ratios per tensor and interval with a 95% interval; [T, I], NaN where unknown.

    `sigma` is the standard error of q, `systematic` the part of it that does not average out and
    `independent` the part that every interval has anew;
    `kappa_ratio` is the epsilon leak over the weight decay, `leak_error` its error; `bias_low` is
    how far the truth may lie below q from a known one-sided error; `boundary`, [T], is the relative
    error from the boundary terms times the number of updates, and `scatter`, [T], c_h.
    """

    q: Array
    low: Array
    high: Array
    sigma: Array
    systematic: Array
    independent: Array
    kappa_ratio: Array
    leak_error: Array
    bias_low: Array
    boundary: Array
    scatter: Array


def interval_ratios(
    tracks: Tracks,
    law: Law | None,
    rates: IntervalRates,
    steps: OneStep,
    expected: Array,
    leak: Leak,
) -> Ratios:
    """Squared ratio of each interval with its uncertainty.

    Args:
        tracks: The tensors, for interval lengths.
        law: Their optimizer's theory.
        rates: Recorded rates.
        steps: Measured one-step angles.
        expected: Equilibrium 2 (1 - cos Delta*) per interval, [T, I].
        leak: Epsilon leak.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.where(expected > 0.0, steps.turn2 / expected, np.nan)
        decaying = rates.mean_decay() > 0.0
        kappa_ratio = np.where(decaying, leak.kappa / rates.mean_decay(), 0.0)
        doubt = np.where(decaying, leak.doubt / rates.mean_decay(), 0.0)
    storage = storage_error(tracks, law, rates)
    breaks = holds_jump(rates) | follows_jump(rates)
    scatter, student = gradient_scatter(law, q, rates.lengths, breaks, storage)
    systematic, statistical, bias_low = (np.zeros_like(q) for _ in range(3))
    boundary = np.zeros(len(q))
    if law is not None:
        systematic = _systematic(law, rates, steps, tracks, q) * q
        boundary = float(momentum_factor(law.momentum)) * scatter * student
        statistical = _boundary(law, rates, q, tracks) * boundary[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            unclosed = np.nan_to_num(steps.unclosed / expected)
        statistical = np.where(steps.with_state, unclosed, statistical)
        if law.adaptive and law.rule is not None:
            bias_low = np.where(steps.with_state, 0.0, ADAM_ONE_SIDED)
    adam = radial_errors(law, rates, tracks, q, breaks, scatter, storage)
    radial = np.where(steps.with_state, *adam)
    independent = np.hypot(radial, np.where(steps.with_state, statistical, 0.0))
    # What cancels between channels in the mean leak still errs channel by channel.
    fraction = np.nan_to_num(tracks.between["eps_fraction"])
    leaking = np.hypot(kappa_error(kappa_ratio), _LEAK_SCATTER * fraction)
    leaking = np.hypot(leaking, doubt)
    single = _single_update(tracks, steps, rates, q, expected)
    direct = np.isfinite(single)
    systematic = np.where(direct, 0.0, systematic)
    with np.errstate(over="ignore"):
        parts = statistical**2 + systematic**2 + leaking**2 + storage**2 + radial**2
        parts = parts + rates.curve_error**2
        sigma = np.where(direct, single, np.sqrt(parts))
    q, sigma = _with_last_steps(tracks, law, rates, steps, expected, q, sigma, leaking)
    bias_low = np.where(direct, 0.0, bias_low)
    low, high = bounds(q, sigma, bias_low)
    return Ratios(
        q=q,
        low=low,
        high=high,
        sigma=sigma,
        systematic=systematic,
        independent=np.where(direct, single, independent),
        kappa_ratio=kappa_ratio,
        leak_error=leaking,
        bias_low=bias_low,
        boundary=boundary,
        scatter=scatter,
    )


def bounds(q: Array, sigma: Array, bias_low: Array) -> tuple[Array, Array]:
    """95% interval of q; a one-sided error of about `bias_low` is taken at its middle.

    Where it reaches below 0, nothing can be missed there: the 5% are all above.
    """
    middle = q - bias_low / 2.0
    error = np.hypot(sigma, _ONE_SIDED * bias_low)
    low = middle - Z95 * error
    high = middle + np.where(low <= 0.0, _Z95_ABOVE, Z95) * error
    return np.maximum(low, 0.0), np.maximum(high, q)


def _single_update(
    tracks: Tracks, steps: OneStep, rates: IntervalRates, q: Array, expected: Array
) -> Array:
    """Standard error of q where it is the angle of one update; NaN elsewhere.

    Rounding both snapshots moves their difference by a random vector of the floor's length: its
    part along the motion errs by floor / sqrt(N) of it, its square by floor^2 sqrt(2 / N). The
    angle that a saved buffer gives knows rounding through the norm alone.
    """
    entries = tracks.numel[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        along = 2.0 * np.sqrt(steps.turn2 / entries) * steps.floor
        blur = np.hypot(along, steps.floor**2 * np.sqrt(2.0 / entries)) / expected
    from_buffer = np.hypot(log_norm_error(tracks)[:, 1:], _SINGLE) * q
    error = np.full_like(q, np.nan)
    adjacent = steps.method == Method.ADJACENT.value
    error[adjacent] = np.hypot(blur, _ARITHMETIC * q)[adjacent]
    saved = (rates.lengths == 1) & (steps.method == Method.OPTIMIZER_STATE.value)
    error[saved] = from_buffer[saved]
    return error


def _systematic(law: Law, rates: IntervalRates, steps: OneStep, tracks: Tracks, q: Array) -> Array:
    """Relative error that does not average out: of the method, or of a jump in or just before."""
    model = np.where(steps.with_state, SYSTEMATIC[_kind(law, True)], SYSTEMATIC[_kind(law, False)])
    jump = holds_jump(rates) | follows_jump(rates)
    error = np.where(jump, np.maximum(model, SYSTEMATIC["jump"]), model)
    if len(jump) and tracks.steps[0] == 0:
        # The first updates of all: gradients change faster than anywhere else.
        error[:, 0] = _FIRST
    error = np.hypot(error, np.where(steps.with_state, 0.0, fall_error(law, rates)))
    strength = rates.lr * rates.decay
    n = rates.lengths.astype(np.float64)
    if law.rule is not None and law.rule.q != 0.0:
        error = np.hypot(error, _CORRELATION / np.sqrt(n))
    error = np.hypot(error, steps.assumed_error)
    if law.rule is not None:
        # Norms that relax within few updates wander between the snapshots.
        path = _PATH_PLAIN if law.momentum == 0.0 else _PATH
        quick = path * decay_fall(law, rates) / (2.0 * np.maximum(rates.count, 1))
        error = np.hypot(error, np.nan_to_num(quick * np.fmax(q, 1.0)))
    ends = np.abs(rates.first_lr() * rates.decay[0] - rates.last_lr() * rates.mean_decay())
    with np.errstate(divide="ignore", invalid="ignore"):
        share = rates.place_error * ends * rates.count / strength.sum(axis=0)
    return np.asarray(np.hypot(error, np.where(np.isfinite(share), share, 0.0)))


def _boundary(law: Law, rates: IntervalRates, q: Array, tracks: Tracks) -> Array:
    """Standard error from the boundary terms of the norm balance at k(a) c_h = 1, [T, I].

    Each end contributes 1 / (sqrt2 n) of the squared ratio in force there; just after a cut the
    start still carries the motion of the old rate. Ends closer than the memory of the buffer move
    together.
    """
    before = np.concatenate([q[:, :1], q[:, :-1]], axis=1)
    if tracks.steps[0] == 0:
        before[:, 0] = 0.0
    before = np.where(np.isfinite(before), before, q)
    shared = boundary_correlation(law.momentum, rates.lengths.astype(np.float64)) * q * before
    return np.asarray(np.sqrt((q**2 + before**2) / 2.0 - shared) / rates.lengths)


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


def _kind(law: Law, with_state: bool) -> ErrorKind:
    if law.adaptive:
        return "adamw_state" if with_state else "one_sided"
    if law.rule is not None and law.rule.q != 0.0:
        return "nesterov"
    if law.momentum == 0.0 and not law.decoupled:
        return "plain_sgd"
    return "heavy_ball_state" if with_state else "heavy_ball"
