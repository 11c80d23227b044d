"""Shapes and small constants of TensorFlow's protobuf messages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smdlens.containers.protobuf import ProtobufError, fields, raw, varint, whole
from smdlens.symmetry.model_graph import Shape

_SMALL = 1 << 16  # elements of a constant that is kept
_DTYPES: Mapping[int, str] = {
    1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "?", 19: "<f2",
    22: "<u4", 23: "<u8",
}  # fmt: skip
# Field of the values of a constant that are spelled out, and how one is stored.
_SPELLED = {1: (5, "<f4"), 2: (6, "<f8"), 3: (7, ""), 4: (7, ""), 5: (7, ""), 6: (7, ""),
            9: (10, ""), 10: (11, "")}  # fmt: skip
OpenShape = tuple[int, ...] | None  # -1: any size; None: any rank


def require(holds: bool, what: str) -> None:
    """ProtobufError unless something holds."""
    if not holds:
        raise ProtobufError(what)


def signed(number: int) -> int:
    """A number that may be negative."""
    return number - (1 << 64) if number >> 63 else number


def repeated(data: bytes, number: int) -> Iterator[int]:
    """Whole numbers of a repeated field, packed or one by one."""
    for n, value in fields(data):
        if n == number and isinstance(value, int):
            yield signed(value)
        elif n == number:
            at, packed = 0, raw(value)
            while at < len(packed):
                item, at = varint(packed, at)
                yield signed(item)


def open_shape(data: bytes) -> OpenShape:
    """A TensorShapeProto."""
    sizes = []
    for number, value in fields(data):
        if number == 3 and value:
            return None
        if number == 2:
            sizes.append(next((signed(whole(v)) for n, v in fields(raw(value)) if n == 1), 0))
    return tuple(sizes)


def small_tensor(data: bytes) -> tuple[int, Shape, NDArray[Any] | None]:
    """Type, shape and small content of a TensorProto; the last number spelled out repeats."""
    parts = dict(fields(data))
    kind = whole(parts.get(1, 0))
    shape = open_shape(raw(parts.get(2, b""))) or ()
    count = math.prod(shape)
    if min(shape, default=0) < 0 or len(shape) > 32:
        raise ProtobufError("a constant of an impossible shape")
    if kind not in _DTYPES or not 0 < count <= _SMALL:
        return kind, shape, None
    dtype = np.dtype(_DTYPES[kind])
    content = raw(parts.get(4, b""))
    if content:
        require(len(content) == count * dtype.itemsize, "a constant of another size")
        return kind, shape, np.frombuffer(content, dtype).reshape(shape)
    if kind not in _SPELLED:
        return kind, shape, None
    number, stored = _SPELLED[kind]
    if stored:
        spelled = b"".join(raw(v) for n, v in fields(data) if n == number)
        require(len(spelled) % dtype.itemsize == 0, "a number that is cut")
        values: NDArray[Any] = np.frombuffer(spelled, stored)
    else:
        values = np.asarray(list(repeated(data, number)), dtype=np.int64)
    require(values.size <= count, "more numbers than elements")
    if values.size == 0:
        return kind, shape, np.zeros(shape, dtype)
    filled = np.concatenate([values, np.full(count - values.size, values[-1], values.dtype)])
    return kind, shape, filled.astype(dtype).reshape(shape)
