"""Fills the page's template; every text on it passes the sanitiser and the escaper."""

from __future__ import annotations

import shlex
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from smdlens.diagnosis.cases import CheckResult
from smdlens.names import for_terminal
from smdlens.report import numbers
from smdlens.report.assumption_rows import INTRODUCTION, assumption_rows
from smdlens.report.case_groups import case_groups, counts_text, verdict_text
from smdlens.report.cuts import summarise_cuts
from smdlens.report.families import families
from smdlens.report.gradient_rows import gradient_rows, theorem_rows
from smdlens.report.html import rows
from smdlens.report.html.figures import draw
from smdlens.report.html.picked import page_data
from smdlens.report.lag_words import LAGS_FROM_A_FEW
from smdlens.report.metric_words import metric_text
from smdlens.report.plots.data import plot_data
from smdlens.report.plots.palette import css
from smdlens.report.summary import invariant_count, invariant_names
from smdlens.report.terminal.header import verdict
from smdlens.report.trainer import trainer_facts
from smdlens.report.worst import worst_tensors
from smdlens.snapshots.conversions import conversions
from smdlens.version import __version__
from smdlens.vocabulary import Outcome

if TYPE_CHECKING:
    from smdlens.report.build import Report

_WORST = 10
_MOST_SCHEDULE = 60


def page(report: Report, result: CheckResult) -> str:
    """The report as HTML text.

    Args:
        report: The report.
        result: What a policy made of it.
    """
    data = plot_data(report)
    worst = [name for name in worst_tensors(report.diagnosis)["tensor"] if name in data.tensors]
    drawn = {name: number for number, name in enumerate(data.tensors)}
    names = report.diagnosis.groups.tensors
    return _template().render(
        report=report,
        data=data,
        version=__version__,
        steps=report.series.steps,
        facts=trainer_facts(report),
        invariant=len(invariant_names(report.diagnosis)),
        counted=invariant_count(report.diagnosis),
        verdict=verdict(report),
        families=[(f, f.text(names)) for f in families(report.diagnosis.findings, names)],
        result=result,
        check_verdict=verdict_text(result),
        check_counts=counts_text(result),
        check_groups=case_groups(c for c in result.cases if c.outcome is not Outcome.PASS),
        cuts={c.decay.step: c for c in summarise_cuts(report.diagnosis)},
        metric_text=metric_text(report.diagnosis),
        figures=draw(report, data, worst[:_WORST]),
        lags_from_a_few=LAGS_FROM_A_FEW,
        tensors=rows.tensor_rows(report, drawn),
        first=drawn.get(worst[0]) if worst else None,
        assumptions=assumption_rows(report.diagnosis.assumptions),
        about_assumptions=INTRODUCTION,
        theorems=theorem_rows(report.diagnosis.theorems),
        gradients=gradient_rows(report.diagnosis.unit_gradients, invariant_names(report.diagnosis)),
        schedule=report.hyper.schedule[:_MOST_SCHEDULE],
        schedule_hidden=max(0, len(report.hyper.schedule) - _MOST_SCHEDULE),
        conversions=conversions(report.series),
        command=shlex.join(for_terminal(word) for word in report.command),
        tolerance=f"{100 * report.diagnosis.tolerance:g}%",
        numbers=numbers,
        symbol=rows.OUTCOME_SYMBOL,
        kind=rows.KIND_OF_OUTCOME,
        palette=Markup(css()),
        style=Markup(_resource("style.css")),
        script=Markup(_resource("picked.js")),
        page_data=Markup(page_data(data)),
    )


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    return environment.from_string(_resource("page.html"))


def _shown(value: Any) -> Any:
    """Control characters and the like become visible before the escaper sees the text."""
    return (
        for_terminal(value) if isinstance(value, str) and not isinstance(value, Markup) else value
    )
