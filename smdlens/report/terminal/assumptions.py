"""With `verbose`: gradients of single updates, the theorems' numbers, and every assumption."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smdlens.report.assumption_rows import INTRODUCTION, AssumptionRow, assumption_rows
from smdlens.report.gradient_rows import gradient_rows, theorem_rows
from smdlens.report.summary import invariant_names
from smdlens.report.terminal.grid import Column, show_table
from smdlens.report.terminal.pen import SYMBOLS, Pen

if TYPE_CHECKING:
    from smdlens.report.build import Report


def show(report: Report, pen: Pen) -> None:
    """Three sections, each left out where nothing is known."""
    _gradients(report, pen)
    _theorems(report, pen)
    rows = assumption_rows(report.diagnosis.assumptions)
    if rows:
        pen.blank()
        pen.line("assumptions of the theory")
        pen.line(INTRODUCTION, "dim")
        for row in rows:
            _assumption(row, pen)


def _assumption(row: AssumptionRow, pen: Pen) -> None:
    symbol, style = SYMBOLS[row.outcome]
    is_demand = row.limit and not row.limit.startswith("expected")
    asked = f"should be {row.limit}" if is_demand else row.limit
    held = ", ".join(text for text in (row.value, asked) if text)
    details = "; ".join(text for text in (held, row.where, row.reason) if text)
    paragraphs = [pen.text(f"{row.meaning}: {row.verdict}")]
    if details:
        paragraphs.append(pen.text(f"{details} [{row.source}]", "dim"))
    pen.item(symbol, style, paragraphs)


def _gradients(report: Report, pen: Pen) -> None:
    rows = gradient_rows(report.diagnosis.unit_gradients, invariant_names(report.diagnosis))
    if not rows:
        return
    columns = [
        Column("", flexible=True),
        Column("median", right=True),
        Column("5–95%"),
        Column("cosine", right=True),
        Column("at most", right=True),
        Column("right angle"),
        Column("updates", right=True, optional=True),
        Column("effective", right=True, optional=True),
        Column("by channel", optional=True),
        Column("stage", right=True, optional=True),
        Column("from", optional=True),
    ]
    pen.blank()
    pen.line("gradients of single updates: size on the unit sphere, cosine with the weights")
    show_table(
        pen,
        columns,
        [
            [
                r.tensor,
                r.median or "?",
                r.spread or "?",
                r.cosine or "?",
                r.limit or "?",
                (f"{r.verdict}, {r.free}" if r.free else r.verdict, SYMBOLS[r.outcome][1]),
                r.updates,
                r.effective or "?",
                r.channels or "?",
                r.stage,
                r.source,
            ]
            for r in rows
        ],
    )


def _theorems(report: Report, pen: Pen) -> None:
    rows = theorem_rows(report.diagnosis.theorems)
    if not rows:
        return
    columns = [
        Column("", flexible=True),
        Column("stage", right=True),
        Column("norm", right=True),
        Column("expected", right=True),
        Column("band"),
        Column("start left", right=True),
        Column("angle off", right=True, optional=True),
        Column("bound", right=True, optional=True),
        Column("promised", right=True, optional=True),
        Column("seen", right=True, optional=True),
        Column("scatter", right=True, optional=True),
    ]
    pen.blank()
    pen.line("norms where Theorem 1 or 2 puts them; angles within the bound of Theorem 3")
    show_table(
        pen,
        columns,
        [
            [
                r.tensor,
                r.stage,
                r.norm,
                r.expected or "?",
                r.band or "?",
                r.vanishing,
                r.off or "?",
                r.bound or "none",
                r.probability or "?",
                r.within or "?",
                r.scatter or "?",
            ]
            for r in rows
        ],
    )
