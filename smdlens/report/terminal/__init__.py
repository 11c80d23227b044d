"""The report in a terminal: ten seconds, 80 columns, the verdict first and the worst first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from smdlens.report.terminal.pen import Pen

if TYPE_CHECKING:
    from smdlens.report.build import Report


def render(report: Report, console: Console, *, quiet: bool = False, verbose: bool = False) -> None:
    """Prints `report`: with `quiet` the verdict only, with `verbose` every tensor and finding."""
    # Other commands write with the same pen and need none of what a report needs.
    from smdlens.report.terminal import (
        assumptions,
        cuts,
        findings,
        header,
        stages,
        tensors,
        unbound,
    )

    pen = Pen(console, verbose=verbose)
    if quiet:
        header.show_verdict(report, pen)
        return
    header.show_run(report, pen)
    pen.blank()
    header.show_verdict(report, pen)
    stages.show(report, pen)
    cuts.show(report, pen)
    findings.show(report, pen)
    tensors.show(report, pen)
    unbound.show(report, pen)
    if verbose:
        assumptions.show(report, pen)
    if report.series.skipped or not verbose:
        pen.blank()
    header.show_left_out(report, pen)
    if not verbose:
        pen.line(
            "every tensor: add -v · to look at: add -o report.html · in full: -o report.json", "dim"
        )
