"""A table of floats that grows by rows and ends as columns; what is not known takes no room."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

Float = NDArray[np.float64]


class Columns:
    """Collects rows.

    Args:
        names: Of the columns.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._height = 0
        # Of each column the runs of rows in which something is known: first row, values.
        self._pieces: list[list[tuple[int, Float]]] = [[] for _ in names]

    def add(self, rows: Float) -> None:
        """Append [rows, columns]; what is not finite is not known."""
        finite = np.isfinite(rows)
        for column in np.flatnonzero(finite.any(0)):
            values = np.where(finite[:, column], rows[:, column], np.nan)
            self._pieces[column].append((self._height, values))
        self._height += len(rows)

    def taken(self) -> dict[str, pl.Series]:
        """Every column by its name, null where not known; nothing is left here.

        Columns of which nothing is known share their memory.
        """
        unknown = pl.repeat(None, self._height, dtype=pl.Float64, eager=True)
        found: dict[str, pl.Series] = {}
        for name, pieces in zip(self._names, self._pieces, strict=True):
            found[name] = self._column(pieces) if pieces else unknown
            pieces.clear()
        return found

    def _column(self, pieces: list[tuple[int, Float]]) -> pl.Series:
        column = np.full(self._height, np.nan)
        for first, values in pieces:
            column[first : first + len(values)] = values
        return pl.Series(column, nan_to_null=True)
