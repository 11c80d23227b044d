"""MXNet's binary arrays: headers and places, nothing of their elements.

Layout from MXNet's sources (src/ndarray/ndarray.cc, NDArray::Save and NDArray::Load): a number that
tells the version, storage type, dimensions, device, type, then the elements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from smdlens.containers.cursor import Cursor
from smdlens.containers.limits import Limits
from smdlens.errors import SnapshotCorruptError, SnapshotUnsafeError, SnapshotUnsupportedError

LIST_MAGIC = 0x112
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_MOST_DIMENSIONS = 32
_LONGEST_NAME = 1 << 12
_TYPES = {
    0: ("float32", 4), 1: ("float64", 8), 2: ("float16", 2), 3: ("uint8", 1), 4: ("int32", 4),
    5: ("int8", 1), 6: ("int64", 8), 7: ("bool", 1), 12: ("bfloat16", 2),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class MxnetArray:
    """An array: shape, dtype and where its elements lie."""

    shape: tuple[int, ...]
    dtype: str
    offset: int
    nbytes: int


def read_list(cursor: Cursor, limits: Limits) -> list[tuple[str, MxnetArray | None]]:
    """Names and arrays of a file of `mx.nd.save`; an array never filled is None.

    Raises:
        SnapshotTruncatedError, SnapshotCorruptError, SnapshotUnsafeError,
        SnapshotUnsupportedError: See the messages.
    """
    if cursor.unsigned(8) != LIST_MAGIC or cursor.unsigned(8) != 0:
        raise _corrupt(cursor, "not a list of arrays")
    arrays = [read_array(cursor) for _ in range(_count(cursor, 4, limits))]
    names = [_name(cursor) for _ in range(_count(cursor, 8, limits))]
    if names and len(names) != len(arrays):
        raise _corrupt(cursor, f"{len(names)} names for {len(arrays)} arrays")
    if len(set(names)) != len(names):
        raise _corrupt(cursor, "a name given twice")
    if cursor.pos != cursor.file.size:
        raise _corrupt(cursor, "bytes behind the last name")
    return list(zip(names or map(str, range(len(arrays))), arrays, strict=True))


def read_array(cursor: Cursor) -> MxnetArray | None:
    """The array at a cursor, which then stands behind it."""
    version = cursor.unsigned(4)
    if version in (_V2, _V3) and cursor.signed(4) != 0:
        raise SnapshotUnsupportedError(
            "a sparse array",
            subject=cursor.file.path,
            expected="dense arrays",
            found=f"another storage type before offset {cursor.pos}",
            remedy="Save it with tostype('default').",
        )
    legacy = version not in (_V1, _V2, _V3)
    dimensions = version if legacy else cursor.signed(4)
    if dimensions < 0 or (dimensions == 0 and version != _V3):
        return None
    if dimensions > _MOST_DIMENSIONS:
        raise _corrupt(cursor, f"an array of {dimensions} dimensions")
    shape = tuple(cursor.unsigned(4 if legacy else 8) for _ in range(dimensions))
    cursor.take(8)  # the device it was on
    code = cursor.unsigned(4)
    if code not in _TYPES:
        raise SnapshotUnsupportedError(
            "an array of a type that is not read",
            subject=cursor.file.path,
            found=f"type {code} before offset {cursor.pos}",
        )
    dtype, width = _TYPES[code]
    nbytes = math.prod(shape) * width
    return MxnetArray(shape, dtype, cursor.skip(nbytes), nbytes)


def _count(cursor: Cursor, nbytes: int, limits: Limits) -> int:
    count = cursor.unsigned(8)
    if count > limits.zip_entries:
        raise SnapshotUnsafeError(
            "too many arrays",
            subject=cursor.file.path,
            expected=f"at most {limits.zip_entries}",
            found=f"{count} before offset {cursor.pos}",
        )
    if not cursor.fits(count, nbytes):
        cursor.skip(count * nbytes)  # says what is missing
    return count


def _name(cursor: Cursor) -> str:
    length = cursor.unsigned(8)
    if length > _LONGEST_NAME:
        raise _corrupt(cursor, f"a name of {length} bytes")
    return cursor.take(length).decode("utf-8", "replace")


def _corrupt(cursor: Cursor, found: str) -> SnapshotCorruptError:
    return SnapshotCorruptError(
        "not a sound file of MXNet's arrays",
        subject=cursor.file.path,
        found=f"{found}, before offset {cursor.pos}",
        remedy="Copy the file again, or leave it out.",
    )
