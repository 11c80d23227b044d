"""What Adam's division by sqrt(v) does to the norm balance: along the weights and across entries.

<w, g> = 0 leaves <w, g / S>, S = sqrt(vhat) + eps, a random part, and a step need not be equally
long in every entry. Saved moments measure both, weights alone show only how ratios scatter
(docs/theory.md §11).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.one_step_record import Array
from smdlens.diagnosis.rates import IntervalRates
from smdlens.diagnosis.tracks import Tracks
from smdlens.diagnosis.update_rule import Law
from smdlens.theory.uncertainty import momentum_factor

# |u|_S^2 / |u|^2 over many steps differs from 1 by about this much per squared spread of S: where
# gradients point one way S is small and steps are long.
_SHAPE = 0.1
# Relative spread of S over the entries where it was not saved, and the intervals that this belief
# is worth against what neighbouring ratios show.
_SPREAD, _SPREAD_INTERVALS = 0.12, 2.0
# c_h^2 of the gradients that the same differences show.
_GRADIENTS = 0.4
# No spread is taken for larger than this.
_WIDEST = 1.0
# Share of the variance of h~ that is the gradient's length, the rest being <v', g>.
_LENGTH = 0.8


def step_shape(tracks: Tracks, momentum: float) -> tuple[Array, Array]:
    """|u|_S^2 / |u|^2 of the mean step of each interval and its standard error, [T, I] each.

    Both ends show one draw each. N entries with a relative spread s of S scatter by s sqrt(2 / N)
    around the long-run mean; an interval of n updates holds (n + m - 1) / m independent steps, m
    the memory of the momentum. 1 where the moments were not saved.
    """
    entries, n = tracks.numel[:, None], tracks.lengths.astype(np.float64)
    between, u2 = tracks.between, tracks.at["u2"]
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = np.stack([between["s_u2_from"] / u2[:, :-1], between["s_u2_to"] / u2[:, 1:]])
        spread2 = tracks.at["vhat_sum"][:, 1:] / entries / between["s_mean"] ** 2 - 1.0
    known = np.isfinite(ends)
    spread2 = np.maximum(np.nan_to_num(spread2), 0.0)
    shared = momentum ** (2.0 * n)
    draws = np.where(known.all(axis=0), 2.0 / (1.0 + shared), known.sum(axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        seen = np.where(known, ends, 0.0).sum(axis=0) / known.sum(axis=0)
        memory = (1.0 + momentum**2) / (1.0 - momentum**2)
        one = 2.0 * spread2 / entries
        chance = one * memory / (n + memory - 1.0)
        error2 = np.maximum(one / draws - chance, 0.0)
        believed = (_SHAPE * spread2) ** 2 + chance
        weight = np.where(believed > 0.0, believed / (believed + error2), 0.0)
    weight = np.where(known.any(axis=0), weight, 0.0)
    shape = 1.0 + weight * (np.nan_to_num(seen, nan=1.0) - 1.0)
    return shape, np.sqrt(np.where(weight > 0.0, weight * error2, believed))


def radial_errors(
    law: Law | None,
    rates: IntervalRates,
    tracks: Tracks,
    q: Array,
    breaks: NDArray[np.bool_],
    scatter: Array,
    storage: Array,
) -> tuple[Array, Array]:
    """Standard error of q from the part of Adam's steps along the weights, [T, I] each.

    <w, g> = 0 leaves <w, g / S> a random part of |w| times the relative spread of S, which adds up
    over n updates like sqrt(n) and competes with decay's n lam |w|^2. Measured in the norm weighted
    by the mean S of the interval only its change within the interval is left: what the other
    updates change in S, and what each update changes itself, as the cube of its gradient.

    Args:
        law: Theory of the tensors' optimizer.
        rates: Recorded rates.
        tracks: The tensors.
        q: Squared ratios, [T, I].
        breaks: Intervals that hold or follow a jump of the rate.
        scatter: c_h per tensor, [T].
        storage: Standard error of q from rounding to the storage dtype, [T, I].

    Returns:
        With the saved moments, and without.
    """
    shape = (len(tracks.tensors), len(rates.count))
    if law is None or law.rule is None or not law.adaptive or law.betas is None:
        return np.zeros(shape), np.zeros(shape)
    w2, n = tracks.at["w2"], np.maximum(rates.lengths, 1).astype(np.float64)
    memory = 1.0 - law.betas[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        pull = rates.mean_decay() * (w2[:, :-1] * w2[:, 1:]) ** 0.25 * np.sqrt(n)
        heavy = 1.0 + _LENGTH * scatter[:, None] ** 2
        others = 0.5 * memory / (2.0 - memory) * -np.expm1(-n * memory / 3.0)
        moving = np.sqrt(others + 15.0 / 16.0 * memory**2 * heavy**3) / pull
        spread = _spread_shown(q, pull, breaks, _known_scatter(law, q, n) + 10.0 * storage**2)
        return np.nan_to_num(moving), np.nan_to_num(spread[:, None] / pull)


def _known_scatter(law: Law, q: Array, n: Array) -> Array:
    """Variance that gradients and boundary terms give a second difference of ratios, [T, I]."""
    k = float(momentum_factor(law.momentum))
    return np.asarray(_GRADIENTS * q**2 * (6.0 / n + 10.0 * k**2 / n**2))


def _spread_shown(q: Array, pull: Array, breaks: NDArray[np.bool_], known: Array) -> Array:
    """Relative spread of S per tensor, from second differences of neighbouring ratios, [T].

    Three independent errors of size s / pull leave a second difference of variance
    6 (s / pull)^2 on top of the `known`; what drifts makes it larger, never smaller.
    """
    if q.shape[1] < 3:
        return np.full(len(q), _SPREAD)
    whole = ~(breaks[:-2] | breaks[1:-1] | breaks[2:])
    with np.errstate(divide="ignore", invalid="ignore"):
        unit2 = pull[:, :-2] ** -2.0 + 4.0 * pull[:, 1:-1] ** -2.0 + pull[:, 2:] ** -2.0
        second2 = (q[:, :-2] - 2.0 * q[:, 1:-1] + q[:, 2:]) ** 2 - known[:, 1:-1]
        usable = whole & np.isfinite(second2) & (known[:, 1:-1] < unit2)
        square = np.where(usable, second2 / unit2, 0.0)
    # Each ratio is in three of them.
    count = usable.sum(axis=1) / 2.0
    total = np.maximum(square.sum(axis=1) / 2.0, 0.0)
    spread2 = (_SPREAD_INTERVALS * _SPREAD**2 + total) / (_SPREAD_INTERVALS + count)
    return np.asarray(np.minimum(np.sqrt(spread2), _WIDEST))
