"""NumPy arrays inside a pickle as tensors: their bytes stay where they are in the file."""

from __future__ import annotations

import math
from typing import Any

from smdlens.containers.inert_values import InlineArray, Opaque
from smdlens.errors import SnapshotCorruptError, SnapshotUnsupportedError
from smdlens.snapshots.records import DTYPE_BYTES, Extent, Packed, TensorRef

_DTYPES = {
    "f8": "float64", "f4": "float32", "f2": "float16", "c8": "complex64", "c16": "complex128",
    "i8": "int64", "i4": "int32", "i2": "int16", "i1": "int8", "u8": "uint64", "u4": "uint32",
    "u2": "uint16", "u1": "uint8", "b1": "bool",
}  # fmt: skip
_DEEPEST = 64
_MOST_DIMENSIONS = 64
# Arrays up to this size may be settings that an old protocol keeps as text.
_SMALL = 64


class ArrayPlacer:
    """Turns every array of an inert value into a `TensorRef`, each shared one once.

    Args:
        path: The file, for errors.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        # The values are kept beside their results: an id is only good while its owner lives.
        self._done: dict[int, tuple[Any, Any]] = {}

    def place(self, value: Any, name: str = "", depth: int = 0) -> Any:
        """The value with tensors in place of arrays.

        Raises:
            SnapshotCorruptError: An array has more or fewer bytes than its shape says.
            SnapshotUnsupportedError: Big-endian numbers, or bytes kept as text.
        """
        kind = type(value)
        if kind not in (dict, list, tuple, InlineArray, Opaque) or depth > _DEEPEST:
            return value
        if id(value) in self._done:
            return self._done[id(value)][1]
        self._done[id(value)] = (value, value)
        made = self._made(value, name, depth + 1)
        self._done[id(value)] = (value, made)
        return made

    def _made(self, value: Any, name: str, depth: int) -> Any:
        if type(value) is InlineArray:
            return self._array(value, name)
        if type(value) is dict:
            return {k: self.place(v, _joined(name, k), depth) for k, v in value.items()}
        if type(value) is list:
            return [self.place(v, _joined(name, i), depth) for i, v in enumerate(value)]
        if type(value) is tuple:
            return tuple(self.place(v, name, depth) for v in value)
        # MegEngine's tensors are their class with the array as first argument.
        if value.module.startswith("megengine") and value.args:
            first = value.args[0]
            if type(first) is InlineArray:
                return self._array(first, name)
        value.state = self.place(value.state, name, depth)
        return value

    def _array(self, array: InlineArray, name: str) -> Any:
        dtype = _DTYPES.get(array.dtype.code) if array.dtype is not None else None
        if dtype is None or array.dtype is None or len(array.shape) > _MOST_DIMENSIONS:
            return array
        width = DTYPE_BYTES[dtype]
        if array.dtype.order == ">" and width > 1:
            raise SnapshotUnsupportedError(
                f"array {name!r} holds big-endian numbers", subject=self._path
            )
        nbytes = math.prod(array.shape) * width
        shape, place = array.shape, array.place
        if nbytes == 0:
            return TensorRef(name, shape, dtype, ())
        if place is None:
            if nbytes <= _SMALL or not array.data:
                return array
            raise SnapshotUnsupportedError(
                f"the bytes of array {name!r} are kept as text",
                subject=self._path,
                expected="pickle protocol 2 or later",
                remedy="Save it again with protocol=4.",
            )
        # As text, a byte above 127 takes two.
        if not nbytes <= place.nbytes <= (2 if place.text else 1) * nbytes:
            raise SnapshotCorruptError(
                f"array {name!r} has another size than its shape says",
                subject=self._path,
                expected=f"{nbytes} bytes",
                found=f"{place.nbytes} bytes at offset {place.offset}",
                remedy="Copy the checkpoint again, or leave it out.",
            )
        packed = Packed(place.nbytes, ("latin-1",), nbytes) if place.text else None
        extents = (Extent(place.path, place.offset, nbytes, packed),)
        strides = None
        if array.fortran and len(shape) > 1:
            strides = tuple(math.prod(shape[:axis]) for axis in range(len(shape)))
        return TensorRef(name, shape, dtype, extents, strides)


def _joined(name: str, key: Any) -> str:
    text = str(key) if type(key) in (str, int) else "?"
    return f"{name}.{text}" if name else text
