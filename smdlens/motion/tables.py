"""The two motion tables as they grow, and the rows of one tensor from its sums."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import polars as pl
from numpy.typing import NDArray

from smdlens.hyper.records import HyperParameters
from smdlens.motion.files import FilePool
from smdlens.motion.leak import leak_sums, norm_values
from smdlens.motion.records import PAIR_SCHEMA, PAIR_VALUES, SAMPLED_SCHEMA, SNAPSHOT_VALUES
from smdlens.motion.rows import pair_values, snapshot_values
from smdlens.motion.select import Part, Selected
from smdlens.motion.sums import TensorSums, quiet
from smdlens.snapshots.records import Snapshot, SnapshotSeries

Float = NDArray[np.float64]
Places = NDArray[np.int64]
Head = dict[str, pl.Series | Places]

# Rows are kept as they come until there are enough for a frame of their own.
_LOOSE_TENSORS = 1024


@dataclass(slots=True)
class Rows:
    """Rows of some tensors, one after another; what a worker hands back, so it must pickle.

    Attributes:
        tensors: Their names.
        first: Index of the first snapshot of each.
        snapshots: [S, columns] of each, `SNAPSHOT_VALUES`.
        samples: [S, kept weights] of each, None where none are kept.
        pairs: [S - 1, columns] of each, `PAIR_VALUES`.
    """

    tensors: list[str] = field(default_factory=list)
    first: list[int] = field(default_factory=list)
    snapshots: list[Float] = field(default_factory=list)
    samples: list[Float | None] = field(default_factory=list)
    pairs: list[Float] = field(default_factory=list)

    def extend(self, other: Rows) -> None:
        """Append another's rows."""
        self.tensors += other.tensors
        self.first += other.first
        self.snapshots += other.snapshots
        self.samples += other.samples
        self.pairs += other.pairs


class RowMaker:
    """Turns the sums of one tensor into its rows; per-channel sums end here.

    Args:
        series: The run.
        hyper: Its hyper-parameters, for the normalisation's epsilon.
        pool: Open files, for the normalisation's variance.
    """

    def __init__(self, series: SnapshotSeries, hyper: HyperParameters, pool: FilePool) -> None:
        self._snapshots = series.snapshots
        self._epsilon = hyper.epsilon
        self._pool = pool

    def rows(self, part: Part, sums: TensorSums) -> Rows:
        """The rows of one tensor through the snapshots of a part."""
        selected, first = part.selected, part.first
        window = self._snapshots[first : first + len(sums.w2)]
        with quiet():
            leak = self._leak(selected, window, sums.w2)
            snapshots, pairs = snapshot_values(selected, sums), pair_values(selected, sums, leak)
        sample = sums.sample.copy() if selected.sampled else None
        return Rows([selected.symmetry.name], [first], [snapshots], [sample], [pairs])

    def _leak(self, selected: Selected, snapshots: tuple[Snapshot, ...], w2: Float) -> Float | None:
        norm = selected.symmetry.norm
        if norm is None or norm.running_var is None or len(w2) < 2:
            return None
        channels = w2.shape[1]
        ends = [norm_values(s, norm, channels, self._pool) for s in snapshots]
        return np.array(
            [
                leak_sums(ends[i], ends[i + 1], w2[i], w2[i + 1], self._epsilon)
                for i in range(len(w2) - 1)
            ]
        )


class Tables:
    """Collects rows and turns them into frames.

    Args:
        steps: Steps of the run's snapshots.
    """

    def __init__(self, steps: tuple[int, ...]) -> None:
        self._steps = np.array(steps, dtype=np.int64)
        self._snapshots = [pl.DataFrame(schema=SAMPLED_SCHEMA)]
        self._pairs = [pl.DataFrame(schema=PAIR_SCHEMA)]
        self._loose = Rows()

    def add(self, rows: Rows) -> None:
        """Append the rows of the next tensors."""
        self._loose.extend(rows)
        if len(self._loose.tensors) >= _LOOSE_TENSORS:
            self._pack()

    def frames(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Frames with `SAMPLED_SCHEMA` and `PAIR_SCHEMA`."""
        if self._loose.tensors:
            self._pack()
        return pl.concat(self._snapshots), pl.concat(self._pairs)

    def _pack(self) -> None:
        rows, steps = self._loose, self._steps
        head = snapshot_head(*_places(rows, rows.snapshots), steps)
        head["sample"] = _lists(rows.samples, rows.snapshots)
        frame = _frame(head, SNAPSHOT_VALUES, rows.snapshots, SAMPLED_SCHEMA)
        self._snapshots.append(frame.select(list(SAMPLED_SCHEMA)))
        head = pair_head(*_places(rows, rows.pairs), steps)
        self._pairs.append(_frame(head, PAIR_VALUES, rows.pairs, PAIR_SCHEMA))
        self._loose = Rows()


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


def _places(rows: Rows, values: list[Float]) -> tuple[pl.Series, Places]:
    """The tensor and the snapshot that each row belongs to."""
    counts = [len(each) for each in values]
    names = pl.Series(rows.tensors).gather(np.repeat(np.arange(len(counts)), counts))
    at = [np.arange(first, first + n) for first, n in zip(rows.first, counts, strict=True)]
    return names, np.concatenate(at)


def _lists(samples: list[Float | None], values: list[Float]) -> pl.Series:
    """The kept weights as one list for each row; null where none are kept."""
    kind = SAMPLED_SCHEMA["sample"]
    pieces: list[pl.Series] = []
    for width, run in groupby(zip(samples, values, strict=True), _width):
        if width is None:
            count = sum(len(rows) for _, rows in run)
            pieces.append(pl.Series([None], dtype=kind).new_from_index(0, count))
        else:
            kept = np.concatenate([kept for kept, _ in run if kept is not None])
            pieces.append(pl.Series(kept).cast(kind))
    return pl.concat(pieces, rechunk=True)


def _width(rows: tuple[Float | None, Float]) -> int | None:
    kept, _ = rows
    return None if kept is None else kept.shape[1]


def _frame(
    head: Head,
    names: tuple[str, ...],
    values: list[Float],
    schema: dict[str, pl.DataType],
) -> pl.DataFrame:
    table = np.concatenate(values)
    table[~np.isfinite(table)] = np.nan
    columns = {name: pl.Series(table[:, k], nan_to_null=True) for k, name in enumerate(names)}
    return pl.DataFrame({**head, **columns}).cast(pl.Schema(schema))
