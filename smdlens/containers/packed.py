"""Undo the filters that bytes went through when they were written, never past their known length.

HDF5's filters (File Format Specification 3.0, IV.A.2.l) and zarr's codecs, by one set of names:
`deflate`, `raw-deflate` (without zlib's header), `gzip`, `zstd`, `shuffle:N` (N bytes per element),
`fletcher32` and `crc32c` (four bytes of checksum at the end), `big-endian:N`; `blosc`;
`latin-1`, a character of UTF-8 for each byte.
"""

from __future__ import annotations

import zlib

from smdlens.containers.blosc import BloscError, unpack_blosc
from smdlens.errors import SnapshotCorruptError, SnapshotUnsupportedError

ZSTD_INSTALL = 'Install it with: python -m pip install "smdlens[jax]" (or zstandard alone)'
_CHECKSUM = 4
_LARGEST_WINDOW = 1 << 27


def unpack(data: bytes, filters: tuple[str, ...], nbytes: int, subject: str) -> bytes:
    """The bytes as they were before the filters.

    Args:
        data: As stored.
        filters: Names in the order of writing.
        nbytes: How many bytes have to come out.
        subject: The file, for errors.

    Raises:
        SnapshotCorruptError: Another number of bytes comes out, or none.
        SnapshotUnsupportedError: A filter that is not known, or needs a package that is missing.
    """
    most = nbytes + _CHECKSUM * len(filters)
    for name in reversed(filters):
        kind, _, width = name.partition(":")
        if kind == "deflate":
            data = _inflated(data, most, subject, zlib.MAX_WBITS)
        elif kind == "raw-deflate":
            data = _inflated(data, most, subject, -zlib.MAX_WBITS)
        elif kind == "gzip":
            data = _inflated(data, most, subject, zlib.MAX_WBITS | 16)
        elif kind == "zstd":
            data = unpack_zstd(data, most, subject)
        elif kind == "blosc":
            data = _blosc(data, most, subject)
        elif kind == "latin-1":
            data = _encoded(data, subject)
        elif kind in ("fletcher32", "crc32c"):
            data = data[:-_CHECKSUM]
        elif kind in ("shuffle", "big-endian"):
            data = _reordered(data, int(width), swap=kind == "big-endian")
        else:
            raise SnapshotUnsupportedError(
                "a compression that is not read", subject=subject, found=name[:100]
            )
    if len(data) != nbytes:
        raise _corrupt(subject, f"{nbytes} bytes", f"{len(data)} bytes or more")
    return data


def _inflated(data: bytes, most: int, subject: str, window: int) -> bytes:
    try:
        return zlib.decompressobj(window).decompress(data, most + 1)
    except zlib.error as error:
        raise _corrupt(subject, "compressed bytes", str(error)) from error


def _blosc(data: bytes, most: int, subject: str) -> bytes:
    try:
        return unpack_blosc(data, most, lambda part, size: unpack_zstd(part, size, subject))
    except BloscError as error:
        if error.codec:
            raise SnapshotUnsupportedError(
                "a compression that is not read",
                subject=subject,
                expected="Blosc with LZ4, zlib or Zstandard",
                found=f"Blosc with {error.codec}",
                remedy="Save it with Orbax's defaults.",
            ) from error
        raise _corrupt(subject, "a Blosc chunk", str(error)) from error


def _encoded(data: bytes, subject: str) -> bytes:
    try:
        return data.decode("utf-8").encode("latin-1")
    except UnicodeError as error:
        raise _corrupt(subject, "characters up to 255", str(error)[:100]) from error


def unpack_zstd(data: bytes, most: int, subject: str) -> bytes:
    """Zstandard frames, at most `most` + 1 bytes of what they hold; errors as `unpack`."""
    try:
        import zstandard
    except ImportError as error:
        raise SnapshotUnsupportedError(
            "compressed with Zstandard, which needs the package zstandard",
            subject=subject,
            remedy=ZSTD_INSTALL,
        ) from error
    try:
        opened = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
        with opened.stream_reader(data, read_across_frames=True) as reader:
            parts, left = [], most + 1
            while left > 0 and (part := reader.read(min(left, 1 << 24))):
                parts.append(part)
                left -= len(part)
    except zstandard.ZstdError as error:
        raise _corrupt(subject, "compressed bytes", str(error)[:200]) from error
    return b"".join(parts)


def _reordered(data: bytes, width: int, *, swap: bool) -> bytes:
    """Byte k of every element from where the filter put it; a rest that fills none stays."""
    if width < 2:
        return data
    count = len(data) // width
    result = bytearray(data)
    for k in range(width):
        if swap:
            result[k : count * width : width] = data[width - 1 - k : count * width : width]
        else:
            result[k : count * width : width] = data[k * count : (k + 1) * count]
    return bytes(result)


def _corrupt(subject: str, expected: str, found: str) -> SnapshotCorruptError:
    return SnapshotCorruptError(
        "compressed bytes do not unpack to what the headers say",
        subject=subject,
        expected=expected,
        found=found,
        remedy="Copy the checkpoint again, or leave it out.",
    )
