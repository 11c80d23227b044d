"""The few messages of an ONNX file that a graph needs, from its protobuf wire format.

Field numbers are those of the ONNX specification (onnx.proto). Tensor data is only kept for small
tensors: shapes, axes and numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from smdlens.errors import GraphError

_SMALL = 4096  # elements
_DTYPES = {1: "<f4", 2: "u1", 3: "i1", 5: "<i2", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2", 11: "<f8"}
FLOATING = frozenset({1, 10, 11, 16})


@dataclass(slots=True)
class OnnxTensor:
    """An initializer or a constant; `value` is None where the tensor is large."""

    name: str
    dims: tuple[int, ...]
    dtype: int
    value: NDArray[np.generic] | None
    is_zero: bool


@dataclass(slots=True)
class OnnxNode:
    """An operator with its inputs and outputs by name ("" for one that is left out)."""

    op: str
    domain: str
    name: str
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    attributes: dict[str, object] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class OnnxGraph:
    """The main graph of a file."""

    nodes: list[OnnxNode] = field(default_factory=list)
    initializers: dict[str, OnnxTensor] = field(default_factory=dict)
    inputs: dict[str, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    types: dict[str, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    functions: int = 0


Field = tuple[int, int, "int | bytes"]


def fields(data: bytes) -> Iterator[Field]:
    """(number, wire type, value) of each field of a message.

    Raises:
        GraphError: The bytes are no protobuf message.
    """
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        value: int | bytes
        if kind == 0:
            value, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, at = data[at : at + size], at + size
        elif kind == 2:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            raise _broken()
        if at > end or number == 0:
            raise _broken()
        yield number, kind, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise _broken()
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7


def _broken() -> GraphError:
    return GraphError("the file is no ONNX model", expected="a protobuf message")


def _text(value: int | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _blob(value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    raise _broken()


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _integers(kind: int, value: int | bytes) -> Iterator[int]:
    """Values of a repeated integer field, packed or not."""
    if kind == 0 and isinstance(value, int):
        yield _signed(value)
        return
    data, at = _blob(value), 0
    while at < len(data):
        item, at = _varint(data, at)
        yield _signed(item)


def read_model(data: bytes) -> OnnxGraph:
    """The main graph of a serialised ModelProto.

    Raises:
        GraphError: It is none.
    """
    graph: OnnxGraph | None = None
    functions = 0
    for number, _, value in fields(data):
        if number == 7:
            graph = _graph(_blob(value))
        elif number == 25:
            functions += 1
    if graph is None:
        raise GraphError("the file holds no graph", expected="an ONNX model")
    graph.functions = functions
    return graph


def _graph(data: bytes) -> OnnxGraph:
    graph = OnnxGraph()
    for number, _, value in fields(data):
        if number == 1:
            graph.nodes.append(_node(_blob(value)))
        elif number == 5:
            tensor = _tensor(_blob(value))
            graph.initializers[tensor.name] = tensor
        elif number in (11, 12, 13):
            name, described = _value_info(_blob(value))
            if described is not None:
                graph.types[name] = described
            if number == 11 and described is not None:
                graph.inputs[name] = described
            if number == 12:
                graph.outputs.append(name)
    return graph


def _node(data: bytes) -> OnnxNode:
    node = OnnxNode("", "", "")
    for number, _, value in fields(data):
        if number == 1:
            node.inputs.append(_text(value))
        elif number == 2:
            node.outputs.append(_text(value))
        elif number == 3:
            node.name = _text(value)
        elif number == 4:
            node.op = _text(value)
        elif number == 5:
            name, attribute = _attribute(_blob(value))
            node.attributes[name] = attribute
        elif number == 7:
            node.domain = _text(value)
        elif number == 9:
            entry = {n: _text(v) for n, _, v in fields(_blob(value))}
            node.metadata[entry.get(1, "")] = entry.get(2, "")
    return node


def _attribute(data: bytes) -> tuple[str, object]:
    name = ""
    result: object = None
    integers: list[int] = []
    floats: list[float] = []
    for number, kind, value in fields(data):
        if number == 1:
            name = _text(value)
        elif number == 2:
            result = struct.unpack("<f", _blob(value))[0]
        elif number == 3 and isinstance(value, int):
            result = _signed(value)
        elif number == 4:
            result = _text(value)
        elif number == 5:
            result = _tensor(_blob(value))
        elif number == 6:
            result = "graph"
        elif number == 7:
            raw = _blob(value)
            floats += struct.unpack(f"<{len(raw) // 4}f", raw)
        elif number == 8:
            integers += _integers(kind, value)
    if integers:
        return name, integers
    return name, floats or result


def _tensor(data: bytes) -> OnnxTensor:
    tensor = OnnxTensor("", (), 0, None, False)
    raw: bytes | None = None
    floats: list[bytes] = []
    integers: list[int] = []
    dims: list[int] = []
    for number, kind, value in fields(data):
        if number == 1:
            dims += _integers(kind, value)
        elif number == 2 and isinstance(value, int):
            tensor.dtype = value
        elif number in (4, 10):
            floats.append(_blob(value))
        elif number in (5, 7):
            integers += _integers(kind, value)
        elif number == 8:
            tensor.name = _text(value)
        elif number == 9:
            raw = _blob(value)
    tensor.dims = tuple(dims)
    count = int(np.prod(dims, dtype=np.int64)) if dims else 1
    found = _array(raw, floats, integers, tensor.dtype)
    if found is not None and found.size == count:
        tensor.is_zero = not bool(found.any())
        if count <= _SMALL:
            tensor.value = found.reshape(tensor.dims)
    return tensor


def _array(
    raw: bytes | None, floats: list[bytes], integers: list[int], dtype: int
) -> NDArray[np.generic] | None:
    kind = _DTYPES.get(dtype)
    if kind is None:
        return None
    if raw is not None:
        if len(raw) % np.dtype(kind).itemsize:
            return None
        return np.frombuffer(raw, dtype=kind)
    if floats:
        return np.frombuffer(b"".join(floats), dtype="<f4" if dtype == 1 else "<f8")
    return np.asarray(integers, dtype=np.int64)


def _value_info(data: bytes) -> tuple[str, tuple[int, tuple[int, ...]] | None]:
    name = ""
    described: tuple[int, tuple[int, ...]] | None = None
    for number, _, value in fields(data):
        if number == 1:
            name = _text(value)
        elif number == 2:
            for kind, _, body in fields(_blob(value)):
                if kind == 1:
                    described = _tensor_type(_blob(body))
    return name, described


def _tensor_type(data: bytes) -> tuple[int, tuple[int, ...]] | None:
    dtype = 0
    shape: tuple[int, ...] | None = None
    for number, _, value in fields(data):
        if number == 1 and isinstance(value, int):
            dtype = value
        elif number == 2:
            sizes: list[int] = []
            for kind, _, dimension in fields(_blob(value)):
                if kind == 1:
                    own = [v for n, _, v in fields(_blob(dimension)) if n == 1]
                    if not own or not isinstance(own[0], int):
                        return None  # a named (dynamic) size
                    sizes.append(own[0])
            shape = tuple(sizes)
    return None if shape is None else (dtype, shape)
