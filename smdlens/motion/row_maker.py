"""The rows of tensors from their sums: what a worker does last, and hands back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smdlens.hyper.records import HyperParameters
from smdlens.motion.files import FilePool
from smdlens.motion.lag_sample import slots_of
from smdlens.motion.leak import LEAK_COLUMNS, leak_sums, norm_values
from smdlens.motion.records import PAIR_VALUES, SNAPSHOT_VALUES
from smdlens.motion.rows import pair_values, snapshot_values
from smdlens.motion.select import Part
from smdlens.motion.sums import TensorSums, quiet
from smdlens.snapshots.records import SnapshotSeries

Float = NDArray[np.float64]
# Rows made at once: what their channels are copied to meanwhile is many times as much.
_ROWS = 1 << 14


@dataclass(slots=True)
class Rows:
    """Rows of some tensors, one after another; what a worker hands back, so it must pickle.

    Attributes:
        tensors: Their names.
        first: Index of the first snapshot of each.
        counts: How many snapshots each has.
        snapshots: [sum of counts, columns], `SNAPSHOT_VALUES`.
        samples: [count, kept weights] of each, None where none are kept.
        pairs: [sum of counts - 1, columns], `PAIR_VALUES`.
    """

    tensors: list[str]
    first: list[int]
    counts: list[int]
    snapshots: Float
    samples: list[Float | None]
    pairs: Float

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """One after another."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            [name for part in parts for name in part.tensors],
            [first for part in parts for first in part.first],
            [count for part in parts for count in part.counts],
            np.concatenate([part.snapshots for part in parts]),
            [sample for part in parts for sample in part.samples],
            np.concatenate([part.pairs for part in parts]),
        )


class RowMaker:
    """Turns the sums of tensors into their rows; per-channel sums end here.

    Args:
        series: The run.
        hyper: Its hyper-parameters, for the normalisation's epsilon.
        pool: Open files, for the normalisation's variance.
    """

    def __init__(self, series: SnapshotSeries, hyper: HyperParameters, pool: FilePool) -> None:
        self._snapshots = series.snapshots
        self._epsilon = hyper.epsilon
        self._pool = pool

    def rows(self, parts: Sequence[Part], sums: TensorSums) -> Rows:
        """The rows of one tensor, or of several that were measured as one block.

        Args:
            parts: The tensors.
            sums: Their sums, one tensor after another.
        """
        count = len(sums.w2)
        snapshots = np.empty((len(parts), count, len(SNAPSHOT_VALUES)))
        pairs = np.empty((len(parts), count - 1, len(PAIR_VALUES)))
        for tensors, channels in _alike(parts, max(_ROWS // count, 1)):
            own = sums.of(tensors, channels)
            some = [parts[tensor] for tensor in tensors]
            alike = [part.selected for part in some]
            with quiet():
                leak = self._leak(some, own.w2)
                snapshots[tensors] = snapshot_values(alike, own).swapaxes(0, 1)
                pairs[tensors] = pair_values(alike, own, leak).swapaxes(0, 1)
        return Rows(
            [part.selected.symmetry.name for part in parts],
            [part.first for part in parts],
            [count] * len(parts),
            snapshots.reshape(-1, len(SNAPSHOT_VALUES)),
            _samples(parts, sums.sample),
            pairs.reshape(-1, len(PAIR_VALUES)),
        )

    def _leak(self, parts: Sequence[Part], w2: Float) -> Float:
        """`LEAK_COLUMNS` of each tensor, [P, M, 6]; NaN where no variance is stored."""
        count, tensors, channels = w2.shape
        out = np.full((count - 1, tensors, len(LEAK_COLUMNS)), np.nan)
        for tensor, part in enumerate(parts):
            norm = part.selected.symmetry.norm
            if norm is None or norm.running_var is None or count < 2:
                continue
            window = self._snapshots[part.first : part.first + count]
            ends = [norm_values(s, norm, channels, self._pool) for s in window]
            for k in range(count - 1):
                here, there = w2[k, tensor], w2[k + 1, tensor]
                out[k, tensor] = leak_sums(ends[k], ends[k + 1], here, there, self._epsilon)
        return out


def _alike(parts: Sequence[Part], most: int) -> Iterator[tuple[list[int], NDArray[np.intp]]]:
    """Up to `most` tensors of as many channels and groups, and where these lie: [M, channels]."""
    counts = np.array([part.selected.plan.layout.count for part in parts])
    starts = np.cumsum(counts) - counts
    alike: dict[tuple[int, int], list[int]] = {}
    for tensor, part in enumerate(parts):
        kind = part.selected.plan.layout.count, part.selected.symmetry.groups
        alike.setdefault(kind, []).append(tensor)
    for (count, _), tensors in alike.items():
        for first in range(0, len(tensors), most):
            some = tensors[first : first + most]
            yield some, starts[some][:, None] + np.arange(count)


def _samples(parts: Sequence[Part], sample: Float) -> list[Float | None]:
    """The kept weights of each tensor."""
    if len(parts) == 1:
        return [sample.copy() if parts[0].selected.sampled else None]
    stops = np.cumsum([slots_of(part.selected.plan.numel) for part in parts]).tolist()
    ends = zip(parts, [0, *stops], stops, strict=False)
    return [sample[:, a:b].copy() if part.selected.sampled else None for part, a, b in ends]
