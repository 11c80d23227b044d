"""What lies between cuts: the curve after each beside the law, and how far weights wander."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from smdlens.report import numbers
from smdlens.report.cuts import CutSummary, summarise_cuts
from smdlens.report.lag_words import lag_texts
from smdlens.report.terminal.pen import Pen

if TYPE_CHECKING:
    from smdlens.report.build import Report

_MOST = 4
_BARS = "▁▂▃▄▅▆▇█"
_WIDEST = 24
# The unit gradient's change is worth a word from here on.
_CHANGED = math.log(1.05)


def show(report: Report, pen: Pen) -> None:
    """The last cuts (all with -v), and the angle by lag where it was asked for (or with -v)."""
    cuts = [cut for cut in summarise_cuts(report.diagnosis) if cut.ends[0] is not None]
    shown = cuts if pen.verbose else cuts[-_MOST:]
    if not report.summary.equilibrium.total:
        return
    asked = pen.verbose or report.diagnosis.lags_of_all_weights
    lags = lag_texts(report.diagnosis) if asked else []
    if shown or lags:
        pen.blank()
    for cut in shown:
        pen.line(" · ".join(_line(cut, pen)))
    if lags:
        pen.line("angle by lag (iterations), over that of a random walk in equilibrium:", "dim")
        for text in lags:
            pen.line(text)


def _line(cut: CutSummary, pen: Pen) -> list[str]:
    first, last = cut.ends
    start, end = cut.predicted_ends
    curve = "" if pen.ascii else f"{sparkline(cut.ratios)} "
    what = "cut" if cut.decay.factor > 1.0 else "increase"
    pieces = [
        f"after the {what} at {numbers.exact(cut.decay.step)}: {curve}"
        f"{numbers.ratio(first)} to {numbers.ratio(last)}, law {numbers.ratio(start)} to "
        f"{numbers.ratio(end)}"
    ]
    if cut.gradient is not None and abs(math.log(cut.gradient)) > _CHANGED:
        pieces.append(f"unit gradient {cut.gradient_text}")
    if cut.missing:
        pieces.append(f"{_count(cut.missing)} iterations missing at the end")
    return pieces


def _count(value: float | None) -> str:
    return "?" if value is None else numbers.humanised(value)


def sparkline(values: Sequence[float | None]) -> str:
    """Bars over the logarithm, lowest to highest value or 1; a blank where nothing is known."""
    if len(values) > _WIDEST:
        values = [values[round(i * (len(values) - 1) / (_WIDEST - 1))] for i in range(_WIDEST)]
    known = [math.log(v) for v in values if v is not None and v > 0.0]
    low, high = min([*known, 0.0]), max([*known, 0.0])
    return "".join(
        " " if v is None or v <= 0.0
        else _BARS[round((math.log(v) - low) / max(high - low, 0.05) * (len(_BARS) - 1))]
        for v in values
    )  # fmt: skip
