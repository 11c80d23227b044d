"""Protocol-buffer messages field by field, without a schema.

Wire format from the Protocol Buffers documentation, "Encoding". Nothing is copied that the bytes do
not hold; groups, which no checkpoint uses, are refused.
"""

from __future__ import annotations

from collections.abc import Iterator

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
