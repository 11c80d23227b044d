"""The angle between any two of at most 64 snapshots spread over the run, per invariant tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import numpy as np
import polars as pl
from numpy.typing import NDArray

from smdlens.motion.cache import MeasurementCache
from smdlens.motion.device import Device
from smdlens.motion.files import FilePool
from smdlens.motion.gram import GramSums, gram_tasks, run_gram_task
from smdlens.motion.records import ANGLE_SCHEMA
from smdlens.motion.row_keys import gram_key
from smdlens.motion.select import ON_A_SPHERE, Selected
from smdlens.motion.workers import in_order, worth_processes
from smdlens.snapshots.records import SnapshotSeries
from smdlens.theory.angles import angle_from_turn2

MOST_SNAPSHOTS = 64


def spread(count: int, most: int = MOST_SNAPSHOTS) -> tuple[int, ...]:
    """At most `most` of `count` snapshots: every k-th, so that lags repeat, and the last."""
    stride = -(-(count - 1) // (most - 1)) if count > 1 else 1
    return tuple(range((count - 1) % stride, count, stride))


def measure_all_pairs(
    chosen: Sequence[Selected],
    series: SnapshotSeries,
    device: Device,
    workers: int | None,
    pool: FilePool,
    progress: Callable[[int, int], None] | None = None,
    cache: MeasurementCache | None = None,
) -> pl.DataFrame:
    """Angles between all pairs of chosen snapshots.

    Args:
        chosen: Every measured tensor; those on no sphere are left out.
        series: The run.
        device: Where the arithmetic runs.
        workers: Threads.
        pool: Open files.
        progress: Called with bytes done and bytes in all.
        cache: Measurements of earlier analyses.

    Returns:
        Frame with `ANGLE_SCHEMA`, tensors in file order, pairs in order of their first snapshot.
    """
    invariant = [each for each in chosen if each.symmetry.role in ON_A_SPHERE]
    at = spread(len(series.snapshots))
    keys = [
        "" if cache is None else gram_key(each, at, device, cache.fingerprint) for each in invariant
    ]
    found = {
        index: values
        for index, key in enumerate(keys)
        if cache is not None and (values := cache.values(key)) is not None
    }
    turned = {index: np.array(values, dtype=np.float64) for index, values in found.items()}
    for index, sums in _measured(invariant, at, found, device, workers, pool, progress):
        turned[index] = sums.turn2()
        if cache is not None:
            cache.add_values(keys[index], turned[index].tolist())
    return _frame([(e, turned[i]) for i, e in enumerate(invariant)], at, series.steps)


def _measured(
    invariant: Sequence[Selected],
    at: tuple[int, ...],
    found: dict[int, list[float]],
    device: Device,
    workers: int | None,
    pool: FilePool,
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[int, GramSums]]:
    left = [index for index in range(len(invariant)) if index not in found]
    tasks = [t for i in left for t in gram_tasks(i, invariant[i].plan.taken(at))]
    total, done = sum(task.nbytes for task in tasks), 0
    shared = worth_processes([invariant[index].plan for index in left], pool)
    results = in_order(lambda: tasks, run_gram_task, device, workers, pool, set(), processes=shared)
    for index, group in groupby(results, key=lambda pair: pair[1].tensor):
        sums = GramSums.zeros(len(at))
        for part, task in group:
            sums.add(part)
            done += task.nbytes
            if progress is not None:
                progress(done, total)
        yield index, sums


def _frame(
    turned: Sequence[tuple[Selected, NDArray[np.float64]]],
    at: tuple[int, ...],
    steps: tuple[int, ...],
) -> pl.DataFrame:
    i, j = np.triu_indices(len(at), 1)
    places = np.array(at)
    when = np.array(steps, dtype=np.int64)[places]
    frames = [
        pl.DataFrame(
            {
                "tensor": [each.symmetry.name] * len(i),
                "snapshot_from": places[i],
                "snapshot_to": places[j],
                "step_from": when[i],
                "step_to": when[j],
                "angle_rad": angle_from_turn2(values),
            },
            schema=ANGLE_SCHEMA,
        )
        for each, values in turned
    ]
    frames.append(pl.DataFrame(schema=ANGLE_SCHEMA))
    return pl.concat(frames).with_columns(pl.col("angle_rad").fill_nan(None))
