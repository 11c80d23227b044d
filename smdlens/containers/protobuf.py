"""Protocol-buffer messages field by field, without a schema.

Wire format from the Protocol Buffers documentation, "Encoding". Nothing is copied that the bytes do
not hold; groups, which no checkpoint uses, are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from smdlens.containers.files import RegularFile

_WINDOW = 1 << 13
_LONGEST_TEXT = 1 << 16
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class ProtobufError(ValueError):
    """Bytes that are no message (internal: readers say in which file)."""


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A base-128 integer of at most 64 bits, and where it ends."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ProtobufError("a number that does not end")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of every field in order: integers as unsigned, the rest as bytes."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        wire = tag & 7
        if wire == _VARINT:
            value, at = varint(data, at)
            yield tag >> 3, value
            continue
        if wire == _BYTES:
            length, at = varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ProtobufError("a field of an unknown kind")
        if length > len(data) - at:
            raise ProtobufError("a field that reaches beyond its message")
        yield tag >> 3, data[at : at + length]
        at += length


def whole(value: int | bytes) -> int:
    """An integer field; ProtobufError for one of another kind."""
    if not isinstance(value, int):
        raise ProtobufError("bytes in place of a number")
    return value


def raw(value: int | bytes) -> bytes:
    """A field of bytes; ProtobufError for one of another kind."""
    if isinstance(value, int):
        raise ProtobufError("a number in place of bytes")
    return value


def text(value: int | bytes) -> str:
    """A field of UTF-8 text; ProtobufError for one of another kind."""
    try:
        return raw(value).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProtobufError("text that is not UTF-8") from error


@dataclass(frozen=True, slots=True)
class Field:
    """One field by its place: `value` for integers, `offset` and `nbytes` for the rest."""

    number: int
    value: int
    offset: int
    nbytes: int


class MessageScanner:
    """Walks over the messages of a file; long fields are stepped over and never read.

    Args:
        file: The file.
        most: Most fields to look at.
    """

    def __init__(self, file: RegularFile, most: int) -> None:
        self.size = file.size
        self._file = file
        self._left = most
        self._window = b""
        self._start = 0

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """Fields of the message at [start, end).

        Raises:
            ProtobufError: Not a message, or one of too many fields.
        """
        at = start
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise ProtobufError("too many fields")
            tag, at = self._varint(at, end)
            wire = tag & 7
            if wire == _VARINT:
                value, at = self._varint(at, end)
                yield Field(tag >> 3, value, at, 0)
                continue
            if wire == _BYTES:
                length, at = self._varint(at, end)
            elif wire in (_FIXED64, _FIXED32):
                length = 8 if wire == _FIXED64 else 4
            else:
                raise ProtobufError("a field of an unknown kind")
            if length > end - at:
                raise ProtobufError("a field that reaches beyond its message")
            yield Field(tag >> 3, 0, at, length)
            at += length

    def text(self, field: Field) -> str:
        """A short field of UTF-8 text."""
        if field.nbytes > _LONGEST_TEXT:
            raise ProtobufError("a text that is too long")
        return text(self._bytes(field.offset, field.nbytes))

    def numbers(self, field: Field) -> list[int]:
        """The integers of a repeated field: one, or several packed together."""
        if not field.nbytes:
            return [field.value]
        if field.nbytes > _LONGEST_TEXT:
            raise ProtobufError("a list of numbers that is too long")
        data = self._bytes(field.offset, field.nbytes)
        found, at = [], 0
        while at < len(data):
            value, at = varint(data, at)
            found.append(value)
        return found

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value, length = varint(self._bytes(at, min(10, end - at)), 0)
        return value, at + length

    def _bytes(self, at: int, nbytes: int) -> bytes:
        start = at - self._start
        if start < 0 or start + nbytes > len(self._window):
            most = max(nbytes, min(_WINDOW, self.size - at))
            self._window, self._start, start = self._file.read(at, most), at, 0
        return self._window[start : start + nbytes]
