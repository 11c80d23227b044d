"""Running variances that never change: batch norm run in evaluation mode, or never trained."""

from __future__ import annotations

import torch

from smdlens.motion.files import FilePool
from smdlens.motion.tensors import load
from smdlens.snapshots.records import SnapshotSeries
from smdlens.symmetry.records import ScaleGroups


def frozen_statistics(
    series: SnapshotSeries, groups: ScaleGroups, pool: FilePool
) -> frozenset[str]:
    """Names of the running variances whose bytes are the same in all of two or more snapshots."""
    names = {
        tensor.norm.running_var
        for tensor in groups.tensors.values()
        if tensor.norm is not None and tensor.norm.running_var is not None
    }
    if len(series.snapshots) < 2:
        return frozenset()
    return frozenset(name for name in names if _same_bytes(series, name, pool))


def _same_bytes(series: SnapshotSeries, name: str, pool: FilePool) -> bool:
    first: tuple[str, bytes] | None = None
    for snapshot in series.snapshots:
        ref = snapshot.tensors.get(name)
        if ref is None:
            return False
        seen = ref.dtype, load(ref, pool).reshape(-1).view(torch.uint8).numpy().tobytes()
        first = first or seen
        if seen != first:
            return False
    return True
