"""Epsilon leak of each interval, from the motion of the gains behind each tensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.rates import IntervalRates, interval_rates
from smdlens.diagnosis.tracks import Tracks
from smdlens.diagnosis.update_rule import Law, law_of
from smdlens.hyper.records import HyperParameters
from smdlens.symmetry.records import ScaleGroups
from smdlens.theory.epsilon_leak import KAPPA_SHRINK, kappa_from_gamma

Array = NDArray[np.float64]

# A declared weight decay may spare the gains: half of what that changes is one standard error.
_DOUBT = 0.5


@dataclass(frozen=True, slots=True)
class Leak:
    """Epsilon leak per tensor and interval, in units of weight decay, [T, I].

    Attributes:
        kappa: The leak; 0 where it cannot be known.
        doubt: Its standard error from not knowing whether the gains decay.
    """

    kappa: Array
    doubt: Array

    def over(self, blocks: list[NDArray[np.intp]], lengths: NDArray[np.int64]) -> Leak:
        """Means over blocks of intervals."""
        return Leak(*(_means(values, blocks, lengths) for values in (self.kappa, self.doubt)))


def _means(values: Array, blocks: list[NDArray[np.intp]], lengths: NDArray[np.int64]) -> Array:
    return np.stack([np.average(values[:, b], weights=lengths[b], axis=1) for b in blocks], axis=1)


def leak_of(
    tracks: Tracks,
    rows: NDArray[np.intp],
    law: Law | None,
    rates: IntervalRates,
    gain_law: Law | None,
    gain_rates: IntervalRates | None,
    *,
    decay_is_certain: bool,
    raw: bool = False,
) -> Leak:
    """Leak of tensors `rows`, [len(rows), I].

    Zero where it cannot be known: no running variance or gain, an adaptive optimizer (its gains do
    not move by their gradient), or unknown rates.

    Args:
        tracks: All tensors.
        rows: Tensors of one group whose gains are all in one group.
        law: Theory of the tensors' optimizer.
        rates: The tensors' rates.
        gain_law: Theory of the gains' group.
        gain_rates: The gains' rates.
        decay_is_certain: The checkpoints themselves say how the gains decay.
        raw: As it stands in the sums, without the shrinking and the limit that an interval of many
            updates needs: for single updates.
    """
    shape = (len(rows), len(rates.count))
    if law is None or law.adaptive or law.rule is None or gain_rates is None or gain_law is None:
        return Leak(np.zeros(shape), np.zeros(shape))
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
        return Leak(np.where(known, np.nan_to_num(kappa), 0.0), np.zeros(shape))
    # A leak beyond the decay itself is no reading: gains whose own decay is not known, say.
    limit = rates.mean_decay()
    doubt = np.zeros(shape)
    if not decay_is_certain:
        pull = gain_rates.mean_decay() * between["leak_gamma"]
        doubt = _DOUBT * np.abs(np.nan_to_num(pull / np.sqrt(w2[:, :-1] * w2[:, 1:])))
    return Leak(
        np.where(known, np.clip(np.nan_to_num(kappa), -limit, limit), 0.0),
        np.where(known, np.minimum(doubt, limit), 0.0),
    )


def leak_under_adam(tracks: Tracks, hyper: HyperParameters, groups: ScaleGroups) -> Array:
    """<g, w> of single updates that epsilon explains, from Adam's first moments of the gains.

    As `leak_of` has it for SGD, but the gain's gradient is that of the one update between two
    snapshots, (m_b - beta1 m_a) / (1 - beta1). [T, I]; 0 where it is not known.
    """
    found = np.zeros_like(tracks.between["dot"])
    for row, name in enumerate(tracks.tensors):
        norm = groups.tensors[name].norm
        gain = None if norm is None or norm.gamma is None else hyper.group_of(norm.gamma)
        law = None if gain is None else law_of(hyper.optimizer, gain)
        if gain is None or law is None or law.betas is None:
            continue
        before, after, gamma = (
            tracks.between[column][row]
            for column in ("leak_buffer_from", "leak_buffer_to", "leak_gamma")
        )
        pulled = (after - law.momentum * before) / (1.0 - law.momentum)
        if not law.decoupled:
            rates = interval_rates(hyper, hyper.groups.index(gain), tracks.steps)
            pulled = pulled - rates.mean_decay() * gamma
        found[row] = np.nan_to_num(pulled)
    return found


_COLUMNS = ("leak_shift", "leak_buffer_from", "leak_buffer_to", "leak_gamma")
