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
            start = q[:, own[0]]
        else:
            # r is unchanged by the cut; r*^4 goes as lr / decay (and r*^2 likewise for Adam).
            start = previous[0] * scale / previous[1]
            if gains is not None and stage.index in gains:
                start = start * gains[stage.index]
        with np.errstate(divide="ignore", invalid="ignore"):
            y0 = np.where(start > 0.0, 1.0 / start, np.nan)
        path = relaxed_turn2_ratio(y0, lr, decay, law.momentum, law.family)
        edges = np.concatenate([[0], np.cumsum(rates.lengths[own])])
        for position, interval in enumerate(own):
            piece = slice(edges[position], edges[position + 1])
            # Mean of the squared angles over the mean of their equilibrium values.
            weight = lr[piece] * decay[piece]
            if weight.sum() > 0.0:
                curve[:, interval] = np.average(path[piece], axis=0, weights=weight)
        ending = q[:, own[-1]]
        previous = (np.where(np.isfinite(ending), ending, curve[:, own[-1]]), lr[-1] / decay[-1])
    return curve


def _flat(rates: IntervalRates, own: NDArray[np.intp]) -> tuple[Array, Array]:
    """Rates of consecutive intervals joined into one sequence."""
    lr = np.concatenate([rates.lr[: rates.count[i], i] for i in own])
    decay = np.concatenate([rates.decay[: rates.count[i], i] for i in own])
    return lr, decay
