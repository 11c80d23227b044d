"""The two motion tables as they grow."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import polars as pl
from numpy.typing import NDArray

from smdlens.motion.columns import Columns
from smdlens.motion.records import PAIR_SCHEMA, PAIR_VALUES, SAMPLED_SCHEMA, SNAPSHOT_VALUES
from smdlens.motion.row_maker import Rows

Float = NDArray[np.float64]
Places = NDArray[np.int64]
Head = dict[str, pl.Series | Places]

# Rows are kept as they come until there are enough to cut them into columns.
_LOOSE_ROWS = 1 << 13


class Tables:
    """Collects rows and turns them into frames.

    Args:
        steps: Steps of the run's snapshots.
    """

    def __init__(self, steps: tuple[int, ...]) -> None:
        self._steps = np.array(steps, dtype=np.int64)
        self._tensors: list[str] = []
        self._first: list[int] = []
        self._counts: list[int] = []
        self._samples = [pl.Series("sample", [], dtype=SAMPLED_SCHEMA["sample"])]
        self._snapshots = Columns(SNAPSHOT_VALUES)
        self._pairs = Columns(PAIR_VALUES)
        self._loose: list[Rows] = []
        self._loose_rows = 0

    def add(self, rows: Rows) -> None:
        """Append the rows of the next tensors."""
        self._tensors += rows.tensors
        self._first += rows.first
        self._counts += rows.counts
        self._loose.append(rows)
        self._loose_rows += len(rows.snapshots)
        if self._loose_rows >= _LOOSE_ROWS:
            self._pack()

    def frames(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Frames with `SAMPLED_SCHEMA` and `PAIR_SCHEMA`; nothing is left here."""
        if self._loose:
            self._pack()
        head = snapshot_head(*self._places(0), self._steps)
        head["sample"] = pl.concat(self._samples, rechunk=True)
        pair = pair_head(*self._places(1), self._steps)
        return (
            _frame(head, self._snapshots.taken(), SAMPLED_SCHEMA),
            _frame(pair, self._pairs.taken(), PAIR_SCHEMA),
        )

    def _pack(self) -> None:
        rows = Rows.joined(self._loose)
        self._samples.append(_lists(rows.samples, rows.counts))
        self._snapshots.add(rows.snapshots)
        self._pairs.add(rows.pairs)
        self._loose = []
        self._loose_rows = 0

    def _places(self, fewer: int) -> tuple[pl.Series, Places]:
        """The tensor and the snapshot that each row belongs to, `fewer` than snapshots."""
        counts = np.array(self._counts, dtype=np.int64) - fewer
        tensors = np.repeat(np.arange(len(counts)), counts)
        within = np.arange(len(tensors)) - np.repeat(np.cumsum(counts) - counts, counts)
        names = pl.Series(self._tensors, dtype=pl.String).gather(tensors)
        return names, np.repeat(np.array(self._first, dtype=np.int64), counts) + within


def snapshot_head(names: pl.Series, at: Places, steps: Places) -> Head:
    """What names a row of the table of snapshots.

    Args:
        names: The tensor of each row.
        at: Its snapshot.
        steps: Steps of the run's snapshots.
    """
    return {"tensor": names, "snapshot": at, "step": steps[at]}


def pair_head(names: pl.Series, at: Places, steps: Places) -> Head:
    """What names a row of the table of pairs; `at` is where each starts, else as above."""
    ends = {"snapshot_from": at, "snapshot_to": at + 1}
    return {"tensor": names, **ends, "step_from": steps[at], "step_to": steps[at + 1]}


def _lists(samples: list[Float | None], counts: list[int]) -> pl.Series:
    """The kept weights as one list for each row; null where none are kept."""
    kind = SAMPLED_SCHEMA["sample"]
    pieces: list[pl.Series] = []
    for width, run in groupby(zip(samples, counts, strict=True), _width):
        if width is None:
            count = sum(count for _, count in run)
            pieces.append(pl.Series([None], dtype=kind).new_from_index(0, count))
        else:
            kept = np.concatenate([kept for kept, _ in run if kept is not None])
            pieces.append(pl.Series(kept).cast(kind))
    return pl.concat(pieces, rechunk=True)


def _width(each: tuple[Float | None, int]) -> int | None:
    kept, _ = each
    return None if kept is None else kept.shape[1]


def _frame(
    head: Head, values: dict[str, pl.Series], schema: dict[str, pl.DataType]
) -> pl.DataFrame:
    return pl.DataFrame({**head, **values}).select(list(schema)).cast(pl.Schema(schema))
