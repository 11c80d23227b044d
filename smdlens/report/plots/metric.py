"""The test metric over time, below the ratio whose growth after a cut may pull it down."""

from __future__ import annotations

import warnings

import numpy as np
from matplotlib.figure import Figure

from smdlens.diagnosis.records import MetricStage
from smdlens.hyper.metrics import Metric
from smdlens.report.plots.canvas import figure, label, legend_above, log_ticks, time_axis
from smdlens.report.plots.data import PlotData
from smdlens.report.plots.palette import LIGHT


def metric_curve(data: PlotData, metric: Metric, stages: tuple[MetricStage, ...]) -> Figure | None:
    """Median ratio of the tensors above, the metric below, marked stages shaded in both.

    Returns:
        None where no value lies within the run.
    """
    at, values = np.array(metric.at), np.array(metric.values)
    inside = (at >= data.steps[0]) & (at <= data.steps[-1])
    if not inside.any():
        return None
    fig, (ratios, metrics) = figure(4.2, rows=2, sharex=True)
    for axes in (ratios, metrics):
        time_axis(axes, data)
        for row, (first, last) in zip(stages, data.stages, strict=True):
            if row.pseudo_overfitting:
                axes.axvspan(first, last, color=LIGHT["warn"], alpha=0.16, linewidth=0)
    measured = data["ratio"][data.invariant]
    if np.isfinite(measured).any():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # intervals that nothing is known of
            low, middle, high = np.nanquantile(measured, (0.1, 0.5, 0.9), axis=0)
        x, below = data.line(low)
        ratios.fill_between(
            x, below, data.line(high)[1], color=LIGHT["spread"], alpha=0.3, linewidth=0,
            label="80% of tensors",
        )  # fmt: skip
        ratios.plot(*data.line(middle), color=LIGHT["measured"], label="median")
    ratios.axhline(1.0, color=LIGHT["expected"], linestyle="--", label="equilibrium")
    log_ticks(ratios)
    ratios.set_ylabel("measured / expected")
    metrics.plot(at[inside], values[inside], color=LIGHT["good"], marker=".", markersize=3)
    metrics.set_ylabel(label(metric.name, 24))
    metrics.set_xlabel(data.axis)
    legend_above(ratios)
    return fig
