"""Measure a run: read every needed byte once, sum, and write the two tables tensor by tensor."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from smdlens.errors import NothingToAnalyseError
from smdlens.hyper.records import HyperParameters
from smdlens.motion.all_pairs import measure_all_pairs
from smdlens.motion.cache import MeasurementCache
from smdlens.motion.device import Device, choose_device
from smdlens.motion.files import FilePool
from smdlens.motion.known import Known, Part
from smdlens.motion.leak import leak_sums, norm_values
from smdlens.motion.plan import Task, batches
from smdlens.motion.records import PAIR_SCHEMA, SNAPSHOT_SCHEMA, Motion, ReadCost
from smdlens.motion.rows import Columns, pair_rows, snapshot_rows
from smdlens.motion.select import Selected, select
from smdlens.motion.statistics import norm_statistics
from smdlens.motion.sums import TaskSums, TensorSums, quiet, sums_for
from smdlens.motion.walk import run_task
from smdlens.motion.workers import in_order
from smdlens.motion.workspace import Workspace
from smdlens.snapshots.records import Snapshot, SnapshotSeries
from smdlens.symmetry.records import ScaleGroups

Progress = Callable[[int, int], None]
_LOOSE_ROWS = 4096


def measure(
    series: SnapshotSeries,
    groups: ScaleGroups,
    hyper: HyperParameters,
    *,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
    cache: MeasurementCache | None = None,
    all_pairs: bool = False,
) -> Motion:
    """Measure what moved between neighbouring snapshots.

    Args:
        series: The run's snapshots.
        groups: The answer of the graph for every tensor: channel axes and normalisations.
        hyper: Adam's betas and epsilon, SGD's momentum and decay, the normalisation's epsilon.
        device: auto, cpu, cuda, cuda:N; mps runs on the CPU with a notice.
        workers: Threads that read and sum; None for one per available core. The numbers do not
            depend on it.
        progress: Called in this thread with bytes done and bytes in all.
        cache: Measurements of earlier analyses; new ones are added and saved.
        all_pairs: Also take the angle between any two of at most 64 snapshots.

    Returns:
        The two motion tables, running statistics that stand still, and the cost.

    Raises:
        NothingToAnalyseError: No tensor is left to measure.
        SnapshotTruncatedError: A file ends before its headers say.
        SnapshotChangedError: A file changed meanwhile.
        InputError: There is no such device.
    """
    started = time.perf_counter()
    target = choose_device(device)
    chosen = select(series, groups, hyper)
    if not chosen:
        raise NothingToAnalyseError(
            "no tensor left to measure",
            subject=series.path,
            expected="floating weights of two or more dimensions in every snapshot",
            found=f"{len(groups.tensors)} tensors, none of them such",
            remedy="Check --weights, --include and --exclude.",
        )
    stamps = {path: stamp for item in series.snapshots for path, stamp in item.stamps.items()}
    known = None if cache is None else Known(chosen, series, hyper, target, cache)
    parts = [Part(each, 0) for each in chosen] if known is None else list(known.missing())
    notices: set[str] = set()
    with FilePool(stamps=stamps) as pool:
        tables = _Tables(series, hyper, pool)
        for index, sums in _measured(parts, target, workers, pool, progress, notices):
            tables.add(parts[index], sums)
        statistics = norm_statistics(series, groups, pool, cache)
        angles = (
            measure_all_pairs(chosen, series, target, workers, pool, progress, cache)
            if all_pairs
            else None
        )
        pool.verify()
    snapshots, pairs = tables.snapshots.frame(), tables.pairs.frame()
    notes = [target.note, *sorted(notices)]
    if known is not None and cache is not None:
        snapshots, pairs = known.completed(snapshots, pairs)
        if known.share > 0:
            notes.append(f"{known.share:.0%} known from the cache")
        notes.append(cache.save())
    return Motion(
        snapshots=snapshots,
        pairs=pairs,
        statistics=statistics,
        cost=ReadCost(
            pool.bytes_read,
            time.perf_counter() - started,
            str(target.torch_device),
            ", ".join(note for note in notes if note),
        ),
        angles=angles,
    )


def _measured(
    parts: Sequence[Part],
    device: Device,
    workers: int | None,
    pool: FilePool,
    progress: Progress | None,
    notices: set[str],
) -> Iterator[tuple[int, TensorSums]]:
    """Sums of each part in order; at most a few tensors are in memory at once."""
    plans = [part.selected.plan for part in parts]
    total_bytes = sum(plan.nbytes for plan in plans)
    done_bytes = 0
    jobs = batches(plans, device.block_elements)
    current: tuple[int, TensorSums] | None = None
    for done, batch in in_order(jobs, _run_batch, device, workers, pool, notices):
        for task, part in zip(batch, done, strict=True):
            done_bytes += task.nbytes
            if current is not None and current[0] != task.tensors[0]:
                yield current
                current = None
            if task.plan.joined is not None:
                yield from _apart(task, part.sums)
                continue
            if current is None:
                plan = task.plan
                current = task.tensors[0], sums_for(plan.layout, len(plan.snapshots), plan.clock)
            with quiet():
                current[1].add(part.sums, part.channel, part.clock)
        if progress is not None:
            progress(done_bytes, total_bytes)
    if current is not None:
        yield current


def _apart(task: Task, sums: TensorSums) -> Iterator[tuple[int, TensorSums]]:
    """The sums of each tensor of a task that measured several."""
    assert task.plan.joined is not None
    starts = task.plan.joined.owners
    stops = *starts[1:], task.plan.joined.channels
    for index, tensor in enumerate(task.tensors):
        yield tensor, sums.of(index, slice(starts[index], stops[index]))


def _run_batch(batch: tuple[Task, ...], space: Workspace) -> list[TaskSums]:
    return [run_task(task, space) for task in batch]


class _Tables:
    """Collects the rows of one tensor after another; its per-channel sums end here."""

    def __init__(self, series: SnapshotSeries, hyper: HyperParameters, pool: FilePool) -> None:
        self._series = series
        self._steps = series.steps
        self._hyper = hyper
        self._pool = pool
        self.snapshots = _Table(SNAPSHOT_SCHEMA)
        self.pairs = _Table(PAIR_SCHEMA)

    def add(self, part: Part, sums: TensorSums) -> None:
        selected, first = part.selected, part.first
        window = slice(first, first + len(sums.w2))
        steps = self._steps[window]
        with quiet():
            leak = self._leak(selected, self._series.snapshots[window], sums.w2)
            self.snapshots.add(snapshot_rows(selected, sums, steps, first))
            self.pairs.add(pair_rows(selected, sums, steps, leak, first))

    def _leak(
        self, selected: Selected, snapshots: tuple[Snapshot, ...], w2: NDArray[np.float64]
    ) -> NDArray[np.float64] | None:
        norm = selected.symmetry.norm
        if norm is None or norm.running_var is None or len(w2) < 2:
            return None
        channels = w2.shape[1]
        ends = [norm_values(s, norm, channels, self._pool) for s in snapshots]
        epsilon = self._hyper.epsilon
        return np.array(
            [leak_sums(ends[i], ends[i + 1], w2[i], w2[i + 1], epsilon) for i in range(len(w2) - 1)]
        )


class _Table:
    """Rows that grow; Python's floats take several times the space of a frame's."""

    def __init__(self, schema: dict[str, pl.DataType]) -> None:
        self._schema = schema
        self._frames = [pl.DataFrame(schema=schema)]
        self._columns: Columns = {name: [] for name in schema}

    def add(self, columns: Columns) -> None:
        for name, values in columns.items():
            self._columns[name] += values
        if len(self._columns["tensor"]) >= _LOOSE_ROWS:
            self._pack()

    def frame(self) -> pl.DataFrame:
        self._pack()
        return pl.concat(self._frames)

    def _pack(self) -> None:
        self._frames.append(pl.DataFrame(self._columns, schema=self._schema))
        self._columns = {name: [] for name in self._schema}
