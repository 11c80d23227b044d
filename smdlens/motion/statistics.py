"""Running statistics that stop changing: batch norm run in evaluation mode, or never trained."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache as remembered

import torch

from smdlens.motion.cache import MeasurementCache
from smdlens.motion.files import FilePool
from smdlens.motion.records import NormStatistics
from smdlens.motion.row_keys import content_key
from smdlens.motion.tensors import load
from smdlens.snapshots.records import SnapshotSeries, TensorRef
from smdlens.symmetry.records import ScaleGroups

# What frameworks call the mean beside a running variance.
_MEANS = {
    "running_var": "running_mean",
    "moving_var": "moving_mean",
    "moving_variance": "moving_mean",
}
_COUNTER = "num_batches_tracked"


def norm_statistics(
    series: SnapshotSeries,
    groups: ScaleGroups,
    pool: FilePool,
    cache: MeasurementCache | None = None,
) -> dict[str, NormStatistics]:
    """By running variance, the batch norms whose statistics stand still at an end of the run.

    Mean and variance must be the same bit by bit in two or more snapshots: one batch in training
    mode moves them. Read from both ends only as far as they stand still.
    """
    names = {
        tensor.norm.running_var: None
        for tensor in groups.tensors.values()
        if tensor.norm is not None and tensor.norm.running_var is not None
    }
    last = len(series.snapshots) - 1
    found: dict[str, NormStatistics] = {}
    for name in names:
        are_same = _comparison(series, name, pool, cache)
        first = last
        while first > 0 and are_same(first - 1, last):
            first -= 1
        until = last if first == 0 else 0
        while until < first and are_same(until + 1, 0):
            until += 1
        if first < last or until > 0:
            found[name] = NormStatistics(first, until, _counts(series, name, pool))
    return found


def _comparison(
    series: SnapshotSeries, name: str, pool: FilePool, cache: MeasurementCache | None
) -> Callable[[int, int], bool]:
    """Whether mean and variance of one batch norm are the same in two snapshots."""
    head, leaf = _split(name)
    mean = head + _MEANS[leaf] if leaf in _MEANS else None

    @remembered
    def digest(tensor: str, index: int) -> str | None:
        ref = series.snapshots[index].tensors.get(tensor)
        return None if ref is None else _digest(ref, pool, cache)

    def are_same(one: int, other: int) -> bool:
        variance = digest(name, one)
        if variance is None or variance != digest(name, other):
            return False
        return mean is None or digest(mean, one) == digest(mean, other)

    return are_same


def _split(name: str) -> tuple[str, str]:
    """Path with its last separator, and the leaf."""
    at = max(name.rfind(mark) for mark in "./") + 1
    return name[:at], name[at:]


def _counts(series: SnapshotSeries, name: str, pool: FilePool) -> tuple[int | None, ...]:
    refs = [s.tensors.get(_split(name)[0] + _COUNTER) for s in series.snapshots]
    return tuple(
        None if ref is None or ref.numel != 1 or ref.dtype != "int64" else int(load(ref, pool))
        for ref in refs
    )


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
