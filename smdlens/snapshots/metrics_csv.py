"""Logs as CSV, one row per evaluation and one column per metric: Lightning, Keras, timm."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from smdlens.containers.files import reading
from smdlens.errors import SnapshotError
from smdlens.snapshots.metric_records import Axis, MetricColumn, MetricLog, bad_metrics, column

_STEPS = ("step", "steps", "global_step", "trainer/global_step", "_step", "iteration", "iter")
_EPOCHS = ("epoch", "epochs")
_MOST_BYTES = 1 << 28
_REMEDY = "A log is a CSV file with a column `step` (or `epoch`) and one per metric."


def read_metrics_csv(path: Path) -> MetricLog:
    """Every column with a number in it, against the column of steps, else that of epochs.

    An empty cell is no value. Where epochs count from 0, row e was logged after e + 1 epochs.

    Raises:
        InputError: It cannot be read, has no such column, or a step that is no number.
    """
    rows = list(csv.reader(_text(path).splitlines()))
    header = [name.strip() for name in rows[0]] if rows else []
    lower = [name.lower() for name in header]
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice is not None:
        raise bad_metrics(
            str(path), "a column is there twice", "each name once", repr(twice), _REMEDY
        )
    axis: Axis = "steps"
    place = next((lower.index(name) for name in _STEPS if name in lower), None)
    if place is None:
        axis = "epochs"
        place = next((lower.index(name) for name in _EPOCHS if name in lower), None)
    if place is None:
        found = ", ".join(header)[:200] or "an empty file"
        raise bad_metrics(
            str(path), "no column says when", "a column step or epoch", found, _REMEDY
        )
    at = [_place(path, n, cells, place) for n, cells in enumerate(rows[1:], start=2)]
    known = [value for value in at if value is not None]
    if axis == "epochs" and known and min(known) == 0.0:
        at = [None if value is None else value + 1.0 for value in at]
    columns = [
        logged
        for index, name in enumerate(header)
        if name
        and lower[index] not in (*_STEPS, *_EPOCHS)
        and (logged := _column(name, axis, at, [_cell(r, index) for r in rows[1:]])) is not None
    ]
    return MetricLog(str(path), "CSV", tuple(columns))


def _text(path: Path) -> str:
    expected = "a UTF-8 CSV file"
    try:
        with reading(path) as file:
            if file.size > _MOST_BYTES:
                found = f"{file.size} bytes"
                raise bad_metrics(str(path), "the log is too long", expected, found, _REMEDY)
            return file.read(0, file.size).decode("utf-8-sig")
    except (SnapshotError, UnicodeDecodeError) as error:
        found = error.message if isinstance(error, SnapshotError) else "bytes that are not UTF-8"
        raise bad_metrics(str(path), "the log cannot be read", expected, found, _REMEDY) from error


def _place(path: Path, line: int, cells: list[str], index: int) -> float | None:
    cell = _cell(cells, index)
    if not cell:
        return None
    value = _number(cell)
    if value is None or value < 0.0:
        message = f"line {line} of the log cannot be used"
        raise bad_metrics(str(path), message, "a step or epoch of 0 or more", repr(cell), _REMEDY)
    return value


def _cell(cells: list[str], index: int) -> str:
    return cells[index].strip() if index < len(cells) else ""


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _column(name: str, axis: Axis, at: list[float | None], cells: list[str]) -> MetricColumn | None:
    points = {
        place: value
        for place, cell in zip(at, cells, strict=True)
        if place is not None and (value := _number(cell)) is not None
    }
    return column(name, axis, points) if points else None
