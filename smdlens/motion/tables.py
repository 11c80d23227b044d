"""The two motion tables as they grow, and the rows of one tensor from its sums."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from smdlens.hyper.records import HyperParameters
from smdlens.motion.files import FilePool
from smdlens.motion.known import Part
from smdlens.motion.leak import leak_sums, norm_values
from smdlens.motion.records import PAIR_SCHEMA, SNAPSHOT_SCHEMA
from smdlens.motion.rows import Columns, pair_rows, snapshot_rows
from smdlens.motion.select import Selected
from smdlens.motion.sums import TensorSums, quiet
from smdlens.snapshots.records import Snapshot, SnapshotSeries

_LOOSE_ROWS = 4096


def _empty(schema: dict[str, pl.DataType]) -> Columns:
    return {name: [] for name in schema}


@dataclass(slots=True)
class Rows:
    """Rows of some tensors, as columns; what a worker hands back, so it must pickle."""

    snapshots: Columns = field(default_factory=lambda: _empty(SNAPSHOT_SCHEMA))
    pairs: Columns = field(default_factory=lambda: _empty(PAIR_SCHEMA))

    def extend(self, other: Rows) -> None:
        """Append another's rows."""
        for mine, theirs in ((self.snapshots, other.snapshots), (self.pairs, other.pairs)):
            for name, values in theirs.items():
                mine[name] += values


class RowMaker:
    """Turns the sums of one tensor into its rows; per-channel sums end here.

    Args:
        series: The run.
        hyper: Its hyper-parameters, for the normalisation's epsilon.
        pool: Open files, for the normalisation's variance.
    """

    def __init__(self, series: SnapshotSeries, hyper: HyperParameters, pool: FilePool) -> None:
        self._snapshots = series.snapshots
        self._steps = series.steps
        self._epsilon = hyper.epsilon
        self._pool = pool

    def rows(self, part: Part, sums: TensorSums) -> Rows:
        """The rows of one tensor through the snapshots of a part."""
        selected, first = part.selected, part.first
        window = slice(first, first + len(sums.w2))
        steps = self._steps[window]
        with quiet():
            leak = self._leak(selected, self._snapshots[window], sums.w2)
            return Rows(
                snapshot_rows(selected, sums, steps, first),
                pair_rows(selected, sums, steps, leak, first),
            )

    def _leak(
        self, selected: Selected, snapshots: tuple[Snapshot, ...], w2: NDArray[np.float64]
    ) -> NDArray[np.float64] | None:
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
    """Collects rows; Python's floats take several times the space of a frame's."""

    def __init__(self) -> None:
        self._snapshots = [pl.DataFrame(schema=SNAPSHOT_SCHEMA)]
        self._pairs = [pl.DataFrame(schema=PAIR_SCHEMA)]
        self._loose = Rows()

    def add(self, rows: Rows) -> None:
        """Append the rows of the next tensors."""
        self._loose.extend(rows)
        if len(self._loose.snapshots["tensor"]) >= _LOOSE_ROWS:
            self._pack()

    def frames(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Frames with `SNAPSHOT_SCHEMA` and `PAIR_SCHEMA`."""
        self._pack()
        return pl.concat(self._snapshots), pl.concat(self._pairs)

    def _pack(self) -> None:
        self._snapshots.append(pl.DataFrame(self._loose.snapshots, schema=SNAPSHOT_SCHEMA))
        self._pairs.append(pl.DataFrame(self._loose.pairs, schema=PAIR_SCHEMA))
        self._loose = Rows()
