"""What the page needs to draw any tensor itself: series quantised to 16 bits, in base64."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np

from smdlens.names import for_terminal
from smdlens.report.plots.data import Array, PlotData

_LEVELS = 65534
_DIGITS = 7


def page_data(data: PlotData) -> str:
    """JSON for a <script> element, one entry per tensor in the order of `data.tensors`.

    Each series is [ln low, ln high, base64 of little-endian uint16]: 0 is "not known", k stands for
    exp(low + (high - low) (k - 1) / 65534). Equal series are stored once and named by number.
    """
    series: dict[str, int] = {}

    def stored(values: Array) -> int:
        text = json.dumps(quantised(values))
        return series.setdefault(text, len(series))

    expected = data["expected_one_step_angle_rad"]
    columns: dict[str, Array] = {
        "angle": data["one_step_angle_rad"],
        "low": data["one_step_low"],
        "high": data["one_step_high"],
        "expected": expected,
        "relaxed": data["relaxed_one_step_angle_rad"],
        "p05": data["ratio_p05"] * expected,
        "p95": data["ratio_p95"] * expected,
        "norm": data.norms,
        "expectedNorm": data.equilibrium_norms,
        "relaxedNorm": data.relaxed_norms,
    }
    tensors = [
        {"name": for_terminal(name), **{key: stored(v[row]) for key, v in columns.items()}}
        for row, name in enumerate(data.tensors)
    ]
    content: dict[str, Any] = {
        "axis": data.axis,
        "steps": [int(step) for step in data.steps],
        "stages": data.stages,
        "cuts": data.cuts,
        "tensors": tensors,
        "series": [json.loads(text) for text in series],
    }
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    # "</script>" and "<!--" would end or change the element they stand in.
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def quantised(values: Array) -> list[Any]:
    """Positive values on a logarithmic grid of 65,534 steps; everything else is not known."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(values)
    known = np.isfinite(logs)
    if not known.any():
        return [0, 0, base64.b64encode(bytes(2 * len(values))).decode()]
    low, high = float(logs[known].min()), float(logs[known].max())
    span = high - low or 1.0
    codes = np.zeros(len(values), dtype="<u2")
    codes[known] = 1 + np.round((logs[known] - low) / span * _LEVELS)
    encoded = base64.b64encode(codes.tobytes()).decode()
    return [round(low, _DIGITS), round(low + span, _DIGITS), encoded]
