"""The report as Markdown, for a pull request or $GITHUB_STEP_SUMMARY: at most 64 KiB."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smdlens.diagnosis.cases import Case, CheckResult
from smdlens.names import for_markdown, shorten
from smdlens.report import numbers
from smdlens.report.case_groups import case_groups, counts_text, verdict_text
from smdlens.report.families import families
from smdlens.report.trainer import trainer_facts
from smdlens.vocabulary import Outcome

if TYPE_CHECKING:
    from smdlens.report.build import Report

MOST_BYTES = 64 * 1024
_SYMBOLS = {
    Outcome.FAIL: "❌",
    Outcome.ERROR: "❌",
    Outcome.WARN: "⚠️",
    Outcome.INCONCLUSIVE: "❔",
    Outcome.PASS: "✅",
}
# A name of thousands of characters must not crowd out everything else.
_LONGEST = 300
_MOST_STAGES = _MOST_FINDINGS = 40
# Room for the frame around the list of cases and for what says that it was cut.
_FRAME = 400


def markdown(result: CheckResult, report: Report | None) -> str:
    """Verdict of the policy, headline, stages, cases that did not pass, findings.

    `report` is None where the run could not be analysed at all.
    """
    blocks = [_verdict(result)]
    if report is not None:
        blocks += [_run(report), _stages(report)]
    blocks.append(_cases(result))
    if report is not None:
        blocks.append(_findings(report))
    return _with_details("".join(f"{block}\n\n" for block in blocks if block), result)


def _text(value: str) -> str:
    return for_markdown(shorten(value, _LONGEST))


def _with_details(text: str, result: CheckResult) -> str:
    """Every case that did not pass, one per line, as far as the limit leaves room."""
    shown = _not_passed(result)
    room = MOST_BYTES - len(text.encode()) - _FRAME
    if not shown or room < 0:
        return text if room >= 0 else _cut(text)
    lines: list[str] = []
    for case in shown:
        line = f"- {case.outcome.value}, {case.place}, {_text(case.subject)}: {_text(case.message)}"
        room -= len(line.encode()) + 1
        if room < 0:
            break
        lines.append(line)
    hidden = len(shown) - len(lines)
    more = [f"- {hidden} more do not fit here"] if hidden else []
    title = f"<details><summary>All {len(shown)} cases</summary>"
    return "\n".join([text, title, "", *lines, *more, "", "</details>", ""])


def _cut(text: str) -> str:
    kept = text.encode()[: MOST_BYTES - _FRAME].decode(errors="ignore")
    return kept[: kept.rindex("\n")] + "\n\nThe rest does not fit here.\n"


def _not_passed(result: CheckResult) -> list[Case]:
    order = (Outcome.FAIL, Outcome.ERROR, Outcome.INCONCLUSIVE, Outcome.WARN)
    return [case for outcome in order for case in result.with_outcome(outcome)]


def _verdict(result: CheckResult) -> str:
    symbol = _SYMBOLS[result.outcome]
    return (
        f"### {symbol} smdlens: {verdict_text(result)}\n\n"
        f"{counts_text(result)} (policy {_text(result.policy)})"
    )


def _run(report: Report) -> str:
    series = report.series
    first, last = series.steps[0], series.steps[-1]
    run = f"{len(series.steps)} snapshots, {series.axis} {first:,} to {last:,}"
    facts = " · ".join([series.path, run, *trainer_facts(report)])
    return f"**{_text(report.summary.headline)}**\n\n{for_markdown(facts)}"


def _stages(report: Report) -> str:
    if not report.summary.equilibrium.total:
        return ""
    rows = [
        f"| {s.stage.index} | {s.stage.step_from:,} to {s.stage.step_to:,} | "
        f"{numbers.rate(s.stage.lr_from)} | {s.counts.held} of {s.counts.total} | "
        f"{s.counts.undetermined} | {numbers.ratio(s.ratio)} |"
        for s in report.summary.stages[:_MOST_STAGES]
    ]
    head = f"| stage | {report.series.axis} | lr | held | undetermined | measured/expected |"
    return "\n".join([head, "|---:|---|---|---:|---:|---:|", *rows])


def _cases(result: CheckResult) -> str:
    """What did not pass, failures first, one row per rule and stage."""
    rows = [
        f"| {_SYMBOLS[group.first.outcome]} {group.first.outcome.value} | {group.first.rule} | "
        f"{_text(group.label)} | {_text(group.first.message)} |"
        for group in case_groups(_not_passed(result))
    ]
    return (
        "\n".join(["| outcome | rule | about | because |", "|---|---|---|---|", *rows])
        if rows
        else ""
    )


def _findings(report: Report) -> str:
    tensors = report.diagnosis.groups.tensors
    lines = []
    for family in families(report.diagnosis.findings, tensors):
        remedy = f" — **{_text(family.first.remedy)}**" if family.first.remedy else ""
        symbol = _SYMBOLS[family.first.outcome]
        lines.append(f"- {symbol} {_text(family.text(tensors))}{remedy}")
    return "\n".join(lines[:_MOST_FINDINGS])
