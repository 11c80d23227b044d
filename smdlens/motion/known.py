"""What of a run is known from the cache, what is left to measure, and both as one table again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from smdlens.hyper.records import HyperParameters
from smdlens.motion.cache import MeasurementCache
from smdlens.motion.device import Device
from smdlens.motion.records import PAIR_SCHEMA, SAMPLED_SCHEMA
from smdlens.motion.row_keys import RowKeys, row_keys
from smdlens.motion.select import Selected
from smdlens.snapshots.records import SnapshotSeries


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor through some of the run's snapshots, the first of them number `first`."""

    selected: Selected
    first: int


@dataclass(frozen=True, slots=True)
class _Table:
    """One of the two motion tables: how it is called in the cache, and what names a row."""

    kind: str
    schema: dict[str, pl.DataType]
    index: str
    places: tuple[str, ...]

    @property
    def values(self) -> list[str]:
        """The columns that are sums."""
        return [name for name in self.schema if name not in ("tensor", *self.places)]


_SNAPSHOTS = _Table("snapshot", SAMPLED_SCHEMA, "snapshot", ("snapshot", "step"))
_PAIRS = _Table(
    "pair",
    PAIR_SCHEMA,
    "snapshot_from",
    ("snapshot_from", "snapshot_to", "step_from", "step_to"),
)


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
        self._cache = cache
        keys = [
            row_keys(each, series.snapshots, hyper.epsilon, device, cache.fingerprint)
            for each in chosen
        ]
        names = [each.symmetry.name for each in chosen]
        steps = series.steps
        self._wanted = {
            _SNAPSHOTS.kind: _wanted_snapshots(names, keys, steps),
            _PAIRS.kind: _wanted_pairs(names, keys, steps),
        }
        self._found = {
            table.kind: self._wanted[table.kind].join(
                cache.find(table.kind, self._wanted[table.kind].get_column("key")).select(
                    "key", *table.values
                ),
                on="key",
                how="inner",
            )
            for table in (_SNAPSHOTS, _PAIRS)
        }

    @property
    def share(self) -> float:
        """Share of the rows that are known, 0 to 1."""
        wanted = sum(frame.height for frame in self._wanted.values())
        return sum(frame.height for frame in self._found.values()) / wanted

    def missing(self) -> Iterator[Part]:
        """What is left to measure: snapshots that are new, and both ends of pairs that are."""
        places: dict[str, set[int]] = {}
        for table in (_SNAPSHOTS, _PAIRS):
            left = self._wanted[table.kind].join(
                self._found[table.kind], on=["tensor", table.index], how="anti"
            )
            for name, index in left.select("tensor", table.index).rows():
                at = places.setdefault(name, set())
                at |= {index, index + 1} if table is _PAIRS else {index}
        for selected in self._chosen:
            for first, last in _runs(sorted(places.get(selected.symmetry.name, ()))):
                plan = selected.plan.window(first, last)
                yield Part(dataclasses.replace(selected, plan=plan), first)

    def completed(
        self, snapshots: pl.DataFrame, pairs: pl.DataFrame
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Both tables, whole and in order; what was measured goes into the cache.

        Args:
            snapshots: Measured rows with `SAMPLED_SCHEMA`.
            pairs: Measured rows with `PAIR_SCHEMA`.
        """
        return self._complete(_SNAPSHOTS, snapshots), self._complete(_PAIRS, pairs)

    def _complete(self, table: _Table, measured: pl.DataFrame) -> pl.DataFrame:
        found, names = self._found[table.kind], ["tensor", table.index]
        wanted = self._wanted[table.kind]
        fresh = wanted.join(
            measured.select("tensor", table.index, *table.values), on=names, how="inner"
        ).join(found, on=names, how="anti")
        self._cache.add(table.kind, fresh.drop("place"))
        columns = ["place", *table.schema]
        whole = pl.concat([found.select(columns), fresh.select(columns)]).sort("place")
        return whole.select(list(table.schema))


def _wanted_snapshots(
    names: Sequence[str], keys: Sequence[RowKeys], steps: tuple[int, ...]
) -> pl.DataFrame:
    count = len(steps)
    return _wanted(
        {
            "tensor": [name for name in names for _ in range(count)],
            "snapshot": list(range(count)) * len(names),
            "step": list(steps) * len(names),
            "key": [key for each in keys for key in each.snapshots],
        }
    )


def _wanted_pairs(
    names: Sequence[str], keys: Sequence[RowKeys], steps: tuple[int, ...]
) -> pl.DataFrame:
    count = len(steps) - 1
    return _wanted(
        {
            "tensor": [name for name in names for _ in range(count)],
            "snapshot_from": list(range(count)) * len(names),
            "snapshot_to": list(range(1, count + 1)) * len(names),
            "step_from": list(steps[:-1]) * len(names),
            "step_to": list(steps[1:]) * len(names),
            "key": [key for each in keys for key in each.pairs],
        }
    )


def _wanted(columns: dict[str, list[str] | list[int]]) -> pl.DataFrame:
    schema = {**SAMPLED_SCHEMA, **PAIR_SCHEMA, "key": pl.String()}
    frame = pl.DataFrame(columns, schema={name: schema[name] for name in columns})
    return frame.with_row_index("place")


def _runs(indices: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Contiguous runs of ascending numbers, both ends included."""
    start = 0
    for k in range(1, len(indices) + 1):
        if k == len(indices) or indices[k] != indices[k - 1] + 1:
            yield indices[start], indices[k - 1]
            start = k
