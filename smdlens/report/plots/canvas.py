"""Matplotlib figures without global state, and their SVG fit for a page."""

from __future__ import annotations

import contextlib
import io
import math
import re
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from smdlens.names import for_figure, for_html, for_terminal, shorten
from smdlens.report import numbers
from smdlens.report.plots.data import PlotData
from smdlens.report.plots.palette import LIGHT

WIDTH = 9.0
# Decades an axis spans at most -> where within a decade its ticks are.
_SUBDIVISIONS = (
    (0.35, (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)),
    (0.8, (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)),
    (2.5, (1.0, 2.0, 5.0)),
)
_STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.edgecolor": LIGHT["rule"],
    "axes.labelcolor": LIGHT["ink"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "axes.titlecolor": LIGHT["ink"],
    "text.color": LIGHT["ink"],
    "xtick.color": LIGHT["soft"],
    "ytick.color": LIGHT["soft"],
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.4,
    "path.simplify": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "smdlens",
    "pdf.fonttype": 42,
}


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Our style, whatever the user's matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def figure(
    height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of the page's width with `rows` times `columns` axes, line by line."""
    result = Figure(figsize=(WIDTH, height), layout="constrained")
    grid = result.subplots(rows, columns, squeeze=False, **options)
    return result, [axes for line in grid for axes in line]


def label(text: str, width: int = 60) -> str:
    """Any text for a figure: no formula, no control character, no glyph the font lacks."""
    font = FT2Font(font_manager.findfont("DejaVu Sans"))
    drawn = "".join(
        c if font.get_char_index(ord(c)) else f"\\u{ord(c):04x}"
        for c in shorten(for_terminal(text), width)
    )
    return for_figure(drawn)


def time_axis(axes: Axes, data: PlotData, *, shade: bool = True) -> None:
    """Steps below, stages shaded in turn, cuts as lines."""
    axes.set_xlim(data.steps[0], data.steps[-1])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: numbers.humanised(value)))
    for number, (first, last) in enumerate(data.stages):
        if shade and number % 2:
            axes.axvspan(first, last, color=LIGHT["ink"], alpha=0.05, linewidth=0)
    for cut in data.cuts:
        axes.axvline(cut, color=LIGHT["soft"], linewidth=0.8, linestyle=(0, (1, 2)))


def log_ticks(axes: Axes, which: str = "y") -> None:
    """A logarithmic axis with plain numbers at enough places; for after everything is drawn."""
    getattr(axes, f"set_{which}scale")("log")
    low, high = getattr(axes, f"get_{which}lim")()
    decades = abs(math.log10(high / low)) if low > 0.0 and high > 0.0 else 1.0
    places = next((subs for most, subs in _SUBDIVISIONS if decades <= most), (1.0,))
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(LogLocator(subs=places))
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axis.set_minor_locator(NullLocator())


def plain(value: float) -> str:
    """A tick: 0.005, 2e-4, 20k."""
    return numbers.humanised(value) if value >= 1000.0 else numbers.rate(value)


def legend_above(axes: Axes, columns: int = 4) -> None:
    """The legend over the axes, where it hides nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=columns, borderaxespad=0.2)


def inline_svg(fig: Figure, key: str, title: str, description: str) -> str:
    """The figure as an SVG element for an HTML page.

    Colours become the page's variables, ids are unique on the page, and title and description are
    its text alternative.
    """
    buffer = io.StringIO()
    fig.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    box = re.search(r'viewBox="([\d. ]*)"', body)
    view = box[1] if box else ""
    inner = body[body.index(">") + 1 : body.rindex("</svg>")]
    for name, value in LIGHT.items():
        inner = inner.replace(value, f"var(--{name})")
    # The page's font; sizes stay.
    inner = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", inner)
    inner = re.sub(r"font-family: [^;\"]*;? ?", "", inner)
    inner = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", inner, flags=re.DOTALL)
    inner = re.sub(r' id="(?:figure|patch|axes|line2d|text|matplotlib|xtick|ytick|Fill|Poly|Path|'
                   r'Line|legend|Quad|axvspan)[^"]*"', "", inner)  # fmt: skip
    inner = re.sub(r'(id="|url\(#|xlink:href="#)', rf"\g<1>{key}-", inner)
    inner = inner.replace("xlink:href=", "href=")
    inner = re.sub(r' d="([^"]*)"', lambda found: f' d="{_shorter(found[1])}"', inner)
    inner = re.sub(r"\s*\n\s*", "\n", inner)
    return (
        f'<svg class="figure" role="img" aria-labelledby="{key}-t {key}-d" viewBox="{view}">'
        f'<title id="{key}-t">{for_html(title)}</title>'
        f'<desc id="{key}-d">{for_html(description)}</desc>{inner}</svg>'
    )


def _shorter(path: str) -> str:
    """A path in tenths of a point: nothing on a page is finer."""
    rounded = re.sub(r"-?\d+\.\d+", lambda n: f"{float(n[0]):.1f}".removesuffix(".0"), path)
    return re.sub(r"\s*([A-Za-z])\s*", r"\1", rounded).replace("\n", " ")
