"""Angle per update and weight norm against theory, for the run and for one tensor."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smdlens.report.plots.canvas import figure, legend_above, log_ticks, time_axis
from smdlens.report.plots.data import Array, PlotData
from smdlens.report.plots.palette import LIGHT

EXPECTED: dict[str, Any] = {"color": LIGHT["expected"], "linestyle": "--", "label": "equilibrium"}
RELAXED: dict[str, Any] = {
    "color": LIGHT["relaxed"],
    "linestyle": "-.",
    "label": "relaxation predicted",
}
_ANGLE = "angle per update (rad)"
_MOST_LINES = 60


def _steps_of(data: PlotData, values: Array) -> tuple[Array, Array]:
    """A value per interval as a line with steps, broken where it is not known."""
    x = np.stack([data.steps[:-1], data.steps[1:], data.steps[1:]], axis=1).ravel()
    gap = np.full(values.shape, np.nan)
    same = np.append(values[1:] == values[:-1], True)
    y = np.stack([values, values, np.where(same, values, gap)], axis=1).ravel()
    return x, y


def run_against_theory(data: PlotData) -> Figure:
    """All scale-invariant tensors: their angle per update, and their norm over equilibrium's.

    A line per tensor as long as lines can be told apart, else quantiles over tensors.
    """
    fig, (angles, norms) = figure(5.6, rows=2, sharex=True)
    bound = np.flatnonzero(data.invariant)
    middle = np.sqrt(data["norm_from"][bound] * data["norm_to"][bound])
    over = middle / data.equilibrium_norms[bound]
    draw = _lines if len(bound) <= _MOST_LINES else _quantiles
    for axes, values in ((angles, data["one_step_angle_rad"][bound]), (norms, over)):
        time_axis(axes, data)
        draw(axes, data, values)
    expected = np.unique(data["expected_one_step_angle_rad"][bound], axis=0)
    for number, values in enumerate(expected[:8]):
        style = EXPECTED if number == 0 else {**EXPECTED, "label": "_"}
        angles.plot(*_steps_of(data, values), **style)
    norms.axhline(1.0, **{**EXPECTED, "label": "_"})
    for axes in (angles, norms):
        log_ticks(axes)
    angles.set_ylabel(_ANGLE)
    norms.set_ylabel("norm / equilibrium norm")
    norms.set_xlabel(data.axis)
    legend_above(angles)
    return fig


def _lines(axes: Axes, data: PlotData, values: Array) -> None:
    faint = float(np.clip(6.0 / max(len(values), 1), 0.15, 0.6))
    for row in values:
        axes.plot(*data.line(row), color=LIGHT["measured"], alpha=faint, linewidth=0.9)
    axes.plot([], [], color=LIGHT["measured"], label="measured, one line per tensor")


def _quantiles(axes: Axes, data: PlotData, values: Array) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # intervals where no tensor has a value
        lowest, low, middle, high, highest = np.nanquantile(values, (0, 0.1, 0.5, 0.9, 1), axis=0)
    for below, above, alpha, name in (
        (lowest, highest, 0.18, "all tensors"),
        (low, high, 0.35, "80% of tensors"),
    ):
        axes.fill_between(
            *data.line(below),
            data.line(above)[1],
            color=LIGHT["spread"],
            alpha=alpha,
            linewidth=0,
            label=name,
        )
    axes.plot(*data.line(middle), color=LIGHT["measured"], label="median, measured")


def tensor_against_theory(data: PlotData, tensor: str) -> Figure:
    """One tensor: angle with its interval and its channels' spread, norm; both against theory."""
    fig, (angles, norms) = figure(4.6, rows=2, sharex=True)
    row = data.row(tensor)
    for axes in (angles, norms):
        time_axis(axes, data)
    _angle(angles, data, row)
    measured: dict[str, Any] = {"color": LIGHT["measured"], "marker": ".", "markersize": 3}
    norms.plot(data.steps, data.norms[row], **measured)
    norms.plot(*data.line(data.equilibrium_norms[row]), **EXPECTED)
    norms.plot(*data.line(data.relaxed_norms[row]), **RELAXED)
    for axes in (angles, norms):
        log_ticks(axes)
    norms.set_ylabel("weight norm")
    norms.set_xlabel(data.axis)
    legend_above(angles)
    return fig


def _angle(axes: Axes, data: PlotData, row: int) -> None:
    expected = data["expected_one_step_angle_rad"][row]
    x, width = data.line(expected)
    axes.fill_between(
        x,
        data.line(data["ratio_p05"][row])[1] * width,
        data.line(data["ratio_p95"][row])[1] * width,
        color=LIGHT["spread"],
        alpha=0.28,
        linewidth=0,
        label="90% of channels",
    )
    angle = data["one_step_angle_rad"][row]
    low, high = data["one_step_low"][row], data["one_step_high"][row]
    gap = np.full(len(angle), np.nan)
    axes.plot(
        np.repeat(data.middles, 3),
        np.stack([low, high, gap], axis=1).ravel(),
        color=LIGHT["measured"],
        linewidth=0.9,
    )
    axes.plot(
        *data.line(angle),
        color=LIGHT["measured"],
        marker=".",
        markersize=3,
        label="measured, 95%",
    )
    axes.plot(*_steps_of(data, expected), **EXPECTED)
    axes.plot(*data.line(data["relaxed_one_step_angle_rad"][row]), **RELAXED)
    axes.set_ylabel(_ANGLE)
