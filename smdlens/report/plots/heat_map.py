"""Layer by time: measured over expected angle per update, colour on a logarithmic scale."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from smdlens.report.plots.canvas import figure, label, time_axis
from smdlens.report.plots.data import Array, PlotData
from smdlens.report.plots.palette import ABOVE, BELOW, LIGHT, NEUTRAL

_COLUMNS = 900
_MOST_LABELS = 56
# A ratio this far from 1, either way, has the full colour.
_FULL = 10.0


def colours(ratio: Array, tolerance: float) -> NDArray[np.float64]:
    """RGBA per cell: grey within tolerance, blue below, orange above, clear where not known.

    The opacity grows with |ln ratio|, so that one picture works on a light and on a dark page.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.abs(np.log(ratio)) / np.log(_FULL)
    opacity = 0.32 + 0.68 * np.clip(np.nan_to_num(distance, posinf=1.0), 0.0, 1.0)
    cells = np.zeros((*ratio.shape, 4))
    cells[np.abs(ratio - 1.0) <= tolerance] = NEUTRAL
    for where, colour in ((ratio < 1.0 - tolerance, BELOW), (ratio > 1.0 + tolerance, ABOVE)):
        cells[where, :3] = colour
        cells[where, 3] = opacity[where]
    return cells


def heat_map(data: PlotData) -> Figure:
    """Scale-invariant tensors in file order over the run, cuts marked."""
    names = [name for name, bound in zip(data.tensors, data.invariant, strict=True) if bound]
    ratio = data["ratio"][data.invariant]
    height = float(np.clip(0.17 * len(names), 1.0, 8.0)) + 1.25
    fig, (axes,) = figure(height)
    time_axis(axes, data, shade=False)
    _cells(axes, data, ratio)
    axes.set_ylim(len(names) - 0.5, -0.5)
    every = -(-len(names) // _MOST_LABELS)
    shown = range(0, len(names), every)
    axes.set_yticks(list(shown), [label(names[row], 34) for row in shown], fontsize=7.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(data.axis)
    _scale(axes, data.tolerance, height)
    return fig


def _cells(axes: Axes, data: PlotData, ratio: Array) -> None:
    """One image: columns are equal shares of the axis, each shows the interval it falls into."""
    first, last = data.steps[0], data.steps[-1]
    at = first + (np.arange(_COLUMNS) + 0.5) * (last - first) / _COLUMNS
    interval = np.clip(np.searchsorted(data.steps, at, side="right") - 1, 0, ratio.shape[1] - 1)
    # Bytes before columns: of very many tensors the picture would fill the memory.
    image = _bytes(colours(ratio, data.tolerance))[:, interval]
    axes.imshow(
        np.repeat(image, max(1, 400 // max(len(ratio), 1)), axis=0),
        extent=(first, last, len(ratio) - 0.5, -0.5),
        aspect="auto",
        interpolation="none",
    )


def _bytes(cells: NDArray[np.float64]) -> NDArray[np.uint8]:
    return (cells * 255).round().astype(np.uint8)


def _scale(axes: Axes, tolerance: float, height: float) -> None:
    """The key to the colours, above the map."""
    exponent = np.linspace(-1.0, 1.0, 400)
    strip = colours((_FULL**exponent)[None, :], tolerance)
    box = axes.inset_axes((0.0, 1.0 + 0.16 / (height - 1.25), 0.42, 0.11 / (height - 1.25)))
    box.imshow(
        _bytes(strip),
        extent=(-1.0, 1.0, 0.0, 1.0),
        aspect="auto",
        interpolation="none",
    )
    marks = (0.1, 0.3, 1.0, 3.0, 10.0)
    box.set_xticks([np.log10(m) for m in marks], [f"{m:g}" for m in marks], fontsize=7.5)
    box.xaxis.set_ticks_position("top")
    box.set_yticks([])
    box.set_xlim(-1.0, 1.0)
    box.text(
        1.06,
        0.5,
        "measured / expected   (grey: equilibrium, clear: not known, dotted: cut)",
        va="center",
        fontsize=8.0,
        color=LIGHT["soft"],
    )
