"""Scalars of TensorBoard's event files, without TensorBoard.

Field numbers from TensorBoard's event.proto, summary.proto and tensor.proto.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path

from smdlens.containers.files import RegularFile, reading
from smdlens.containers.protobuf import ProtobufError, fields, raw, text, whole
from smdlens.containers.tfrecord import is_tfrecord, records, whole_bytes
from smdlens.errors import SnapshotError
from smdlens.snapshots.metric_records import MetricLog, bad_metrics, column

_NAME = "tfevents"
# Scalars are short; longer records hold images, audio or graphs and are stepped over.
_LONGEST = 1 << 16
# Bytes per element and format of the numeric dtypes of types.proto.
_FORMATS = {1: "<f", 2: "<d", 3: "<i", 9: "<q", 19: "<e"}
_BFLOAT16 = 14
# Where tensor.proto keeps single values, by field: float, double, int32, int64.
_FLOAT_VALUES, _DOUBLE_VALUES, _INTEGER_VALUES = 5, 6, (7, 10)
_MOST_STEP = 1 << 62
_REMEDY = "Give one run's event file, or the folder that holds it."


def event_files(folder: Path) -> list[tuple[str, Path]]:
    """(prefix of its tags, file) of a log folder: its own files, else its sub-folders' ones."""
    own = sorted(p for p in folder.iterdir() if _NAME in p.name)
    if own:
        return [("", path) for path in own]
    below = sorted(p for d in folder.iterdir() if d.is_dir() for p in d.iterdir())
    return [(f"{p.parent.name}/", p) for p in below if _NAME in p.name]


def is_event_file(path: Path) -> bool:
    """Whether a file's name or first bytes are those of an event file."""
    if _NAME in path.name:
        return True
    try:
        with reading(path) as file:
            return is_tfrecord(file)
    except SnapshotError:
        return False


def read_event_files(path: Path, files: list[tuple[str, Path]]) -> MetricLog:
    """Every scalar tag; of two values at one step the later one counts.

    Keras' tags that start with `epoch_` count epochs from 0.

    Args:
        path: As given, for errors.
        files: (prefix of its tags, file), in order of writing.

    Raises:
        InputError: A file cannot be read, is damaged, or none holds a scalar.
    """
    found: dict[str, dict[float, float]] = {}
    notes = []
    for prefix, each in files:
        try:
            with reading(each) as file:
                for step, tag, value in _scalars(file):
                    found.setdefault(prefix + tag, {})[float(step)] = value
                if whole_bytes(file) < file.size:
                    notes.append(f"{each.name} ends inside a record: what is before it counts")
        except (SnapshotError, ProtobufError) as error:
            what = error.message if isinstance(error, SnapshotError) else str(error)
            where = error.found if isinstance(error, SnapshotError) else None
            raise bad_metrics(
                str(each),
                "the event file cannot be used",
                "a TensorBoard event file",
                f"{what}, {where}" if where else what,
                "Copy it again from where it was written, or export the metric as CSV.",
            ) from error
    if not found:
        what = f"{len(files)} event files without one"
        raise bad_metrics(str(path), "no scalar was logged", "scalar summaries", what, _REMEDY)
    columns = []
    for tag, points in found.items():
        by_epoch = tag.rsplit("/", 1)[-1].startswith("epoch_")
        shifted = {at + 1.0: value for at, value in points.items()} if by_epoch else points
        columns.append(column(tag, "epochs" if by_epoch else "steps", shifted))
    return MetricLog(str(path), "TensorBoard", tuple(columns), tuple(notes))


def _scalars(file: RegularFile) -> Iterator[tuple[int, str, float]]:
    """(step, tag, value) of every finite scalar."""
    if not is_tfrecord(file) and file.size:
        raise ProtobufError("bytes that are no record of one")
    for record in records(file):
        if record.nbytes > _LONGEST:
            continue
        data = record.data()
        record.check(data)
        step, summaries = 0, []
        for number, value in fields(data):
            if number == 2:
                step = whole(value)
            elif number == 5:
                summaries.append(raw(value))
        for summary in summaries:
            for number, value in fields(summary):
                if number == 1 and (scalar := _scalar(raw(value))) is not None:
                    tag, measured = scalar
                    if step < _MOST_STEP and math.isfinite(measured):
                        yield step, tag, measured


def _scalar(message: bytes) -> tuple[str, float] | None:
    tag, value = "", None
    for number, content in fields(message):
        if number == 1:
            tag = text(content)
        elif number == 2 and len(simple := raw(content)) == 4:
            (value,) = struct.unpack("<f", simple)
        elif number == 8:
            value = _tensor(raw(content))
    return None if value is None or not tag else (tag, value)


def _tensor(message: bytes) -> float | None:
    """The only element of a numeric tensor; None for any other."""
    dtype, found = 0, []
    for number, content in fields(message):
        if number == 1:
            dtype = whole(content)
        elif number == 4:
            found.append(_element(raw(content), dtype))
        elif number == _FLOAT_VALUES:
            found.append(_element(raw(content), 1))
        elif number == _DOUBLE_VALUES:
            found.append(_element(raw(content), 2))
        elif number in _INTEGER_VALUES and isinstance(content, int):
            found.append(float(content - (1 << 64) if content >> 63 else content))
    return found[0] if len(found) == 1 else None


def _element(data: bytes, dtype: int) -> float | None:
    if dtype == _BFLOAT16 and len(data) == 2:
        return float(struct.unpack("<f", b"\0\0" + data)[0])
    form = _FORMATS.get(dtype)
    if form is None or len(data) != struct.calcsize(form):
        return None
    return float(struct.unpack(form, data)[0])
