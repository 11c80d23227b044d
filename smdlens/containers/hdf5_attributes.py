"""Attributes of HDF5 objects: text, numbers and short lists of them.

Layouts from the HDF5 File Format Specification, version 3.0: IV.A.2.m (attribute message),
IV.A.2.v (attribute info), III.E (global heap).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping

from smdlens.containers.hdf5_headers import Message
from smdlens.containers.hdf5_links import FractalHeap, RecordTree
from smdlens.containers.hdf5_types import (
    UNDEFINED,
    Cursor,
    Datatype,
    Hdf5FormatError,
    parse_dataspace,
    parse_datatype,
)

Value = str | int | float | list[str] | None
_ATTRIBUTE, _INFO = 0x0C, 0x15
_MOST_VALUES = 1_000_000
_NUMBERS = {
    "int8": "<b", "int16": "<h", "int32": "<i", "int64": "<q", "uint8": "<B", "uint16": "<H",
    "uint32": "<I", "uint64": "<Q", "float16": "<e", "float32": "<f", "float64": "<d", "bool": "<?",
}  # fmt: skip


class AttributeReader:
    """Reads the attributes of objects; text of variable length comes from the global heap.

    Args:
        read: Bytes at an address of the file.
        charge: Pays for one attribute.
        longest: Longest text.
    """

    def __init__(
        self, read: Callable[[int, int], bytes], charge: Callable[[], None], longest: int
    ) -> None:
        self._read = read
        self._charge = charge
        self._longest = longest
        self._heaps: dict[int, Mapping[int, tuple[int, int]]] = {}

    def read(self, messages: list[Message]) -> dict[str, Value]:
        """Attributes by name; values that are neither text nor a number are None."""
        found: dict[str, Value] = {}
        for message in messages:
            if message.kind == _ATTRIBUTE and not message.shared:
                self._one(Cursor(message.body), found)
            elif message.kind == _INFO:
                cursor = Cursor(message.body)
                cursor.take(1)
                cursor.take(2 if cursor.number(1) & 1 else 0)
                heap, names = cursor.number(8), cursor.number(8)
                if heap != UNDEFINED and names != UNDEFINED:
                    objects = FractalHeap(self._read, heap)
                    for record in RecordTree(self._read, self._charge).records(names):
                        if not record[8] & 2:  # a message shared between objects
                            self._one(Cursor(objects.object(record[:8])), found)
        return found

    def _one(self, cursor: Cursor, found: dict[str, Value]) -> None:
        self._charge()
        version, flags = cursor.number(1), cursor.number(1)
        sizes = cursor.number(2), cursor.number(2), cursor.number(2)
        if version not in (1, 2, 3):
            raise Hdf5FormatError(f"an attribute of version {version}")
        if version == 3:
            cursor.take(1)
        padded = version == 1
        name, kind, space = (cursor.take(-(-n // 8) * 8 if padded else n) for n in sizes)
        text = name[: sizes[0]].rstrip(b"\0").decode("utf-8", "replace")
        if version > 1 and flags & 3:  # its type or shape is kept elsewhere
            found[text] = None
            return
        datatype = parse_datatype(Cursor(kind))
        shape = parse_dataspace(Cursor(space))
        found[text] = None if shape is None else self._value(cursor, datatype, shape)

    def _value(self, cursor: Cursor, datatype: Datatype, shape: tuple[int, ...]) -> Value:
        count = math.prod(shape)
        if datatype.name in _NUMBERS:
            if count != 1:
                return None
            raw = cursor.take(datatype.size)
            number: int | float = struct.unpack(_NUMBERS[datatype.name], raw)[0]
            return number
        if datatype.name not in ("string", "vlen string"):
            return None
        if count > min(_MOST_VALUES, len(cursor.data)):
            raise Hdf5FormatError(f"an attribute of {count} texts")
        texts = [self._text(cursor, datatype) for _ in range(count)]
        return texts[0] if shape == () else texts

    def _text(self, cursor: Cursor, datatype: Datatype) -> str:
        self._charge()
        raw = cursor.take(datatype.size)
        if datatype.name == "vlen string":
            place = Cursor(raw)
            length, heap, index = place.number(4), place.number(8), place.number(4)
            raw = self._heap_object(heap, index)[:length] if length else b""
        return raw.rstrip(b"\0").decode("utf-8", "replace")

    def _heap_object(self, address: int, index: int) -> bytes:
        if address not in self._heaps:
            self._heaps[address] = dict(self._heap(address))
        place = self._heaps[address].get(index)
        if place is None or place[1] > self._longest:
            raise Hdf5FormatError("a text that is not where its heap should have it")
        return self._read(*place)

    def _heap(self, address: int) -> list[tuple[int, tuple[int, int]]]:
        head = Cursor(self._read(address, 16))
        head.expect(b"GCOL", 1)
        head.take(3)
        at, end = address + 16, address + head.number(8)
        found = []
        while at + 16 <= end:
            self._charge()
            entry = Cursor(self._read(at, 16))
            index = entry.number(2)
            entry.take(6)
            size = entry.number(8)
            if index == 0:
                break
            found.append((index, (at + 16, size)))
            at += 16 + -(-size // 8) * 8
        return found
