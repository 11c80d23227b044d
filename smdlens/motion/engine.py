"""Measure a run: read every needed byte once, sum, and write the two tables tensor by tensor."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from smdlens.errors import NothingToAnalyseError
from smdlens.hyper.records import HyperParameters
from smdlens.motion.all_pairs import measure_all_pairs
from smdlens.motion.batches import batches
from smdlens.motion.cache import MeasurementCache
from smdlens.motion.device import Device, choose_device
from smdlens.motion.files import FilePool
from smdlens.motion.known import Known
from smdlens.motion.lag_sample import lag_angles
from smdlens.motion.plan import Task
from smdlens.motion.records import Motion, ReadCost
from smdlens.motion.row_maker import RowMaker, Rows
from smdlens.motion.select import Part, select
from smdlens.motion.statistics import norm_statistics
from smdlens.motion.sums import TaskSums, TensorSums, quiet, sums_for
from smdlens.motion.tables import Tables
from smdlens.motion.walk import run_task
from smdlens.motion.workers import available_cores, in_order, worth_processes
from smdlens.motion.workspace import Workspace
from smdlens.snapshots.records import SnapshotSeries
from smdlens.symmetry.records import ScaleGroups

Progress = Callable[[int, int], None]


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
        workers: Processes that read and sum (threads where they cannot be forked, or would be of
            no use); None for one per available core. The numbers do not depend on it.
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
        tables, maker = Tables(series.steps), RowMaker(series, hyper, pool)
        for rows in _measured(parts, maker, target, workers, pool, progress, notices):
            tables.add(rows)
        statistics = norm_statistics(series, groups, pool, cache)
        angles = (
            measure_all_pairs(chosen, series, target, workers, pool, progress, cache)
            if all_pairs
            else None
        )
        pool.verify()
    snapshots, pairs = tables.frames()
    notes = [target.note, *sorted(notices)]
    if known is not None and cache is not None:
        snapshots, pairs = known.completed(snapshots, pairs)
        if known.share > 0:
            notes.append(f"{known.share:.0%} known from the cache")
        notes.append(cache.save())
    return Motion(
        snapshots=snapshots.drop("sample"),
        pairs=pairs,
        statistics=statistics,
        cost=ReadCost(
            pool.bytes_read,
            time.perf_counter() - started,
            str(target.torch_device),
            ", ".join(note for note in notes if note),
            workers or available_cores(),
            pool.read_seconds,
        ),
        angles=angles,
        lag_angles=lag_angles(snapshots, pairs),
    )


def _measured(
    parts: Sequence[Part],
    maker: RowMaker,
    device: Device,
    workers: int | None,
    pool: FilePool,
    progress: Progress | None,
    notices: set[str],
) -> Iterator[Rows]:
    """Rows of each part in order; the sums of at most one tensor are in memory at once."""
    plans = [part.selected.plan for part in parts]
    total_bytes = sum(plan.nbytes for plan in plans)
    done_bytes = 0
    current: tuple[int, TensorSums] | None = None
    results = in_order(
        partial(batches, plans, device.block_elements),
        _Work(parts, maker),
        device,
        workers,
        pool,
        notices,
        processes=worth_processes(plans, pool),
    )
    for done, batch in results:
        done_bytes += sum(task.nbytes for task in batch)
        for piece in done:
            index = piece.tensor if isinstance(piece, _Piece) else None
            if current is not None and current[0] != index:
                yield maker.rows([parts[current[0]]], current[1])
                current = None
            if isinstance(piece, Rows):
                yield piece
                continue
            if current is None:
                plan = plans[piece.tensor]
                slots = piece.part.sums.sample.shape[1]
                empty = sums_for(plan.layout, len(plan.snapshots), plan.clock, slots)
                current = piece.tensor, empty
            with quiet():
                current[1].add(piece.part.sums, piece.part.channel, piece.part.clock)
        if progress is not None:
            progress(done_bytes, total_bytes)
    if current is not None:
        yield maker.rows([parts[current[0]]], current[1])


@dataclass(frozen=True, slots=True)
class _Piece:
    """Sums over some of a tensor's elements."""

    tensor: int
    part: TaskSums


@dataclass(frozen=True, slots=True)
class _Work:
    """What a worker does with a batch: rows of every tensor that is whole, else sums to merge."""

    parts: Sequence[Part]
    maker: RowMaker

    def __call__(self, batch: tuple[Task, ...], space: Workspace) -> list[Rows | _Piece]:
        done: list[Rows | _Piece] = []
        for task in batch:
            part = run_task(task, space)
            if task.is_whole:
                done.append(self.maker.rows([self.parts[k] for k in task.tensors], part.sums))
            else:
                done.append(_Piece(task.tensors[0], part))
        return done
