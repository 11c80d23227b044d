"""Blosc 1 chunks unpacked: the container, LZ4, zlib and Zstandard inside it, and its two shuffles.

Layout from c-blosc 1.21: README_CHUNK_FORMAT.rst and blosc.c; LZ4 from lz4_Block_format.md. Chunks
of its other codecs (BloscLZ, Snappy) are refused by name.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

_HEADER = 16
_BYTES, _COPIED, _BITS, _WHOLE = 1, 2, 4, 0x10
_CODECS = {0: "blosclz", 1: "lz4", 2: "snappy", 3: "zlib", 4: "zstd"}
_MOST_SPLITS, _LEAST_SPLIT = 16, 128
# A byte's bits as the lowest bits of eight bytes.
_SPREAD = [bytes(byte >> bit & 1 for bit in range(8)) for byte in range(256)]
Unpack = Callable[[bytes, int], bytes]


class BloscError(ValueError):
    """Bytes that are no Blosc chunk, or one of a codec that is not read (`codec`)."""

    def __init__(self, found: str, codec: str = "") -> None:
        super().__init__(found)
        self.codec = codec


def unpack_blosc(data: bytes, most: int, zstd: Unpack) -> bytes:
    """What a chunk holds.

    Args:
        data: The chunk.
        most: Bytes it may hold.
        zstd: Unpacks a Zstandard frame to at most so many bytes.

    Raises:
        BloscError: See there.
    """
    if len(data) < _HEADER:
        raise BloscError("a chunk shorter than its header")
    flags, width = data[2], data[3]
    nbytes, block, stored = (int.from_bytes(data[at : at + 4], "little") for at in (4, 8, 12))
    if data[0] != 2 or nbytes > most or stored != len(data) or not width:
        raise BloscError("a header of another version or size")
    if flags & _COPIED:
        return data[_HEADER:]
    if not 0 < block <= max(nbytes, 1):
        raise BloscError(f"blocks of {block} bytes")
    codec = _CODECS.get(flags >> 5, str(flags >> 5))
    unpacked: dict[str, Unpack] = {"lz4": _lz4, "zlib": _zlib, "zstd": zstd}
    if codec not in unpacked:
        raise BloscError(f"the codec {codec}", codec)
    parts = []
    for number in range(-(-nbytes // block)):
        at = int.from_bytes(data[_HEADER + 4 * number : _HEADER + 4 * number + 4], "little")
        size = min(block, nbytes - number * block)
        cut = size == block and not flags & _WHOLE and width <= _MOST_SPLITS
        splits = width if cut and size // width >= _LEAST_SPLIT else 1
        piece = b""
        for _ in range(splits):
            length = int.from_bytes(data[at : at + 4], "little")
            held, at = data[at + 4 : at + 4 + length], at + 4 + length
            if len(held) != length:
                raise BloscError("a block that reaches beyond its chunk")
            wanted = size // splits
            piece += held if length == wanted else unpacked[codec](held, wanted)
        if len(piece) != size:
            raise BloscError("a block of another size than its header says")
        parts.append(_unshuffled(piece, width, flags))
    return b"".join(parts)


def _zlib(data: bytes, nbytes: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, nbytes + 1)
    except zlib.error as error:
        raise BloscError(str(error)) from error


def _lz4(data: bytes, nbytes: int) -> bytes:
    """An LZ4 block: literals, then a match some bytes back, again and again."""
    out = bytearray()
    at = 0
    try:
        while True:
            token = data[at]
            count, at = _length(data, at + 1, token >> 4)
            out += data[at : at + count]
            at += count
            if at >= len(data):
                return bytes(out)
            back = data[at] | data[at + 1] << 8
            count, at = _length(data, at + 2, token & 15)
            count += 4
            if not 0 < back <= len(out) or len(out) + count > nbytes:
                raise BloscError("an LZ4 match outside its block")
            start = len(out) - back
            pattern = bytes(out[start : start + count])
            out += (pattern * (count // len(pattern) + 1))[:count]
    except IndexError as error:
        raise BloscError("an LZ4 block that ends early") from error


def _length(data: bytes, at: int, count: int) -> tuple[int, int]:
    if count == 15:
        while True:
            more = data[at]
            count, at = count + more, at + 1
            if more < 255:
                break
    return count, at


def _unshuffled(data: bytes, width: int, flags: int) -> bytes:
    count = len(data) // width
    if flags & _BITS and count % 8 == 0 and count:
        result = bytearray(data)
        for k in range(width):
            result[k : count * width : width] = _joined_bits(data, k * count, count)
        return bytes(result)
    if not flags & _BYTES or width < 2:
        return data
    result = bytearray(data)
    for k in range(width):
        result[k : count * width : width] = data[k * count : (k + 1) * count]
    return bytes(result)


def _joined_bits(data: bytes, start: int, count: int) -> bytes:
    """One byte of every element from its eight planes of bits, the lowest first."""
    found = 0
    for bit in range(8):
        plane = data[start + bit * count // 8 : start + (bit + 1) * count // 8]
        spread = b"".join([_SPREAD[byte] for byte in plane])
        found |= int.from_bytes(spread, "little") << bit
    return found.to_bytes(count, "little")
