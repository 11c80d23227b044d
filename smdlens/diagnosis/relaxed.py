"""What an undisturbed tensor would do through each stage, from where it starts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.rates import IntervalRates
from smdlens.diagnosis.records import Stage
from smdlens.diagnosis.update_rule import Law
from smdlens.theory.relaxation import relaxed_turn2_ratio

Array = NDArray[np.float64]
# Tensors taken together: their paths through a long interval have to fit into memory.
CHUNK = 64
_ROUNDS = 24


def start_levels(law: Law, lr: Array, decay: Array, q: Array) -> Array:
    """Level y = (|w| / |w*|)^m at the start of an interval whose mean squared ratio is q, [T].

    Under a steady unit gradient; NaN where no level gives that mean.

    Args:
        law: Theory of the tensors' optimizer.
        lr: Rate of each update of the interval, positive.
        decay: Weight decay, likewise.
        q: Measured mean squared ratio, [T].
    """
    return np.concatenate(
        [_levels(law, lr, decay, q[at : at + CHUNK]) for at in range(0, len(q), CHUNK)]
    )


def _levels(law: Law, lr: Array, decay: Array, q: Array) -> Array:
    low, high = np.full(len(q), -16.0), np.full(len(q), 16.0)
    whole = np.ones(len(q))
    for _ in range(_ROUNDS):
        middle = (low + high) / 2.0
        path = relaxed_turn2_ratio(np.exp(middle), lr, decay, law.momentum, law.family)
        whole = np.average(path, axis=0, weights=lr * decay)
        # A larger norm turns by less.
        too_small = whole < q
        low, high = np.where(too_small, low, middle), np.where(too_small, middle, high)
    return np.where(np.isclose(whole, q, rtol=1e-3), np.exp((low + high) / 2.0), np.nan)


def relaxed_ratios(
    law: Law | None,
    rates: IntervalRates,
    stages: tuple[Stage, ...],
    owner: NDArray[np.int64],
    q: Array,
    gains: Mapping[int, Array] | None = None,
) -> Array:
    """Squared ratio of the relaxation curve per tensor and interval, [T, I].

    Each stage starts where the stage before it ended, the rate having changed under fixed weights;
    the first from its first measured ratio. The unit gradient is taken as steady.

    Args:
        law: Theory of the tensors' optimizer; without one everything is NaN.
        rates: Recorded rates.
        stages: Stages of the run.
        owner: Stage of each interval, -1 for none.
        q: Measured squared ratios.
        gains: Stage -> factor by which each tensor's mean squared unit gradient changed at the
            stage's start, [T]; 1 unless given.
    """
    curve = np.full_like(q, np.nan)
    if law is None or law.is_l2_adam:
        return curve
    previous: tuple[Array, float] | None = None
    for stage in stages:
        own = np.flatnonzero(owner == stage.index)
        if len(own) == 0 or not rates.known[own].all():
            previous = None
            continue
        lr, decay = _flat(rates, own)
        if not (lr[0] > 0.0 and (decay > 0.0).all()):
            previous = None
            continue
        scale = lr[0] / decay[0]
        if previous is None:
            first = rates.count[own[0]]
            y0 = start_levels(law, lr[:first], decay[:first], q[:, own[0]])
        else:
            # r is unchanged by the cut; r*^4 goes as lr / decay (and r*^2 likewise for Adam).
            start = previous[0] * scale / previous[1]
            if gains is not None and stage.index in gains:
                start = start * gains[stage.index]
            with np.errstate(divide="ignore", invalid="ignore"):
                y0 = np.where(start > 0.0, 1.0 / start, np.nan)
        edges = np.concatenate([[0], np.cumsum(rates.lengths[own])])
        for at in range(0, len(y0), CHUNK):
            some = slice(at, at + CHUNK)
            path = relaxed_turn2_ratio(y0[some], lr, decay, law.momentum, law.family)
            for position, interval in enumerate(own):
                piece = slice(edges[position], edges[position + 1])
                # Mean of the squared angles over the mean of their equilibrium values.
                weight = lr[piece] * decay[piece]
                if weight.sum() > 0.0:
                    curve[some, interval] = np.average(path[piece], axis=0, weights=weight)
        previous = (_ending(law, rates, int(own[-1]), q, curve), lr[-1] / decay[-1])
    return curve


def _ending(law: Law, rates: IntervalRates, interval: int, q: Array, curve: Array) -> Array:
    """Squared ratio at the very end of an interval, from its measured mean, [T]."""
    n = int(rates.count[interval])
    lr, decay = rates.lr[:n, interval], rates.decay[:n, interval]
    mean = q[:, interval]
    ending = np.where(np.isfinite(mean), mean, curve[:, interval])
    if not (lr > 0.0).all():
        return ending
    level = start_levels(law, lr, decay, mean)
    settled = [
        relaxed_turn2_ratio(level[at : at + CHUNK], lr, decay, law.momentum, law.family)[-1]
        for at in range(0, len(level), CHUNK)
    ]
    at_end = np.concatenate(settled)
    return np.where(np.isfinite(at_end), at_end, ending)


def _flat(rates: IntervalRates, own: NDArray[np.intp]) -> tuple[Array, Array]:
    """Rates of consecutive intervals joined into one sequence."""
    lr = np.concatenate([rates.lr[: rates.count[i], i] for i in own])
    decay = np.concatenate([rates.decay[: rates.count[i], i] for i in own])
    return lr, decay
