"""The worst tensors by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smdlens.report import numbers
from smdlens.report.summary import sets_measured
from smdlens.report.terminal.grid import Cell, Column, show_table
from smdlens.report.terminal.pen import Pen, state_style
from smdlens.report.worst import worst_tensors
from smdlens.vocabulary import State
from smdlens.wording import count_of

if TYPE_CHECKING:
    from smdlens.report.build import Report

_FEW = 5


def show(report: Report, pen: Pen) -> None:
    """Name, ratio with its 95% interval, state; norms where there is room. `verbose`: all."""
    frame = worst_tensors(report.diagnosis)
    if frame.is_empty():
        return
    rows = frame.to_dicts() if pen.verbose else frame.head(_FEW).to_dicts()
    stages = {row["stage"] for row in rows}
    states = {row["state"] for row in rows}
    out = rows[0]["severity"] == 0
    title = "worst tensors" if out else "tensors furthest from expected"
    if len(frame) > len(rows):
        title += f", {len(rows)} of {len(frame)}"
    shared = [f"stage {rows[0]['stage']}"] if len(stages) == 1 else []
    shared += [rows[0]["state"]] if len(states) == 1 else []
    title += f" ({', '.join(shared)})" if shared else ""
    columns = [
        Column("", flexible=True),
        Column("stage", right=True),
        Column("ratio"),
        Column("95%"),
        Column("norm", right=True, optional=True),
        Column("expected", right=True, optional=True),
        Column("state"),
        Column("shape", optional=True),
    ]
    # What all rows share stands in the title.
    said = {"stage": len(stages) == 1, "state": len(states) == 1}
    kept = [i for i, c in enumerate(columns) if not said.get(c.header, False)]
    sets = sets_measured(report.diagnosis)
    cells = [_row(row, report, sets) for row in rows]
    pen.blank()
    pen.line(title)
    show_table(pen, [columns[i] for i in kept], [[row[i] for i in kept] for row in cells])
    if sets:
        _explain_sets(pen, sets)


def _explain_sets(pen: Pen, sets: dict[str, tuple[str, ...]]) -> None:
    """What `conv.weight +1` means; `verbose`: which tensors each set holds."""
    pen.line(
        "+n: measured as one vector with n more tensors, scale-invariant only together "
        f"({count_of(len(sets), 'set')})",
        "dim",
    )
    if pen.verbose:
        for first, others in sets.items():
            pen.line(f"  {first} with {', '.join(others)}", "dim")


def _row(row: dict[str, Any], report: Report, sets: dict[str, tuple[str, ...]]) -> list[Cell]:
    state = State(row["state"])
    style = state_style(state)
    others = sets.get(row["tensor"], ())
    return [
        f"{row['tensor']} +{len(others)}" if others else row["tensor"],
        str(row["stage"]),
        (numbers.ratio_precise(row["ratio"]), style),
        _interval(row),
        numbers.quantity(row["norm"]),
        numbers.quantity(row["expected_norm"]),
        (state.value, style),
        "x".join(map(str, report.diagnosis.groups.tensors[row["tensor"]].shape)),
    ]


def _interval(row: dict[str, Any]) -> str:
    if row["ratio_low"] is None or row["ratio_high"] is None:
        return "?"
    return "–".join(numbers.ratio_precise(row[end]) for end in ("ratio_low", "ratio_high"))
