"""The re-equilibration clock: after each cut, how long the tensors need and how long they had."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from smdlens.diagnosis.records import Decay
from smdlens.report import numbers
from smdlens.report.plots.canvas import figure, legend_above, log_ticks
from smdlens.report.plots.palette import LIGHT

_MOST_CUTS = 12


def clock(decays: tuple[Decay, ...], frame: pl.DataFrame) -> Figure | None:
    """One line per cut: each tensor at the iterations it needs, the stage's length as a bar.

    Filled marks arrived within the stage; the others are restarted from the ratio at its end. None
    where no cut has a figure.
    """
    never = pl.col("iterations_observed").is_null()
    needed = frame.with_columns(
        pl.coalesce(
            pl.when(never).then(pl.col("iterations_available") + pl.col("iterations_missing")),
            "iterations_to_tolerance_measured",
            "iterations_to_tolerance",
        ).alias("needed")
    ).filter(pl.col("needed").is_not_null() & (pl.col("needed") > 0))
    shown = [d for d in decays if d.index in set(needed["decay"])][-_MOST_CUTS:]
    if not shown:
        return None
    fig, (axes,) = figure(0.9 + 0.5 * len(shown))
    for line, decay in enumerate(shown):
        own = needed.filter(pl.col("decay") == decay.index)
        had = own["iterations_available"].drop_nulls().max()
        if isinstance(had, int):
            axes.barh(line, had, height=0.6, color=LIGHT["ink"], alpha=0.1, label=_once(line, 0))
        arrived = own["iterations_observed"].is_not_null().to_numpy()
        at = own["needed"].to_numpy().astype(np.float64)
        # A fixed pattern keeps marks of equal place apart, and the picture the same every time.
        spread = line + 0.18 * np.sin(2.4 * np.arange(len(at)))
        for there, name in ((True, 1), (False, 2)):
            own_rows = arrived == there
            axes.plot(
                at[own_rows],
                spread[own_rows],
                linestyle="none",
                marker="o" if there else "x",
                markersize=5,
                color=LIGHT["relaxed" if there else "expected"],
                markeredgewidth=1.6,
                label=_once(line, name),
            )
    log_ticks(axes, "x")
    axes.set_yticks(range(len(shown)), [f"cut at {numbers.exact(d.step)}" for d in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel("iterations since the cut")
    legend_above(axes)
    return fig


def _once(line: int, which: int) -> str:
    names = ("the stage's length", "needed, and arrived", "needed, and did not arrive")
    return names[which] if line == 0 else "_"
