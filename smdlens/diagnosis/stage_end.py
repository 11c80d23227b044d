"""The end of a stage where snapshots are too few to bound it.

A state speaks of the last third of a stage. An interval that begins before it also holds updates of
the time before; under a steady unit gradient the relaxation law says how the interval's mean
splits (docs/theory.md §8).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.rates import IntervalRates
from smdlens.diagnosis.relaxed import CHUNK, start_levels
from smdlens.diagnosis.update_rule import Law
from smdlens.theory.relaxation import relaxed_turn2_ratio

Array = NDArray[np.float64]
# An interval that begins before the last third by less than this share of itself counts as in it.
_NEGLIGIBLE = 0.1


@dataclass(frozen=True)
class StageEnd:
    """The intervals that reach into the last third of a stage.

    Attributes:
        which: Those intervals.
        skip: Updates of the first of them that come before the last third.
        factor: Squared ratio of the rest of that interval over its mean, per tensor, [T].
    """

    which: NDArray[np.intp]
    skip: int
    factor: Array


def end_of_stage(
    law: Law | None,
    rates: IntervalRates,
    q: Array,
    last: NDArray[np.intp],
    steps: NDArray[np.int64],
    start: float,
) -> StageEnd:
    """Intervals of `last` that reach beyond `start`, the first of them split there.

    Args:
        law: Theory of the tensors' optimizer.
        rates: Recorded rates.
        q: Squared ratios, [T, I].
        last: Last intervals of the stage.
        steps: Steps of the snapshots.
        start: First update of the last third.
    """
    which = last[steps[last + 1] > start]
    ones = np.ones(len(q))
    if len(which) == 0:
        return StageEnd(which, 0, ones)
    first = int(which[0])
    skip = int(start - steps[first])
    if skip <= _NEGLIGIBLE * rates.lengths[first] or not rates.known[first]:
        return StageEnd(which, 0, ones)
    n = int(rates.count[first])
    lr, decay = rates.lr[:n, first], rates.decay[:n, first]
    if law is None or law.is_l2_adam or not (lr > 0.0).all() or not (decay > 0.0).all():
        return StageEnd(which, skip, ones)
    level = start_levels(law, lr, decay, q[:, first])
    factor = np.concatenate(
        [
            _rest_over_whole(law, lr, decay, level[at : at + CHUNK], skip)
            for at in range(0, len(q), CHUNK)
        ]
    )
    return StageEnd(which, skip, np.where(np.isfinite(factor), factor, 1.0))


def _rest_over_whole(law: Law, lr: Array, decay: Array, level: Array, skip: int) -> Array:
    path = relaxed_turn2_ratio(level, lr, decay, law.momentum, law.family)
    weight = lr * decay
    whole = np.average(path, axis=0, weights=weight)
    return np.asarray(np.average(path[skip:], axis=0, weights=weight[skip:]) / whole)
