"""Radial part of the gradient from saved momentum: a test of scale invariance from the weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.measure_group import GroupMeasurement

Array = NDArray[np.float64]


def radial_ratio(part: GroupMeasurement) -> Array:
    """Ratio kappa / lam, kappa = <g, w> / |w|^2, per interval, [T, I].

    Between consecutive snapshots with buffers that of the one gradient itself (docs/theory.md §14).
    Else the mean of both ends of kappa = ((1-a) s + a lr |v|^2) / |w|^2 - lam with
    s = <v, w> + lr |v|^2, heavy ball near a steady norm (docs/theory.md §12); one snapshot alone is
    noisy: read the mean of ten or more. NaN without buffers or decay, under an adaptive optimizer,
    and under Nesterov but for consecutive snapshots.
    """
    law, rates = part.law, part.rates
    if law is None or law.rule is None or law.adaptive or law.momentum == 0.0 or law.decoupled:
        return np.full(part.steps.turn2.shape, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        exact = part.tracks.between["grad_w"] / part.tracks.at["w2"][:, :-1] / rates.mean_decay()
    exact = np.where(np.isfinite(exact), exact, np.nan)
    if not law.is_heavy_ball:
        return exact
    return np.where(np.isfinite(exact), exact, _from_ends(part, law.momentum))


def _from_ends(part: GroupMeasurement, a: float) -> Array:
    """Mean of the readings at both ends of each interval."""
    tracks, rates = part.tracks, part.rates
    # The rate that made each snapshot's last update; the first snapshot takes its interval's own.
    lr = np.concatenate([rates.first_lr()[:1], rates.last_lr()])
    decay = np.concatenate([rates.mean_decay()[:1], rates.mean_decay()])
    w2, wv, v2 = (tracks.at[name] for name in ("w2", "wv", "v2"))
    with np.errstate(divide="ignore", invalid="ignore"):
        s = wv + lr * v2
        kappa = ((1.0 - a) * s + a * lr * v2) / w2 - decay
        ratio = np.where(decay > 0.0, kappa / decay, np.nan)
    both = np.stack([ratio[:, :-1], ratio[:, 1:]])
    known = np.isfinite(both)
    total = np.where(known, both, 0.0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)
