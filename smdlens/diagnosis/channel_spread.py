"""Spread of the ratio over the channels of a tensor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.measure_group import GroupMeasurement
from smdlens.theory.angles import turn2_from_angle
from smdlens.theory.closed_form import one_step_turn2

Array = NDArray[np.float64]
QUANTILES = ("p05", "p50", "p95")


def channel_ratios(part: GroupMeasurement) -> tuple[Array, Array, Array]:
    """5%, 50% and 95% quantiles over channels of the ratio, [T, I] each, NaN where unknown.

    A channel's squared ratio rises with the trend of its norm (docs/theory.md §6), so quantiles of
    the norms' growth become quantiles of the ratio. They are scaled by what the whole tensor's
    estimate adds to its own trend (boundary terms, leak, weighting). Snapshots one update apart use
    the channels' angles.
    """
    shape = part.steps.turn2.shape
    empty = np.full(shape, np.nan)
    law, rates, tracks = part.law, part.rates, part.tracks
    single = tracks.adjacent
    usable = rates.constant & (rates.lengths > 1)
    result = []
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = np.log(tracks.at["w2"][:, 1:] / tracks.at["w2"][:, :-1])
    whole = _trend_ratio(part, growth, usable)
    for quantile in QUANTILES:
        ratio = empty.copy()
        if law is not None and law.rule is not None and not law.is_l2_adam:
            trend = _trend_ratio(part, tracks.between[f"growth_{quantile}"], usable)
            # Additive in q: the correction does not grow with a channel's own trend.
            ratio = np.sqrt(np.maximum(trend + (part.ratios.q - whole), 0.0))
        direct = turn2_from_angle(tracks.between[f"angle_{quantile}"]) / part.expected
        ratio[:, single] = np.sqrt(direct[:, single])
        result.append(ratio)
    return result[0], result[1], result[2]


def _trend_ratio(part: GroupMeasurement, growth: Array, usable: NDArray[np.bool_]) -> Array:
    """Squared ratio that a growth of ln |w|^2 over the interval implies, [T, I]."""
    law, rates = part.law, part.rates
    if law is None or law.rule is None:
        return np.full(growth.shape, np.nan)
    decay = rates.mean_decay()
    coupled = part.kappa if law.decoupled else decay + part.kappa
    decoupled = decay if law.decoupled else np.zeros_like(decay)
    turn2, _ = one_step_turn2(
        law.rule,
        np.ones_like(growth),
        np.exp(growth),
        rates.lengths.astype(np.float64),
        rates.mean_lr(),
        coupled,
        decoupled,
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(usable & (part.expected > 0.0), turn2 / part.expected, np.nan)
