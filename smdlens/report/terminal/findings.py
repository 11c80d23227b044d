"""Findings, worst first, each with what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smdlens.report.families import Family, families
from smdlens.report.terminal.pen import SYMBOLS, Pen

if TYPE_CHECKING:
    from smdlens.report.build import Report

_MOST_FAMILIES = 6


def show(report: Report, pen: Pen) -> None:
    """One item per family of findings."""
    found = families(report.diagnosis.findings, report.diagnosis.groups.tensors)
    shown = found if pen.verbose else found[:_MOST_FAMILIES]
    if not shown:
        return
    pen.blank()
    for family in shown:
        _show_family(family, report, pen)
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
