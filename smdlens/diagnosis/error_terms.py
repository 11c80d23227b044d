"""The parts of an error of q = (angle / equilibrium angle)^2 that follow from what was saved."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.rates import IntervalRates
from smdlens.diagnosis.tracks import Tracks
from smdlens.diagnosis.update_rule import Law

Array = NDArray[np.float64]
# How far the unit gradient falls while the buffer forgets the rate before a jump, and how many
# memories 1 / (1 - a) that takes.
_FALL, _FALL_MEMORIES = 0.3, 3.0
# An interval whose rate changes by more than this within it holds a jump.
_JUMP = 1.5


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


def storage_error(tracks: Tracks, law: Law | None, rates: IntervalRates) -> Array:
    """Standard error of q that rounding both norms to the storage dtype leaves, [T, I]."""
    if law is None or law.rule is None:
        return np.zeros((len(tracks.tensors), len(rates.count)))
    blurred = log_norm_error(tracks)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.hypot(blurred[:, :-1], blurred[:, 1:]) / decay_fall(law, rates))


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


def fall_error(law: Law, rates: IntervalRates) -> Array:
    """Relative error of q from a unit gradient that falls just after a jump, norms alone, [I].

    Gradients that change by a share x over the memory of the buffer leave a boundary term of
    2 a / (1 - a^2) x / n of q (docs/theory.md §11).
    """
    n = np.maximum(rates.lengths, 1)
    since = np.full(len(n), np.inf)
    jumps, follows = holds_jump(rates), follows_jump(rates)
    for i in range(len(n)):
        if jumps[i] or follows[i]:
            since[i] = 0.0
        elif i > 0:
            since[i] = since[i - 1] + n[i - 1]
    a = law.momentum
    left = np.exp(-since * (1.0 - a) / _FALL_MEMORIES)
    return np.asarray(_FALL * left * 2.0 * a / (1.0 - a * a) / n)
