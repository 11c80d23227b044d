"""Quantities over all scale-invariant tensors: the unit gradient, and the spread over channels."""

from __future__ import annotations

import warnings

import numpy as np
from matplotlib.figure import Figure

from smdlens.report.plots.canvas import figure, legend_above, log_ticks, time_axis
from smdlens.report.plots.data import PlotData
from smdlens.report.plots.palette import LIGHT


def unit_gradient(data: PlotData) -> Figure | None:
    """Median and 80% of the tensors' unit gradients over time; None where none is known."""
    values = data["unit_gradient_rms"][data.invariant]
    if not np.isfinite(values).any():
        return None
    fig, (axes,) = figure(2.4)
    time_axis(axes, data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # intervals where no tensor has a value
        low, middle, high = np.nanquantile(values, [0.1, 0.5, 0.9], axis=0)
    axes.fill_between(
        *data.line(low),
        data.line(high)[1],
        color=LIGHT["spread"],
        alpha=0.3,
        linewidth=0,
        label="80% of tensors",
    )
    axes.plot(*data.line(middle), color=LIGHT["measured"], label="median")
    log_ticks(axes)
    axes.set_ylabel("unit gradient (RMS)")
    axes.set_xlabel(data.axis)
    legend_above(axes)
    return fig


def channel_spread(data: PlotData) -> Figure | None:
    """Ratio of 90% of each tensor's channels at the end of the run; None where none is known."""
    bound = np.flatnonzero(data.invariant)
    known = [row for row in bound if np.isfinite(data["ratio_p95"][row]).any()]
    if not known:
        return None
    last = [int(np.flatnonzero(np.isfinite(data["ratio_p95"][row]))[-1]) for row in known]
    low, middle, high = (
        np.array([data[name][r, i] for r, i in zip(known, last, strict=True)])
        for name in ("ratio_p05", "ratio", "ratio_p95")
    )
    fig, (axes,) = figure(2.6)
    place = np.arange(len(known))
    axes.axhspan(1 - data.tolerance, 1 + data.tolerance, color=LIGHT["ink"], alpha=0.07, lw=0)
    axes.vlines(
        place,
        np.maximum(low, 1e-3),
        high,
        color=LIGHT["spread"],
        linewidth=float(np.clip(220 / len(known), 1.2, 8.0)),
        label="90% of channels",
    )
    axes.plot(place, middle, linestyle="none", marker="o", markersize=3.5,
              color=LIGHT["measured"], label="whole tensor")  # fmt: skip
    axes.axhline(1.0, color=LIGHT["expected"], linestyle="--", label="equilibrium")
    log_ticks(axes)
    axes.set_xlim(-0.6, len(known) - 0.4)
    axes.set_xticks([])
    axes.set_xlabel(f"{len(known)} scale-invariant tensors in file order, end of the run")
    axes.set_ylabel("measured / expected")
    legend_above(axes)
    return fig
