"""Stages of a run: the updates between two cuts, a warm-up being a stage of its own."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.records import Stage
from smdlens.hyper.records import HyperParameters

# A state speaks of the end of its stage: this fraction of it, at least two intervals.
_LAST_PART = 1.0 / 3.0


def stages_of(hyper: HyperParameters, main_group: int, first: int, last: int) -> tuple[Stage, ...]:
    """Stages between the first and the last snapshot.

    Args:
        hyper: Resolved hyper-parameters; its cuts and warm-up bound the stages.
        main_group: Group whose rates the stages show.
        first: Step of the first snapshot.
        last: Step of the last snapshot.
    """
    bounds = {first, last}
    bounds.update(cut.step for cut in hyper.cuts if first < cut.step < last)
    if hyper.warm_up_end is not None and first < hyper.warm_up_end < last:
        bounds.add(hyper.warm_up_end)
    edges = sorted(bounds)
    stages = []
    for index, (low, high) in enumerate(itertools.pairwise(edges), start=1):
        lr_from, decay = _rate_at(hyper, main_group, low)
        lr_to, _ = _rate_at(hyper, main_group, high - 1)
        stages.append(Stage(index, low, high, lr_from, lr_to, decay))
    return tuple(stages)


def _rate_at(hyper: HyperParameters, group: int, step: int) -> tuple[float | None, float | None]:
    lr, decay = hyper.rates(group, step, step + 1)
    return (
        float(lr[0]) if np.isfinite(lr[0]) else None,
        float(decay[0]) if np.isfinite(decay[0]) else None,
    )


def stage_of_intervals(
    stages: tuple[Stage, ...], hyper: HyperParameters, steps: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Stage index of each interval between snapshots, -1 for one that holds a cut.

    A cut known only to lie between two snapshots takes that whole interval out of every stage.
    """
    owner = np.full(len(steps) - 1, -1, dtype=np.int64)
    for i, (a, b) in enumerate(itertools.pairwise(steps.tolist())):
        for stage in stages:
            if stage.step_from <= a and b <= stage.step_to:
                owner[i] = stage.index
        for cut in hyper.cuts:
            if cut.step_low < cut.step_high and a < cut.step_high and b > cut.step_low:
                owner[i] = -1
    return owner


def last_third(stage: Stage) -> float:
    """Step at which the last third of a stage begins."""
    return stage.step_to - (stage.step_to - stage.step_from) * _LAST_PART


def last_part(stage: Stage, owner: NDArray[np.int64], steps: NDArray[np.int64]) -> NDArray[np.intp]:
    """Intervals of a stage that its states speak of: its last third, two intervals at least."""
    own = np.flatnonzero(owner == stage.index)
    if len(own) == 0:
        return own
    middle = (steps[own] + steps[own + 1]) / 2.0
    count = max(2, int((middle >= last_third(stage)).sum()))
    return own[-count:]
