"""Epsilon leak of each interval, from the motion of the gains behind each tensor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.rates import IntervalRates
from smdlens.diagnosis.tracks import Tracks
from smdlens.diagnosis.update_rule import Law
from smdlens.theory.epsilon_leak import KAPPA_SHRINK, kappa_from_gamma

Array = NDArray[np.float64]


def kappa_of(
    tracks: Tracks,
    rows: NDArray[np.intp],
    law: Law | None,
    rates: IntervalRates,
    gain_law: Law | None,
    gain_rates: IntervalRates | None,
    *,
    raw: bool = False,
) -> Array:
    """Leak kappa of tensors `rows`, in units of weight decay, [len(rows), I].

    Zero where it cannot be known: no running variance or gain, an adaptive optimizer (its gains do
    not move by their gradient), or unknown rates.

    Args:
        tracks: All tensors.
        rows: Tensors of one group whose gains are all in one group.
        law: Theory of the tensors' optimizer.
        rates: The tensors' rates.
        gain_law: Theory of the gains' group.
        gain_rates: The gains' rates.
        raw: As it stands in the sums, without the shrinking and the limit that an interval of many
            updates needs: for single updates.
    """
    shape = (len(rows), len(rates.count))
    if law is None or law.adaptive or law.rule is None or gain_rates is None or gain_law is None:
        return np.zeros(shape)
    between = {name: tracks.between[name][rows] for name in _COLUMNS}
    if tracks.steps[0] == 0:
        # Before its first update an optimizer has no buffer: that is a buffer of zero.
        start = between["leak_buffer_from"][:, :1]
        between["leak_buffer_from"][:, :1] = np.where(np.isnan(start), 0.0, start)
    w2 = tracks.at["w2"][rows]
    lr_sum = np.where(gain_rates.known, gain_rates.lr.sum(axis=0), np.nan)
    shift = between["leak_shift"]
    if gain_law.decoupled:
        # Decay that acts on the gains directly moved them without any gradient.
        shift = shift - gain_rates.mean_decay() * lr_sum * between["leak_gamma"]
    kappa = kappa_from_gamma(
        shift,
        between["leak_buffer_from"],
        between["leak_buffer_to"],
        between["leak_gamma"],
        gain_rates.first_lr(),
        gain_rates.last_lr(),
        lr_sum,
        gain_law.momentum,
        0.0 if gain_law.decoupled else gain_rates.mean_decay(),
        np.sqrt(w2[:, :-1] * w2[:, 1:]),
        nesterov=gain_law.rule is not None and gain_law.rule.q != 0.0,
        dampening=0.0 if gain_law.rule is None else 1.0 - gain_law.rule.c,
        shrink=1.0 if raw else KAPPA_SHRINK,
    )
    known = np.isfinite(kappa) & gain_rates.known & rates.known
    if raw:
        return np.where(known, np.nan_to_num(kappa), 0.0)
    # A leak beyond the decay itself is no reading: gains whose own decay is not known, say.
    limit = rates.mean_decay()
    return np.where(known, np.clip(np.nan_to_num(kappa), -limit, limit), 0.0)


_COLUMNS = ("leak_shift", "leak_buffer_from", "leak_buffer_to", "leak_gamma")
