"""Findings, worst first, each with what to do; and why tensors are undetermined."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from smdlens.report.families import Family, families
from smdlens.report.summary import invariant_rows
from smdlens.report.terminal.pen import SYMBOLS, Pen
from smdlens.vocabulary import Outcome, State

if TYPE_CHECKING:
    from smdlens.report.build import Report

_MOST_FAMILIES = 6
_MOST_REASONS = 3


def show(report: Report, pen: Pen) -> None:
    """One item per family of findings, then one per reason for not knowing."""
    found = families(report.diagnosis.findings)
    shown = found if pen.verbose else found[:_MOST_FAMILIES]
    reasons = _undetermined(report)
    if not shown and not reasons:
        return
    pen.blank()
    for family in shown:
        _show_family(family, report, pen)
    for text in reasons if pen.verbose else reasons[:_MOST_REASONS]:
        symbol, style = SYMBOLS[Outcome.INCONCLUSIVE]
        pen.item(symbol, style, [pen.text(text)])
    hidden = len(found) - len(shown)
    if hidden:
        pen.line(f"{hidden} more finding{'s' if hidden > 1 else ''}: add -v", "dim")


def _show_family(family: Family, report: Report, pen: Pen) -> None:
    tensors = report.diagnosis.groups.tensors
    symbol, style = SYMBOLS[family.first.outcome]
    paragraphs = [pen.text(family.text(tensors))]
    if pen.verbose:
        paragraphs += [
            pen.text(f"{f.subject}: {f.message.removeprefix(f.subject).lstrip(': ')}", "dim")
            for f in family.findings[1:]
        ]
    if family.first.remedy:
        paragraphs.append(pen.text(f"→ {family.first.remedy}", "bold"))
    pen.item(symbol, style, paragraphs)


def _undetermined(report: Report) -> list[str]:
    """`stage 3: 12 tensors undetermined: reason`, most tensors first."""
    rows = invariant_rows(report.diagnosis).filter(pl.col("state") == State.UNDETERMINED.value)
    counts = rows.group_by("reason", maintain_order=True).agg(
        pl.col("tensor").n_unique().alias("tensors"),
        pl.col("tensor").first().alias("example"),
        pl.col("stage").unique(maintain_order=True),
    )
    texts = []
    for row in counts.sort("tensors", descending=True, maintain_order=True).iter_rows(named=True):
        stages = ", ".join(map(str, row["stage"][:6])) + (" ..." if len(row["stage"]) > 6 else "")
        who = row["example"] if row["tensors"] == 1 else f"{row['tensors']} tensors"
        plural = "s" if len(row["stage"]) > 1 else ""
        texts.append(
            f"{who} undetermined in stage{plural} {stages}: {row['reason'] or 'no reason'}"
        )
    return texts
