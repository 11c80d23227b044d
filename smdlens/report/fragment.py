"""A small self-contained HTML fragment for notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smdlens.names import for_html
from smdlens.report import numbers
from smdlens.report.families import families
from smdlens.report.trainer import trainer_facts

if TYPE_CHECKING:
    from smdlens.report.build import Report


def html_fragment(report: Report) -> str:
    """Headline, stage table and findings; no script, no style sheet, every text escaped."""
    steps = report.series.steps
    run = f"{len(steps)} snapshots, {report.series.axis} {steps[0]:,}–{steps[-1]:,}"
    facts = " · ".join([report.series.path, run, *trainer_facts(report)])
    return (
        f"<div><p><b>{for_html(report.summary.headline)}</b><br>"
        f"<small>{for_html(facts)}</small></p>{_stages(report)}{_findings(report)}</div>"
    )


def _stages(report: Report) -> str:
    head = ("stage", report.series.axis, "lr", "held", "undetermined", "measured/expected")
    rows = [
        (
            str(s.stage.index),
            f"{s.stage.step_from:,}–{s.stage.step_to:,}",
            numbers.rate(s.stage.lr_from),
            f"{s.counts.held}/{s.counts.total}",
            str(s.counts.undetermined),
            numbers.ratio(s.ratio),
        )
        for s in report.summary.stages
    ]
    body = "".join(f"<tr>{_cells(row, 'td')}</tr>" for row in rows)
    return f"<table><thead><tr>{_cells(head, 'th')}</tr></thead><tbody>{body}</tbody></table>"


def _cells(values: tuple[str, ...], tag: str) -> str:
    return "".join(f"<{tag}>{for_html(value)}</{tag}>" for value in values)


def _findings(report: Report) -> str:
    tensors = report.diagnosis.groups.tensors
    items = []
    for family in families(report.diagnosis.findings, tensors):
        remedy = f" <b>{for_html(family.first.remedy)}</b>" if family.first.remedy else ""
        outcome = for_html(family.first.outcome.value)
        items.append(f"<li>{outcome}: {for_html(family.text(tensors))}{remedy}</li>")
    return f"<ul>{''.join(items)}</ul>" if items else ""
