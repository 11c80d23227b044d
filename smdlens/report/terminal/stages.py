"""The stage table: rate, how many tensors hold equilibrium, how far off, how long it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from smdlens.report import numbers
from smdlens.report.metric_words import metric_text
from smdlens.report.summary import Reequilibration, StageSummary
from smdlens.report.terminal.bar import ENDS, ratio_bar
from smdlens.report.terminal.grid import GAP, Cell, Column, natural_widths, show_table
from smdlens.report.terminal.pen import Pen

if TYPE_CHECKING:
    from smdlens.report.build import Report

_MOST_ROWS = 12
_BARS = (21, 15, 11, 9, 7)
_WIDE, _NARROW = 120, 72
_RATIO = 6


def show(report: Report, pen: Pen) -> None:
    """One row per stage; nothing when no tensor is scale-invariant."""
    stages = report.summary.stages
    if not report.summary.equilibrium.total:
        return
    shown = stages if pen.verbose else _selection(stages)
    wide = pen.width >= _WIDE
    tolerance = f"{100 * report.diagnosis.tolerance:g}%"
    before = [Column("stage", right=True), Column(report.series.axis), Column("lr")]
    after = [Column(f"to re-equilibrate ({tolerance})", optional=True)]
    if wide:
        before += [Column("weight decay"), Column("state of most")]
    before += [Column("held"), Column("measured/expected" if pen.width >= _NARROW else "ratio")]
    rows = [_row(s, pen, wide) for s in shown]
    others = [*(c for i, c in enumerate(before) if i != len(before) - 1), *after]
    bar = _bar_cells(pen, others, rows)
    pen.blank()
    show_table(
        pen,
        [*before, *after],
        [
            [*left, _measured(s, bar, pen), right]
            for s, (*left, right) in zip(shown, rows, strict=True)
        ],
    )
    caption = "angle per update, median over tensors" + ("; bar from 0.1 to 10" if bar else "")
    named = "measured/expected" if pen.width >= _NARROW else "ratio"
    pen.line(f"{named}: {caption}", "dim")
    if len(shown) < len(stages):
        pen.line(f"{len(stages) - len(shown)} more stages: add -v", "dim")
    metric = metric_text(report.diagnosis)
    if metric is not None:
        pen.line(metric)


def _selection(stages: tuple[StageSummary, ...]) -> tuple[StageSummary, ...]:
    """All stages of a usual run; of many, the ones that hold least, and the last, in order."""
    if len(stages) <= _MOST_ROWS:
        return stages
    worst = sorted(stages, key=lambda s: (-s.counts.not_held, -s.counts.undetermined))
    keep = {s.stage.index for s in worst[: _MOST_ROWS - 1]} | {stages[-1].stage.index}
    return tuple(s for s in stages if s.stage.index in keep)


def _bar_cells(pen: Pen, columns: list[Column], rows: list[list[Cell]]) -> int:
    """The longest bar that still fits beside the other columns; 0 for none."""
    others = sum(natural_widths(pen, columns, rows))
    room = pen.width - 1 - others - GAP * len(columns) - _RATIO - ENDS
    return next((cells for cells in _BARS if cells <= room), 0)


def _row(summary: StageSummary, pen: Pen, wide: bool) -> list[Cell]:
    stage = summary.stage
    lr = numbers.rate(stage.lr_from)
    if stage.lr_to is not None and stage.lr_to != stage.lr_from:
        lr += f"→{numbers.rate(stage.lr_to)}"
    steps = numbers.step_range(stage.step_from, stage.step_to, widest=17 if wide else 11)
    row: list[Cell] = [str(stage.index), steps, lr]
    if wide:
        state = summary.dominant
        row += [numbers.rate(stage.weight_decay), state.value if state else ""]
    return [*row, _held(summary, pen), _reequilibrate(summary.reequilibration, pen)]


def style_of(summary: StageSummary) -> str:
    """Colour of a stage: the worst of what its tensors do."""
    counts = summary.counts
    if counts.not_held:
        return "red" if counts.not_held > counts.held else "yellow"
    if counts.undetermined:
        return "cyan"
    return "green" if counts.held else "dim"


def _held(summary: StageSummary, pen: Pen) -> Text:
    counts = summary.counts
    total = str(counts.total)
    text = pen.text(f"{counts.held:>{len(total)}}/{total}", style_of(summary))
    if counts.undetermined:
        text.append(f" {counts.undetermined}?", "cyan")
    return text


def _measured(summary: StageSummary, cells: int, pen: Pen) -> Text:
    style = style_of(summary)
    text = Text(f"{numbers.ratio(summary.ratio):<{_RATIO}}", style)
    if cells:
        text.append_text(
            ratio_bar(
                summary.ratio,
                summary.ratio_low,
                summary.ratio_high,
                cells=cells,
                style=style,
                ascii_only=pen.ascii,
            )
        )
    return text


def _reequilibrate(facts: Reequilibration | None, pen: Pen) -> Cell:
    """`91k, had 150k: at 241k`, worked out from the ratio measured after the cut."""
    if facts is None:
        return ("-", "dim")
    if facts.needed is None and facts.observed is None:
        return ("?", "cyan")
    needed = "?" if facts.needed is None else numbers.humanised(facts.needed)
    had = "" if facts.available is None else f", had {numbers.humanised(facts.available)}"
    if not facts.tensors:
        return (f"{needed}{had}", "")
    if facts.observed is not None and 2 * facts.arrived > facts.tensors:
        at = numbers.humanised(facts.decay.step + facts.observed)
        return (f"{needed}{had}: at {at}", "")
    if facts.arrived:
        return (f"{needed}{had}: {facts.arrived}/{facts.tensors} there", "yellow")
    return (f"{needed}{had}: never", "red")
