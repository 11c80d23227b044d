"""Tables without lines that never leave the terminal: columns are dropped, then names cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from smdlens.names import distinct_head, shorten
from smdlens.report.terminal.pen import Pen

GAP = 2
_INDENT = 1
# A flexible column is cut to the first width before columns are dropped, to the second after.
_READABLE, _NARROWEST = 28, 12
_LEAST = 3


@dataclass(frozen=True, slots=True)
class Column:
    """A table column.

    `flexible` cells may be cut in the middle, `optional` columns may be left out, rightmost first.
    """

    header: str
    right: bool = False
    flexible: bool = False
    optional: bool = False


Cell = str | tuple[str, str] | Text


def as_text(pen: Pen, cell: Cell) -> Text:
    """A cell from text, (text, style) or rich text."""
    if isinstance(cell, Text):
        return cell
    return pen.text(*cell) if isinstance(cell, tuple) else pen.text(cell)


def natural_widths(
    pen: Pen, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]
) -> list[int]:
    """Cells each column needs to show everything."""
    return [
        max([cell_len(pen.clean(c.header)), *(as_text(pen, row[i]).cell_len for row in rows)])
        for i, c in enumerate(columns)
    ]


def show_table(pen: Pen, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
    """Prints a table at most as wide as the console."""
    body = [[as_text(pen, c) for c in row] for row in rows]
    widths = natural_widths(pen, columns, body)
    kept = _fit(columns, widths, pen.width - _INDENT)
    grid = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False)
    for i in kept:
        grid.add_column(
            justify="right" if columns[i].right else "left",
            width=widths[i],
            no_wrap=True,
            overflow="crop",
        )
    grid.add_row(*(_cut(pen, pen.text(columns[i].header, "dim"), widths[i]) for i in kept))
    heads = {
        i: distinct_head([row[i].plain for row in body], widths[i], pen.clean("…"))
        for i in kept
        if columns[i].flexible and any(row[i].cell_len > widths[i] for row in body)
    }
    for row in body:
        grid.add_row(*(_cut(pen, row[i], widths[i], heads.get(i)) for i in kept))
    pen.show(Padding(grid, (0, 0, 0, _INDENT)), pen.width)


def _fit(columns: Sequence[Column], widths: list[int], room: int) -> list[int]:
    """Indices of the columns to show; narrows `widths` of flexible ones in place."""
    kept = list(range(len(columns)))

    def excess() -> int:
        return sum(widths[i] for i in kept) + GAP * (len(kept) - 1) - room

    def narrow(to: int) -> None:
        for i in kept:
            if columns[i].flexible and excess() > 0:
                widths[i] = max(widths[i] - excess(), min(widths[i], to))

    narrow(_READABLE)
    while excess() > 0 and any(columns[i].optional for i in kept):
        kept.remove(next(i for i in reversed(kept) if columns[i].optional))
    narrow(_NARROWEST)
    # Too narrow even so: take from the widest, visibly, rather than let digits fall off the edge.
    while excess() > 0 and max(widths[i] for i in kept) > _LEAST:
        widths[max(kept, key=lambda i: widths[i])] -= 1
    return kept


def _cut(pen: Pen, text: Text, width: int, head: int | None = None) -> Text:
    if text.cell_len <= width:
        return text
    # Wide characters take two cells each; half as many are sure to fit.
    plain = text.plain if text.cell_len == len(text) else text.plain[: width // 2]
    return Text(shorten(plain, width, pen.clean("…"), head), text.style)
