"""numpy scalars and small arrays whose bytes lie in the pickle itself."""

from __future__ import annotations

import struct
from typing import Any

from smdlens.containers.inert_values import InlineArray, InlineBytes, NumpyDtype
from smdlens.containers.limits import Limits
from smdlens.containers.shim import Budget, integers

_NUMPY_FORMATS = {
    "f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b",
    "u8": "Q", "u4": "I", "u2": "H", "u1": "B", "b1": "?",
}  # fmt: skip


def numpy_dtype(budget: Budget, args: tuple[Any, ...]) -> Any:
    """Shim of numpy.dtype."""
    if type(args[0]) is not str or len(args[0]) > 64:
        raise TypeError("a numpy dtype that is not a short name")
    return NumpyDtype(args[0])


def numpy_scalar(budget: Budget, args: tuple[Any, ...]) -> Any:
    """Shim of multiarray.scalar: a Python number."""
    dtype, raw = args
    raw = raw.data if type(raw) is InlineBytes else raw
    return _decode(dtype, raw, 1)[0]


def numpy_reconstruct(budget: Budget, args: tuple[Any, ...]) -> Any:
    """Shim of multiarray._reconstruct: an empty array that BUILD fills."""
    return InlineArray()


def numpy_frombuffer(budget: Budget, args: tuple[Any, ...]) -> Any:
    """Shim of numeric._frombuffer, the form of protocol 5."""
    data, dtype, shape, order = args
    array = InlineArray()
    array_state(array, (1, shape, dtype, order == "F", data))
    return array


def array_state(array: InlineArray, state: Any) -> None:
    """Fill an array placeholder from `ndarray.__setstate__`'s tuple; data stay undecoded."""
    _, shape, dtype, fortran, data = state
    if type(dtype) is not NumpyDtype:
        raise TypeError("an array without a dtype")
    array.shape, array.dtype, array.fortran = integers(shape), dtype, bool(fortran)
    array.place = data if type(data) is InlineBytes else None
    held = array.place.data if array.place is not None else data
    array.data = held if type(held) is bytes else b""


def array_values(array: InlineArray, limits: Limits) -> list[Any] | None:
    """The elements of a small inline array in storage order; None where it is not decoded."""
    if array.dtype is None or len(array.data) > limits.inline_bytes:
        return None
    form = _NUMPY_FORMATS.get(array.dtype.code)
    if form is None or len(array.data) % struct.calcsize(form):
        return None
    return list(_decode(array.dtype, array.data, len(array.data) // struct.calcsize(form)))


def _decode(dtype: Any, raw: Any, count: int) -> tuple[Any, ...]:
    if type(dtype) is not NumpyDtype or type(raw) is not bytes:
        raise TypeError("a numpy value without dtype or bytes")
    form = _NUMPY_FORMATS.get(dtype.code)
    if form is None:
        return (None,) * min(count, 1)
    return struct.unpack(f"{dtype.order}{count}{form}", raw)
