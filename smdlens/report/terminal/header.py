"""What was analysed, what the trainer used and who says so, and the verdict."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from smdlens.report import numbers
from smdlens.report.summary import invariant_count, invariant_names
from smdlens.report.terminal.pen import SYMBOLS, Pen
from smdlens.report.trainer import trainer_facts
from smdlens.snapshots.conversions import conversions
from smdlens.vocabulary import Outcome, SkipReason
from smdlens.wording import count_of

if TYPE_CHECKING:
    from smdlens.report.build import Report


def show_run(report: Report, pen: Pen) -> None:
    """Path, snapshots, hyper-parameters with their source, scale-invariant tensors, cost."""
    series = report.series
    steps = series.steps
    formats = ", ".join(dict.fromkeys(s.format for s in series.snapshots))
    unit = "steps" if series.axis == "steps" else "epochs"
    pen.pieces(
        [
            series.path,
            f"{len(steps)} snapshots, {unit} {numbers.exact(steps[0])}–{numbers.exact(steps[-1])}",
            formats,
        ],
        "bold",
    )
    pen.pieces(trainer_facts(report))
    if pen.verbose:
        for conversion in conversions(series):
            pen.line(conversion, "dim")
    pen.pieces(
        [*_invariant(report), _cost(report), *(_engine(report) if pen.verbose else ())], "dim"
    )


def _invariant(report: Report) -> list[str]:
    tensors = report.diagnosis.groups.tensors
    names = invariant_names(report.diagnosis)
    pieces = Counter(g.value for n in names if (g := tensors[n].granularity))
    by = f", per {pieces.most_common(1)[0][0]}" if pieces else ""
    return [
        f"{invariant_count(report.diagnosis)}{by}",
        f"found by {report.diagnosis.groups.source}",
    ]


def _cost(report: Report) -> str:
    cost = report.cost
    text = f"read {numbers.bytes_text(cost.bytes_read)} in {cost.seconds:.1f} s"
    if cost.seconds > 0.5:
        text += f" ({numbers.bytes_text(cost.bytes_read / cost.seconds)}/s)"
    return f"{text}, {cost.note}" if cost.note else text


def _engine(report: Report) -> list[str]:
    """Where it was measured, and how much of the time was reading."""
    cost = report.cost
    pieces = [f"on {cost.device}, {count_of(cost.workers, 'worker')}"]
    if cost.seconds > 0.5:
        pieces.append(f"{cost.share_of_limit:.0%} of the speed of reading alone")
    return pieces


def verdict(report: Report) -> Outcome:
    """How the headline is marked: it describes, it does not judge a policy."""
    counts = report.summary.equilibrium
    if not invariant_names(report.diagnosis) or not counts.total:
        return Outcome.INCONCLUSIVE
    if counts.not_held:
        return Outcome.FAIL
    if counts.undetermined:
        return Outcome.INCONCLUSIVE
    return Outcome.PASS if counts.held else Outcome.WARN


def show_verdict(report: Report, pen: Pen) -> None:
    """The headline, marked."""
    symbol, style = SYMBOLS[verdict(report)]
    pen.item(symbol, style, [pen.text(report.summary.headline, f"bold {style}")])


_WORDS: dict[SkipReason, str] = {
    SkipReason.UNFINISHED: "unfinished",
    SkipReason.DUPLICATE_STEP: "duplicate step",
    SkipReason.BEST_OR_LAST_COPY: "best or last copy",
    SkipReason.UNREADABLE: "unreadable",
    SkipReason.DIFFERENT_TENSORS: "different tensors",
    SkipReason.NOT_A_CHECKPOINT: "not a checkpoint",
    SkipReason.AVERAGED: "averaged weights",
}


def show_left_out(report: Report, pen: Pen) -> None:
    """Files that are not part of the series: counted, and unreadable ones by name."""
    skipped = report.series.skipped
    if not skipped:
        return
    counts = Counter(s.reason for s in skipped)
    kinds = ", ".join(f"{n} {_WORDS[reason]}" for reason, n in counts.most_common())
    pen.line(f"left out: {kinds}", "dim")
    for file in skipped:
        if pen.verbose or file.reason is SkipReason.UNREADABLE:
            pen.line(f"{file.file}: {file.detail}", "dim", indent=3)
