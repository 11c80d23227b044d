"""Values of a checkpoint that are not weights: numbers out of tensors, foreign objects as data."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from smdlens.containers.files import FileStamp, RegularFile, open_regular
from smdlens.containers.inert_values import (
    InlineArray,
    InlineBytes,
    NumpyDtype,
    Opaque,
    OpaqueGlobal,
    PickledTensor,
    TorchDtype,
)
from smdlens.containers.limits import Limits
from smdlens.containers.pickle_numpy import array_values
from smdlens.containers.shim import Shim
from smdlens.errors import SnapshotError
from smdlens.snapshots.extent_bytes import read_extent
from smdlens.snapshots.records import Extent, TensorRef
from smdlens.snapshots.resolve import is_tensor, tensor_ref

_FORMATS = {
    "float64": "<d", "float32": "<f", "float16": "<e", "int64": "<q", "int32": "<i",
    "int16": "<h", "int8": "<b", "uint8": "<B", "uint16": "<H", "uint32": "<I",
    "uint64": "<Q", "bool": "<?",
}  # fmt: skip
_SMALL_BYTES = 64


class ScalarReader:
    """Reads single numbers out of tensors on disk; keeps the files it needs open meanwhile."""

    def __init__(self, stamps: Mapping[str, FileStamp]) -> None:
        self._stamps = stamps
        self._files: dict[str, RegularFile] = {}

    def __enter__(self) -> ScalarReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files.values():
            file.close()

    def number(self, value: Any) -> int | float | bool | None:
        """A Python number for a number or one-element tensor; None for anything else."""
        if type(value) is int or type(value) is float or type(value) is bool:
            return value
        if not is_tensor(value):
            return None
        ref = tensor_ref("", value)
        if ref.numel != 1:
            return None
        return self._decode(ref.dtype, self._bytes(ref.extents[0]))

    def _bytes(self, extent: Extent) -> bytes:
        file = self._files.get(extent.path)
        if file is None:
            file = self._files[extent.path] = open_regular(extent.path)
            file.check_unchanged(self._stamps.get(extent.path))
        return read_extent(file, extent, _SMALL_BYTES)

    @staticmethod
    def _decode(dtype: str, raw: bytes) -> int | float | bool | None:
        if dtype == "bfloat16":
            return float(struct.unpack("<f", b"\0\0" + raw[:2])[0])
        form = _FORMATS.get(dtype)
        if form is None:
            return None
        value: int | float | bool = struct.unpack_from(form, raw)[0]
        return value


class PlainConverter:
    """Copies a raw tree into plain dicts, lists, strings and numbers, within a budget.

    Tensors of one element become numbers, larger ones are left out; objects of unknown classes
    become the dict of their state. Shared and cyclic structures are cut by depth and budget.
    """

    def __init__(self, numbers: ScalarReader, limits: Limits) -> None:
        self._numbers = numbers
        self._limits = limits
        self._left = limits.plain_values

    def convert(self, value: Any, depth: int = 0) -> Any:
        """The plain copy of a value; None where there is none."""
        self._left -= 1
        if self._left < 0 or depth > self._limits.plain_depth:
            return None
        kind = type(value)
        if kind in (str, int, float, bool, type(None)):
            return value
        if kind is dict:
            return self._dict(value, depth)
        if kind in (list, tuple, set, frozenset):
            return self._sequence(value, kind, depth)
        if kind is PickledTensor or kind is TensorRef:
            try:
                return self._numbers.number(value)
            except SnapshotError:
                return None
        if kind is Opaque:
            return self._object(value, depth)
        if kind is OpaqueGlobal:
            return f"{value.module}.{value.name}"
        if kind is Shim:
            return value.name
        if kind is TorchDtype:
            return f"torch.{value.name}"
        if kind is InlineArray:
            return self._array(value, depth)
        if kind is complex:
            return [value.real, value.imag]
        if kind is bytes:
            return value.decode("latin-1") if len(value) <= self._limits.inline_bytes else None
        if kind is InlineBytes and value.data is not None:
            return value.data.decode("latin-1")
        if kind is NumpyDtype:
            return value.code
        return None

    def _dict(self, value: dict[Any, Any], depth: int) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        for key, item in value.items():
            if self._left < 0:
                break
            if type(key) in (str, int, float, bool, type(None)):
                result[key] = self.convert(item, depth + 1)
            else:
                result[_key_text(key)] = self.convert(item, depth + 1)
        return result

    def _sequence(self, value: Any, kind: type, depth: int) -> Any:
        items = []
        for item in value:
            if self._left < 0:
                break
            items.append(self.convert(item, depth + 1))
        return tuple(items) if kind is tuple else items

    def _object(self, value: Opaque, depth: int) -> Any:
        state = value.state
        if type(state) is tuple and len(state) == 2 and type(state[1]) is dict:
            # The pair (__dict__, slots) of a class with __slots__.
            state = self._merged(state[0] if type(state[0]) is dict else {}, state[1])
        if type(state) is dict:
            return self._dict(self._merged(state, value.entries), depth)
        if value.entries is not None:
            return self._dict(value.entries, depth)
        if value.items is not None:
            return self._sequence(value.items, list, depth)
        if len(value.args) == 1:  # an enum member is its class called with its value
            return self.convert(value.args[0], depth + 1)
        if value.args:
            return self._sequence(value.args, list, depth)
        return f"{value.module}.{value.name}"

    def _merged(self, first: dict[Any, Any], second: dict[Any, Any] | None) -> dict[Any, Any]:
        if not second:
            return first
        self._left -= len(first) + len(second)
        return {**first, **second} if self._left >= 0 else {}

    def _array(self, value: InlineArray, depth: int) -> Any:
        values = array_values(value, self._limits)
        if values is None or len(values) > self._left:
            return None
        self._left -= len(values)
        return values[0] if value.shape == () and len(values) == 1 else values


def _key_text(key: Any) -> str:
    """A short text for a dict key that is not plain; never the text of what it holds."""
    if type(key) is tuple:
        return "/".join(str(part)[:100] for part in key if type(part) in (str, int))
    if type(key) in (Opaque, OpaqueGlobal):
        return f"{key.module}.{key.name}"[:200]
    return type(key).__name__
