"""Running variances that never change: batch norm run in evaluation mode, or never trained."""

from __future__ import annotations

import hashlib

import torch

from smdlens.motion.cache import MeasurementCache
from smdlens.motion.files import FilePool
from smdlens.motion.row_keys import content_key
from smdlens.motion.tensors import load
from smdlens.snapshots.records import SnapshotSeries, TensorRef
from smdlens.symmetry.records import ScaleGroups


def frozen_statistics(
    series: SnapshotSeries,
    groups: ScaleGroups,
    pool: FilePool,
    cache: MeasurementCache | None = None,
) -> frozenset[str]:
    """Names of the running variances whose bytes are the same in all of two or more snapshots."""
    names = {
        tensor.norm.running_var
        for tensor in groups.tensors.values()
        if tensor.norm is not None and tensor.norm.running_var is not None
    }
    if len(series.snapshots) < 2:
        return frozenset()
    return frozenset(name for name in names if _same_bytes(series, name, pool, cache))


def _same_bytes(
    series: SnapshotSeries, name: str, pool: FilePool, cache: MeasurementCache | None
) -> bool:
    first: str | None = None
    for snapshot in series.snapshots:
        ref = snapshot.tensors.get(name)
        if ref is None:
            return False
        seen = _digest(ref, pool, cache)
        first = first or seen
        if seen != first:
            return False
    return True


def _digest(ref: TensorRef, pool: FilePool, cache: MeasurementCache | None) -> str:
    key = content_key(ref, cache.fingerprint) if cache is not None else ""
    known = cache.digest(key) if cache is not None else None
    if known is not None:
        return known
    content = load(ref, pool).reshape(-1).view(torch.uint8).numpy().tobytes()
    digest = f"{ref.dtype}:{hashlib.blake2b(content, digest_size=16).hexdigest()}"
    if cache is not None:
        cache.add_digest(key, digest)
    return digest
