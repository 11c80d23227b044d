"""A check in a terminal: what the policy made of the run, and every reason, worst first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smdlens.diagnosis.cases import CheckResult
from smdlens.report.case_groups import CaseGroup, case_groups, counts_text, verdict_text
from smdlens.report.terminal.pen import SYMBOLS, Pen
from smdlens.vocabulary import Outcome

if TYPE_CHECKING:
    from rich.console import Console

    from smdlens.report.build import Report

_MOST_GROUPS = 8
_ORDER = (Outcome.FAIL, Outcome.ERROR, Outcome.INCONCLUSIVE, Outcome.WARN)


def render_check(
    report: Report | None,
    result: CheckResult,
    console: Console,
    *,
    quiet: bool = False,
    verbose: bool = False,
) -> None:
    """Prints the run, its stages and the check; with `quiet` the verdict, with `verbose` all cases.

    `report` is None where the run could not be analysed.
    """
    from smdlens.report.terminal import header, stages

    pen = Pen(console, verbose=verbose)
    if report is not None and not quiet:
        header.show_run(report, pen)
        pen.blank()
        header.show_verdict(report, pen)
        stages.show(report, pen)
        pen.blank()
    symbol, style = SYMBOLS[result.outcome]
    verdict = f"{verdict_text(result)} (policy {result.policy}): {counts_text(result)}"
    pen.item(symbol, style, [pen.text(verdict, f"bold {style}")])
    if quiet:
        return
    groups = case_groups(case for outcome in _ORDER for case in result.with_outcome(outcome))
    shown = groups if verbose else groups[:_MOST_GROUPS]
    for group in shown:
        _show_group(group, pen)
    if len(shown) < len(groups):
        pen.line(f"{len(groups) - len(shown)} more reasons: add -v", "dim")
    pen.blank()
    pen.line("every case: add -v · for CI: add -o check.xml, -o check.sarif or -o check.md", "dim")


def _show_group(group: CaseGroup, pen: Pen) -> None:
    symbol, style = SYMBOLS[group.first.outcome]
    paragraphs = [pen.text(f"{group.label}: {group.first.message} [{group.first.rule}]")]
    if pen.verbose:
        paragraphs += [pen.text(f"{c.subject}: {c.message}", "dim") for c in group.cases[1:]]
    if group.first.remedy:
        paragraphs.append(pen.text(f"→ {group.first.remedy}", "bold"))
    pen.item(symbol, style, paragraphs)
