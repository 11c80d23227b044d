"""Angle between two snapshots by how far apart they are, against a random walk in equilibrium."""

from __future__ import annotations

import polars as pl
from matplotlib.figure import Figure

from smdlens.report.plots.canvas import figure, log_ticks
from smdlens.report.plots.palette import LIGHT

_MOST_STAGES = 4


def lag_curve(lags: pl.DataFrame) -> Figure | None:
    """Median and 80% of the tensors' angles by lag, one panel per stage (the last four).

    Args:
        lags: Frame with `diagnosis.records.LAG_SCHEMA`.

    Returns:
        None where no lag was measured.
    """
    known = lags.filter(pl.col("angle_rad") > 0.0)
    stages = known["stage"].unique().sort().to_list()[-_MOST_STAGES:]
    if not stages:
        return None
    fig, panels = figure(2.6, columns=len(stages), sharey=True)
    angle = pl.col("angle_rad")
    for axes, stage in zip(panels, stages, strict=True):
        rows = (
            known.filter(pl.col("stage") == stage)
            .group_by("lag_steps")
            .agg(
                low=angle.quantile(0.1),
                middle=angle.median(),
                high=angle.quantile(0.9),
                walk=pl.col("angle_random_walk_rad").median(),
            )
            .sort("lag_steps")
        )
        lag = rows["lag_steps"].to_numpy()
        axes.fill_between(
            lag,
            rows["low"].to_numpy(),
            rows["high"].to_numpy(),
            color=LIGHT["spread"],
            alpha=0.3,
            linewidth=0,
            label="80% of tensors",
        )
        axes.plot(lag, rows["middle"].to_numpy(), color=LIGHT["measured"], marker=".",
                  markersize=3, label="median, measured")  # fmt: skip
        axes.plot(lag, rows["walk"].to_numpy(), color=LIGHT["relaxed"], linestyle="-.",
                  label="random walk in equilibrium")  # fmt: skip
        log_ticks(axes)
        log_ticks(axes, "x")
        axes.set_xlabel(f"lag in stage {stage}")
    panels[0].set_ylabel("angle (rad)")
    handles, labels = panels[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper left", ncols=3)
    return fig
