"""Batch norms whose running statistics never move were frozen: constants, not norms."""

from __future__ import annotations

from smdlens.containers.files import reading
from smdlens.snapshots.extent_bytes import read_extent
from smdlens.snapshots.records import Snapshot, SnapshotSeries, TensorRef


def frozen_statistics(series: SnapshotSeries) -> frozenset[str]:
    """Names of running variances that are bit-identical in the first and the last snapshot.

    Needs two snapshots. A training run moves them with every forward pass; one whose momentum is 0
    still counts its batches.
    """
    if len(series.snapshots) < 2:
        return frozenset()
    first, last = series.snapshots[0], series.snapshots[-1]
    return frozenset(
        name
        for name, ref in last.tensors.items()
        if name.rsplit(".", 1)[-1] == "running_var"
        and _same(first, name, ref)
        and _same(first, _beside(name, "running_mean"), _ref(last, name, "running_mean"))
        and not _counted(first, last, name)
    )


def _beside(variance: str, leaf: str) -> str:
    return variance[: -len("running_var")] + leaf


def _ref(snapshot: Snapshot, variance: str, leaf: str) -> TensorRef | None:
    return snapshot.tensors.get(_beside(variance, leaf))


def _counted(first: Snapshot, last: Snapshot, variance: str) -> bool:
    counters = [_ref(snapshot, variance, "num_batches_tracked") for snapshot in (first, last)]
    start, end = (None if ref is None else _bytes(ref) for ref in counters)
    return start is not None and end is not None and start != end


def _same(snapshot: Snapshot, name: str, ref: TensorRef | None) -> bool:
    other = snapshot.tensors.get(name)
    if ref is None or other is None or ref.dtype != other.dtype or ref.shape != other.shape:
        return False
    return _bytes(ref) == _bytes(other)


def _bytes(ref: TensorRef) -> bytes:
    pieces: list[bytes] = []
    for extent in ref.extents:
        with reading(extent.path) as file:
            pieces.append(read_extent(file, extent))
    return b"".join(pieces)
