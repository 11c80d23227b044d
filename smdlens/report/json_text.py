"""Plain data as JSON text: no NaN, 12 significant digits, one record per line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import polars as pl

from smdlens.names import for_json

_SIGNIFICANT_DIGITS = 12


def clean(value: Any) -> Any:
    """Rounds floats, repairs text; a record whose float is not finite gets null and a flag."""
    if isinstance(value, str):
        return for_json(value)
    if isinstance(value, float):
        return _round(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        cleaned = {str(k): clean(v) for k, v in value.items()}
        lost = [
            f"nonfinite_{k}"
            for k, v in value.items()
            if isinstance(v, float) and not math.isfinite(v)
        ]
        if lost:
            cleaned["flags"] = [*(cleaned.get("flags") or []), *lost]
        return cleaned
    if isinstance(value, list | tuple):
        return [clean(v) for v in value]
    if isinstance(value, pl.DataFrame):
        return [clean(row) for row in value.iter_rows(named=True)]
    return value


def _round(value: float) -> float:
    return float(f"{value:.{_SIGNIFICANT_DIGITS}g}")


def document(content: Mapping[str, Any]) -> str:
    """A report as text, ending with a newline: long tables stay comparable line by line.

    Cleaned and written one after another: as dicts the tables of very many tensors take ten times
    the memory of their text.

    Args:
        content: Not cleaned yet; frames stand for the list of their rows.
    """
    items = (
        f"  {json.dumps(key)}: "
        + (_rows(value) if isinstance(value, pl.DataFrame) else _text(clean(value), "  "))
        for key, value in content.items()
    )
    return "{\n" + ",\n".join(items) + "\n}\n"


def _rows(frame: pl.DataFrame) -> str:
    if frame.is_empty():
        return "[]"
    rows = (json.dumps(clean(row), allow_nan=False) for row in frame.iter_rows(named=True))
    return "[\n" + ",\n".join(f"    {row}" for row in rows) + "\n  ]"


def _text(value: Any, indent: str) -> str:
    """Cleaned data with one record per line."""
    deeper = indent + "  "
    if isinstance(value, dict) and any(_is_table(v) for v in value.values()):
        items = [f"{json.dumps(k)}: {_text(v, deeper)}" for k, v in value.items()]
        return "{\n" + ",\n".join(deeper + i for i in items) + f"\n{indent}}}"
    if _is_table(value) and isinstance(value, list):
        return "[\n" + ",\n".join(deeper + _text(v, deeper) for v in value) + f"\n{indent}]"
    return json.dumps(value, allow_nan=False)


def _is_table(value: Any) -> bool:
    """Whether a value is too much for one line: a list of records that are records of something."""
    if isinstance(value, dict):
        return any(_is_table(v) for v in value.values())
    # Evidence and parts are short lists of short records and stay within their tensor's line.
    return isinstance(value, list) and any(isinstance(v, dict) and len(v) > 4 for v in value)
