"""The page's figures with their text alternatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from markupsafe import Markup
from matplotlib.figure import Figure

from smdlens.report import numbers
from smdlens.report.cuts import summarise_cuts
from smdlens.report.metric_words import metric_text
from smdlens.report.plots import against_theory, clock, heat_map, lag_curve, run_wide
from smdlens.report.plots.canvas import drawing, inline_svg
from smdlens.report.plots.data import PlotData
from smdlens.report.plots.decay_curve import decay_curve
from smdlens.report.plots.metric import metric_curve
from smdlens.report.summary import StageSummary, invariant_names

if TYPE_CHECKING:
    from smdlens.report.build import Report


@dataclass(frozen=True)
class Figures:
    """Inline SVG, None where the run has no such data; `worst` is (tensor, figure)."""

    heat_map: Markup | None
    run: Markup | None
    clock: Markup | None
    decay: Markup | None
    unit_gradient: Markup | None
    spread: Markup | None
    lags: Markup | None
    metric: Markup | None
    worst: tuple[tuple[str, Markup], ...]


def draw(report: Report, data: PlotData, worst: list[str]) -> Figures:
    """Draws the run-wide figures and one for each tensor of `worst`."""
    if not data.invariant.any() or len(data.steps) < 2:
        return Figures(None, None, None, None, None, None, None, None, ())
    names = list(invariant_names(report.diagnosis))
    decays = report.decays.filter(pl.col("tensor").is_in(names))
    lags = report.diagnosis.lags
    with drawing():
        known = np.isfinite(data["ratio"][data.invariant]).any()
        return Figures(
            heat_map=_svg(
                heat_map.heat_map(data) if known else None,
                "heat",
                "Measured over expected angle per update, layer by time",
                _stages_in_words(report.summary.stages),
            ),
            run=_svg(
                against_theory.run_against_theory(data),
                "run",
                "Angle per update and norm of all scale-invariant tensors against theory",
                "The dashed line is equilibrium. " + _stages_in_words(report.summary.stages),
            ),
            clock=_svg(
                clock.clock(report.diagnosis.decays, decays),
                "clock",
                "Iterations to equilibrium after each cut",
                "The table below this figure holds the same numbers.",
            ),
            decay=_svg(
                decay_curve(
                    report.diagnosis.decay_curves,
                    report.diagnosis.decays,
                    report.diagnosis.tolerance,
                ),
                "decay",
                "Ratio after each cut, measured and predicted",
                _cuts_in_words(report),
            ),
            unit_gradient=_svg(
                run_wide.unit_gradient(data),
                "gradient",
                "Unit gradient over time",
                _gradient_in_words(data),
            ),
            spread=_svg(
                run_wide.channel_spread(data),
                "spread",
                "Spread of the ratio over the channels of each tensor",
                "One bar per tensor from the 5% to the 95% quantile of its channels; the mark is "
                "the whole tensor.",
            ),
            lags=_svg(
                None
                if lags is None or lags.is_empty()
                else lag_curve.lag_curve(lags.filter(pl.col("tensor").is_in(names))),
                "lags",
                "Angle between snapshots by their distance",
                "The angle between two snapshots of one stage against the iterations between them, "
                "beside that of a random walk in equilibrium.",
            ),
            metric=_svg(
                None
                if (metric := report.diagnosis.metric) is None
                else metric_curve(data, metric, report.diagnosis.metric_stages),
                "metric",
                "Test metric beside the angle per update",
                metric_text(report.diagnosis) or "",
            ),
            worst=tuple(_worst(data, name, number) for number, name in enumerate(worst)),
        )


def _svg(fig: Figure | None, key: str, title: str, description: str) -> Markup | None:
    # Our own markup; every text in it was escaped by the writer.
    return None if fig is None else Markup(inline_svg(fig, key, title, description))


def _worst(data: PlotData, name: str, number: int) -> tuple[str, Markup]:
    fig = against_theory.tensor_against_theory(data, name)
    text = "Angle per update above, weight norm below; the table of tensors holds its numbers."
    return name, Markup(inline_svg(fig, f"w{number}", f"{name} against theory", text))


def _stages_in_words(stages: tuple[StageSummary, ...]) -> str:
    parts = [
        f"stage {s.stage.index} ends at {numbers.ratio(s.ratio)} ({s.counts.held} of "
        f"{s.counts.total} tensors in equilibrium)"
        for s in stages[:20]
    ]
    return f"Median over tensors: {'; '.join(parts)}."


def _cuts_in_words(report: Report) -> str:
    parts = [
        f"after {cut.decay.step} from {numbers.ratio(cut.ends[0])} to {numbers.ratio(cut.ends[1])}"
        f" (predicted {numbers.ratio(cut.predicted_ends[0])} to "
        f"{numbers.ratio(cut.predicted_ends[1])})"
        for cut in summarise_cuts(report.diagnosis)[-20:]
    ]
    return f"Median over tensors: {'; '.join(parts)}."


def _gradient_in_words(data: PlotData) -> str:
    values = data["unit_gradient_rms"][data.invariant]
    if not np.isfinite(values).any():
        return ""
    known = np.flatnonzero(np.isfinite(values).any(axis=0))
    first, last = (float(np.nanmedian(values[:, i])) for i in (known[0], known[-1]))
    return f"The median over tensors goes from {first:.3g} to {last:.3g}."
