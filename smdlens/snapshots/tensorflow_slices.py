"""Variables that TensorFlow saved in partitions: each slice is an entry under a key of its own.

Slices from tensorflow/core/framework/tensor_slice.proto; their keys are numbers and names in the
order-preserving encoding of tensorflow/core/lib/strings/ordered_code.h.
"""

from __future__ import annotations

from smdlens.containers.protobuf import ProtobufError, fields, raw, whole

Extents = list[tuple[int, int]]
_WHOLE = -1
_SIGNED = 1 << 63


def slice_extents(data: bytes) -> Extents:
    """(start, length) along each axis of a slice, length -1 for all of an axis."""
    found: Extents = []
    for number, item in fields(data):
        if number == 1:
            extent = dict(fields(raw(item)))
            start, length = whole(extent.get(1, 0)), extent.get(2)
            found.append((_signed(start), _WHOLE if length is None else _signed(whole(length))))
    return found


def slice_key(name: str, extents: Extents) -> bytes:
    """The key under which a slice of a variable lies."""
    key = _number(0) + _text(name.encode()) + _number(len(extents))
    return key + b"".join(_signed_number(n) for pair in extents for n in pair)


def slice_box(extents: Extents, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """First index and shape of a slice; raises ProtobufError where it leaves the variable."""
    if len(extents) != len(shape):
        raise ProtobufError("a slice of another rank than its variable")
    corner = tuple(start if length != _WHOLE else 0 for start, length in extents)
    sizes = tuple(
        n if length == _WHOLE else length for (_, length), n in zip(extents, shape, strict=True)
    )
    if any(a < 0 or b < 0 or a + b > n for a, b, n in zip(corner, sizes, shape, strict=True)):
        raise ProtobufError("a slice beyond its variable")
    return corner, sizes


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= _SIGNED else value


def _number(value: int) -> bytes:
    """Bytes of the number, after how many they are."""
    nbytes = (value.bit_length() + 7) // 8
    return bytes([nbytes]) + value.to_bytes(nbytes, "big")


def _text(data: bytes) -> bytes:
    escaped = {0: b"\0\xff", 255: b"\xff\0"}
    return b"".join(escaped.get(byte, bytes([byte])) for byte in data) + b"\0\1"


def _signed_number(value: int) -> bytes:
    """Seven bits a byte, after as many leading ones (zeros, where negative) as there are bytes."""
    size = (value if value >= 0 else ~value).bit_length()
    nbytes = size // 7 + 1
    # Ones flip the copies of the sign that would stand there.
    ones = ((1 << nbytes) - 1) << (7 * nbytes)
    return ((value & ((1 << (8 * nbytes)) - 1)) ^ ones).to_bytes(nbytes, "big")
