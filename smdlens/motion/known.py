"""What of a run is known from the cache, what is left to measure, and both as one table again.

Rows are counted tensor by tensor in file order: row `place` of a table with `count` rows for each
tensor is row place % count of tensor place // count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from smdlens.hyper.records import HyperParameters
from smdlens.motion.cache import MeasurementCache
from smdlens.motion.device import Device
from smdlens.motion.records import PAIR_SCHEMA, SAMPLED_SCHEMA
from smdlens.motion.row_keys import row_keys
from smdlens.motion.select import Part, Selected
from smdlens.motion.tables import pair_head, snapshot_head
from smdlens.snapshots.records import SnapshotSeries

Flags = NDArray[np.bool_]


class Known:
    """The rows of a run that need not be measured.

    Args:
        chosen: Every tensor to measure, in file order.
        series: The run.
        hyper: Its hyper-parameters.
        device: Where sums are made.
        cache: Measurements of earlier analyses.
    """

    def __init__(
        self,
        chosen: Sequence[Selected],
        series: SnapshotSeries,
        hyper: HyperParameters,
        device: Device,
        cache: MeasurementCache,
    ) -> None:
        self._chosen = chosen
        self._steps = np.array(series.steps, dtype=np.int64)
        self._cache = cache
        at: list[str] = []
        between: list[str] = []
        for each in chosen:
            own = row_keys(each, series.snapshots, hyper.epsilon, device, cache.fingerprint)
            at += own.snapshots
            between += own.pairs
        self._keys = {"snapshot": _series(at), "pair": _series(between)}
        self._found = {kind: cache.find(kind, keys) for kind, keys in self._keys.items()}
        # Snapshots that are new, and both ends of pairs that are: [tensors, snapshots].
        wanted, pairs = (~self._flags(kind) for kind in ("snapshot", "pair"))
        wanted[:, :-1] |= pairs
        wanted[:, 1:] |= pairs
        self._missing = wanted

    @property
    def share(self) -> float:
        """Share of the rows that are known, 0 to 1."""
        wanted = sum(len(keys) for keys in self._keys.values())
        return sum(frame.height for frame in self._found.values()) / wanted

    def missing(self) -> Iterator[Part]:
        """What is left to measure, in file order."""
        for selected, wanted in zip(self._chosen, self._missing, strict=True):
            for first, last in _runs(np.flatnonzero(wanted).tolist()):
                yield selected.part(first, last)

    def completed(
        self, snapshots: pl.DataFrame, pairs: pl.DataFrame
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Both tables, whole and in order; what was measured goes into the cache.

        Args:
            snapshots: Rows with `SAMPLED_SCHEMA` of the `missing` parts, in their order.
            pairs: The same with `PAIR_SCHEMA`.
        """
        at = self._missing
        return (
            self._complete("snapshot", snapshots, at),
            self._complete("pair", pairs, at[:, :-1] & at[:, 1:]),
        )

    def _complete(self, kind: str, measured: pl.DataFrame, at: Flags) -> pl.DataFrame:
        place = np.flatnonzero(at).astype(np.uint32)
        fresh = measured.with_columns(self._keys[kind].gather(place), place=place)
        found = self._named(kind)
        if not found.is_empty():
            # Some were measured only for the sake of a neighbour.
            fresh = fresh.filter(~self._flags(kind).ravel()[place])
        self._cache.add(kind, fresh)
        whole = pl.concat([found, fresh.select(found.columns)])
        # Mostly all or nothing is known, and in order as it is.
        ordered = whole if whole["place"].is_sorted() else whole.sort("place")
        return ordered.drop("place")

    def _named(self, kind: str) -> pl.DataFrame:
        """The known rows with the tensors and steps of this analysis."""
        found = self._found[kind]
        schema, head_of = (
            (SAMPLED_SCHEMA, snapshot_head) if kind == "snapshot" else (PAIR_SCHEMA, pair_head)
        )
        tensor, at = np.divmod(found["place"].to_numpy(), self._count(kind))
        names = pl.Series([each.symmetry.name for each in self._chosen]).gather(tensor)
        head = pl.DataFrame(head_of(names, at.astype(np.int64), self._steps))
        return found.with_columns(head).select("place", *schema)

    def _flags(self, kind: str) -> Flags:
        """Which rows are known, [tensors, rows of one]."""
        flags = np.zeros(len(self._keys[kind]), dtype=np.bool_)
        flags[self._found[kind]["place"].to_numpy()] = True
        return flags.reshape(len(self._chosen), self._count(kind))

    def _count(self, kind: str) -> int:
        """Rows of one tensor."""
        return len(self._steps) - (kind == "pair")


def _series(keys: list[str]) -> pl.Series:
    return pl.Series("key", keys, dtype=pl.String)


def _runs(indices: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Contiguous runs of ascending numbers, both ends included."""
    start = 0
    for k in range(1, len(indices) + 1):
        if k == len(indices) or indices[k] != indices[k - 1] + 1:
            yield indices[start], indices[k - 1]
            start = k
