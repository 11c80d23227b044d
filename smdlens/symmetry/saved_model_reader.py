"""The few messages of a saved_model.pb that a graph needs, from their protobuf wire format.

Field numbers are those of TensorFlow's saved_model, meta_graph, graph, function, op_def, node_def,
attr_value, tensor and saved_object_graph messages. Functions are looked into when they are called.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from smdlens.containers.protobuf import ProtobufError, fields, raw, text, whole
from smdlens.symmetry.model_graph import Shape
from smdlens.symmetry.saved_model_objects import TfVariable, variables_of
from smdlens.symmetry.saved_model_tensor import (
    OpenShape,
    open_shape,
    repeated,
    require,
    signed,
    small_tensor,
)

MOST_NODES = 400_000
FLOATING = frozenset({1, 2, 14, 19})


class TfNode:
    """One operator of a graph or function."""

    __slots__ = ("attributes", "inputs", "name", "op")

    def __init__(self, data: bytes) -> None:
        self.name = self.op = ""
        self.inputs: list[str] = []
        self.attributes: dict[str, bytes] = {}
        for number, value in fields(data):
            if number == 1:
                self.name = text(value)
            elif number == 2:
                self.op = text(value)
            elif number == 3:
                self.inputs.append(text(value))
            elif number == 5:
                key, content = _entry(value)
                self.attributes[key] = content

    def _field(self, name: str, number: int) -> int | bytes | None:
        found = self.attributes.get(name)
        if found is None:
            return None
        return next((value for n, value in fields(found) if n == number), None)

    def integer(self, name: str, default: int) -> int:
        """A whole number or type."""
        for number in (3, 6):
            value = self._field(name, number)
            if value is not None:
                return signed(whole(value))
        return default

    def number(self, name: str, default: float) -> float:
        """A float."""
        value = self._field(name, 4)
        return default if value is None else float(struct.unpack("<f", raw(value))[0])

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean."""
        value = self._field(name, 5)
        return default if value is None else bool(whole(value))

    def text(self, name: str, default: str = "") -> str:
        """A text."""
        value = self._field(name, 2)
        return default if value is None else text(value)

    def integers(self, name: str) -> list[int]:
        """A list of whole numbers."""
        value = self._field(name, 1)
        return [] if value is None else list(repeated(raw(value), 3))

    def shape(self, name: str) -> OpenShape:
        """A shape; None where it is missing."""
        value = self._field(name, 7)
        return None if value is None else open_shape(raw(value))

    def shapes(self, name: str) -> list[OpenShape]:
        """A list of shapes."""
        value = self._field(name, 1)
        return (
            [] if value is None else [open_shape(raw(v)) for n, v in fields(raw(value)) if n == 7]
        )

    def function(self, name: str) -> str:
        """Name of a function."""
        value = self._field(name, 10)
        if value is None:
            return ""
        return next((text(v) for n, v in fields(raw(value)) if n == 1), "")

    def tensor(self, name: str) -> tuple[int, Shape, NDArray[Any] | None]:
        """Type, shape and, if small, the numbers of a constant."""
        value = self._field(name, 8)
        return (0, (), None) if value is None else small_tensor(raw(value))

    def texts(self, name: str) -> list[str]:
        """The elements of a constant of text."""
        value = self._field(name, 8)
        return [] if value is None else [text(v) for n, v in fields(raw(value)) if n == 8]


@dataclass(frozen=True, slots=True)
class TfFunction:
    """A function: names of its arguments, its operators, and what each result is called inside."""

    arguments: tuple[str, ...]
    nodes: Mapping[str, TfNode]
    results: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SavedProgram:
    """One program: its operators, functions by name (not yet read), signatures, variables."""

    nodes: Mapping[str, TfNode]
    functions: Mapping[str, bytes]
    signatures: Mapping[str, tuple[tuple[str, int], ...]]  # outputs: (value, type)
    variables: Mapping[str, TfVariable]  # by checkpoint key


def read_program(data: bytes) -> SavedProgram:
    """The first program of the file.

    Raises:
        ProtobufError: Bytes that are none.
    """
    meta = next((raw(v) for n, v in fields(data) if n == 2), None)
    if meta is None:
        raise ProtobufError("no program in it")
    nodes: dict[str, TfNode] = {}
    functions: dict[str, bytes] = {}
    signatures: dict[str, tuple[tuple[str, int], ...]] = {}
    objects: bytes = b""
    for number, value in fields(meta):
        if number == 2:
            for inner, item in fields(raw(value)):
                if inner == 1:
                    node = TfNode(raw(item))
                    nodes[node.name] = node
                    require(len(nodes) <= MOST_NODES, "too many operators")
                elif inner == 2:
                    for kind, body in fields(raw(item)):
                        if kind == 1:
                            functions[_function_name(raw(body))] = raw(body)
        elif number == 5:
            key, signature = _entry(value)
            signatures[key] = tuple(_outputs(signature))
        elif number == 7:
            objects = raw(value)
    return SavedProgram(nodes, functions, signatures, dict(variables_of(objects)))


def read_function(data: bytes) -> TfFunction:
    """A function of the library."""
    arguments: list[str] = []
    names: list[str] = []
    nodes: dict[str, TfNode] = {}
    inside: dict[str, str] = {}
    for number, value in fields(data):
        if number == 1:
            for inner, item in fields(raw(value)):
                if inner in (2, 3):
                    name = next((text(v) for n, v in fields(raw(item)) if n == 1), "")
                    (arguments if inner == 2 else names).append(name)
        elif number == 3:
            node = TfNode(raw(value))
            nodes[node.name] = node
            require(len(nodes) <= MOST_NODES, "too many operators")
        elif number == 4:
            key, content = _pair(value)
            inside[key] = text(content)
    return TfFunction(tuple(arguments), nodes, tuple(inside[name] for name in names))


def _function_name(data: bytes) -> str:
    signature = next((raw(v) for n, v in fields(data) if n == 1), b"")
    return next((text(v) for n, v in fields(signature) if n == 1), "")


def _outputs(data: bytes) -> Iterator[tuple[str, int]]:
    found = [_entry(value) for number, value in fields(data) if number == 2]
    for _, info in sorted(found):
        parts = dict(fields(info))
        yield text(parts.get(1, b"")), whole(parts.get(2, 0))


def _pair(value: int | bytes) -> tuple[str, int | bytes]:
    parts = dict(fields(raw(value)))
    return text(parts.get(1, b"")), parts.get(2, b"")


def _entry(value: int | bytes) -> tuple[str, bytes]:
    key, content = _pair(value)
    return key, raw(content)
