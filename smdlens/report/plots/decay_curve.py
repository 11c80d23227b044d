"""The ratio after each cut, measured and by the relaxation law with either unit gradient."""

from __future__ import annotations

import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from smdlens.diagnosis.records import Decay
from smdlens.report import numbers
from smdlens.report.plots.canvas import figure, log_ticks
from smdlens.report.plots.palette import LIGHT

_MOST = 4


def decay_curve(curves: pl.DataFrame, decays: tuple[Decay, ...], tolerance: float) -> Figure | None:
    """One panel per cut (the last four); None where no ratio is known after any.

    Args:
        curves: Frame with `diagnosis.records.DECAY_CURVE_SCHEMA`.
        decays: The cuts.
        tolerance: Half-width of the band that counts as equilibrium.
    """
    known = curves.filter(pl.col("ratio") > 0.0)
    shown = [decay for decay in decays if decay.index in known["decay"]][-_MOST:]
    if not shown:
        return None
    fig, panels = figure(2.8, columns=len(shown), sharey=True)
    for axes, decay in zip(panels, shown, strict=True):
        rows = known.filter(pl.col("decay") == decay.index)
        steps = rows["step"].to_numpy() - decay.step
        axes.axhspan(1 - tolerance, 1 + tolerance, color=LIGHT["ink"], alpha=0.07, lw=0)
        axes.axhline(1.0, color=LIGHT["expected"], linestyle="--", label="equilibrium")
        axes.fill_between(steps, rows["ratio_low"].to_numpy(), rows["ratio_high"].to_numpy(),
                          color=LIGHT["spread"], alpha=0.3, linewidth=0,
                          label="80% of tensors")  # fmt: skip
        axes.plot(steps, rows["ratio"].to_numpy(), color=LIGHT["measured"], marker=".",
                  markersize=3, label="median, measured")  # fmt: skip
        axes.plot(steps, rows["ratio_predicted"].to_numpy(), color=LIGHT["relaxed"],
                  linestyle="-.", label="relaxation predicted")  # fmt: skip
        axes.plot(steps, rows["ratio_predicted_new_gradient"].to_numpy(), color=LIGHT["warn"],
                  linestyle=":", label="with the unit gradient after the cut")  # fmt: skip
        log_ticks(axes)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: numbers.humanised(value)))
        rate = f"{numbers.rate(decay.lr_before)} to {numbers.rate(decay.lr_after)}"
        axes.set_xlabel(f"after {numbers.exact(decay.step)} ({rate})")
    panels[0].set_ylabel("measured / expected")
    handles, labels = panels[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper left", ncols=3)
    return fig
