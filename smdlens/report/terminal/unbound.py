"""Tensors that decay but are not scale-invariant: the theory does not bind here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import polars as pl

from smdlens.report import numbers
from smdlens.report.summary import invariant_names
from smdlens.report.terminal.grid import Cell, Column, show_table
from smdlens.report.terminal.pen import Pen

if TYPE_CHECKING:
    from smdlens.report.build import Report

_FEW = 8


def show(report: Report, pen: Pen) -> None:
    """A line where some tensors are bound, a table where none is or where all are asked for."""
    frame = _last_rows(report)
    if frame.is_empty():
        return
    pen.blank()
    title = "the theory does not bind here"
    if invariant_names(report.diagnosis) and not pen.verbose:
        n = frame.height
        who = "1 other decayed tensor is" if n == 1 else f"{n} other decayed tensors are"
        pen.line(f"{title}: {who} not scale-invariant", "dim")
        return
    rows = frame.to_dicts() if pen.verbose else frame.head(_FEW).to_dicts()
    some = f", {len(rows)} of {frame.height} tensors" if len(rows) < frame.height else ""
    alone = " on their own" if report.diagnosis.groups.unmeasured_sets else ""
    pen.line(f"{title}: decayed, but not scale-invariant{alone}{some}")
    columns = [
        Column("", flexible=True),
        Column("norm", right=True),
        Column("angle per update", right=True),
        Column("measured/expected if it were"),
    ]
    show_table(pen, columns, [_cells(row) for row in rows])


def _last_rows(report: Report) -> pl.DataFrame:
    """One row per unbound tensor: norm and ratio of the last stage, angle of the last interval."""
    one_step = ("one_step_angle_rad", "one_step_low", "one_step_high")
    angles = (
        report.intervals.filter(pl.col("one_step_angle_rad").is_not_null())
        .group_by("tensor", maintain_order=True)
        .agg(pl.col(one_step).last())
    )
    return (
        report.stages.filter(~pl.col("tensor").is_in(invariant_names(report.diagnosis)))
        .unique("tensor", keep="last", maintain_order=True)
        .join(angles, on="tensor", how="left", maintain_order="left")
    )


def _cells(row: dict[str, Any]) -> list[Cell]:
    angle = _bounded(row, "one_step_angle_rad", "one_step", numbers.quantity)
    return [
        row["tensor"],
        numbers.quantity(row["norm"]),
        angle if angle == "?" else f"{angle} rad",
        _bounded(row, "ratio", "ratio", numbers.ratio),
    ]


def _bounded(
    row: dict[str, Any], value: str, interval: str, words: Callable[[float | None], str]
) -> str:
    """The value, or only its upper bound where nothing tells it from zero."""
    low, high = row[f"{interval}_low"], row[f"{interval}_high"]
    if low == 0.0 and high:
        return f"< {words(high)}"
    return words(row[value])
