"""Measured over expected as a mark on a logarithmic axis from 0.1 to 10, with 1 in the middle."""

from __future__ import annotations

import math

from rich.text import Text

_DECADES = 1.0
_UNICODE = {"left": "▕", "right": "▏", "axis": "─", "one": "┼", "spread": "━", "mark": "●"}
_ASCII = {"left": "[", "right": "]", "axis": "-", "one": "+", "spread": "=", "mark": "o"}
ENDS = 2


def ratio_bar(
    ratio: float | None,
    low: float | None,
    high: float | None,
    *,
    cells: int,
    style: str,
    ascii_only: bool,
) -> Text:
    """A bar of `cells` (odd) inner cells; `low` to `high` is drawn thick, values beyond clamp."""
    glyphs = _ASCII if ascii_only else _UNICODE
    axis = [(glyphs["axis"], "dim")] * cells
    axis[cells // 2] = (glyphs["one"], "dim")
    if low is not None and high is not None:
        for i in range(_position(low, cells), _position(high, cells) + 1):
            axis[i] = (glyphs["spread"], style)
    if ratio is not None:
        axis[_position(ratio, cells)] = (glyphs["mark"], style)
    return Text.assemble((glyphs["left"], "dim"), *axis, (glyphs["right"], "dim"))


def _position(ratio: float, cells: int) -> int:
    if ratio <= 0:
        return 0
    share = (math.log10(ratio) + _DECADES) / (2 * _DECADES)
    return min(max(round(share * (cells - 1)), 0), cells - 1)
