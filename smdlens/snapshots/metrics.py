"""A training log of any supported kind: CSV, TensorBoard, trainer_state.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from smdlens.containers.json_header import read_json
from smdlens.errors import SnapshotError
from smdlens.snapshots.metric_records import Axis, MetricLog, bad_metrics, column
from smdlens.snapshots.metrics_csv import read_metrics_csv
from smdlens.snapshots.metrics_events import event_files, is_event_file, read_event_files

_KINDS = "a CSV file, a TensorBoard event file or its folder, or a trainer_state.json"
# What every entry of log_history carries beside its metrics.
_PLACES = ("step", "epoch")


def read_metrics(path: Path) -> MetricLog:
    """Reads a log; the kind is told by its name and first bytes.

    Raises:
        InputError: It cannot be read, is damaged, or holds no number.
    """
    if path.is_dir():
        files = event_files(path)
        if not files:
            raise bad_metrics(
                str(path), "no log is in this folder", _KINDS, "no event file", "Name the file."
            )
        log = read_event_files(path, files)
    elif path.suffix.lower() == ".json":
        log = _read_trainer_state(path)
    elif path.exists() and is_event_file(path):
        log = read_event_files(path, [("", path)])
    else:
        log = read_metrics_csv(path)
    if not log.columns:
        raise bad_metrics(
            str(path), "no number was logged", _KINDS, "none", "Check the path given to --metrics."
        )
    return log


def _read_trainer_state(path: Path) -> MetricLog:
    expected = "Trainer's trainer_state.json with a list log_history"
    try:
        state = read_json(str(path), allow_nan=True)
    except SnapshotError as error:
        found = f"{error.message}{', ' + error.found if error.found else ''}"
        raise bad_metrics(
            str(path), "the log cannot be read", expected, found, "Check the file."
        ) from error
    history = state.get("log_history") if isinstance(state, Mapping) else None
    if not isinstance(history, list):
        raise bad_metrics(
            str(path), "no log is in it", expected, type(state).__name__, "Check the file."
        )
    entries = [entry for entry in history if isinstance(entry, Mapping)]
    axis: Axis = "steps" if any("step" in entry for entry in entries) else "epochs"
    key = axis.removesuffix("s")
    found_: dict[str, dict[float, float]] = {}
    for entry in entries:
        at = _number(entry.get(key))
        if at is None or at < 0.0:
            continue
        for name, value in entry.items():
            number = _number(value)
            if name not in _PLACES and number is not None:
                found_.setdefault(str(name), {})[at] = number
    columns = tuple(column(name, axis, points) for name, points in found_.items())
    return MetricLog(str(path), "trainer_state.json", columns)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Integers of JSON have no limit; nothing logged is that large.
    return float(value) if -1e300 < value < 1e300 else None
