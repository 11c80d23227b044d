"""Sorted tables of keys and values (.index files of TensorFlow), as LevelDB lays them out.

Layout from LevelDB's `doc/table_format.md`: data blocks, an index block of handles to them, and a
footer of 48 bytes that ends in a magic number.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from smdlens.containers.files import RegularFile
from smdlens.containers.limits import Limits
from smdlens.containers.protobuf import ProtobufError, varint
from smdlens.errors import (
    SnapshotCorruptError,
    SnapshotTruncatedError,
    SnapshotUnsafeError,
    SnapshotUnsupportedError,
)

MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
FOOTER_BYTES = 48
_TRAILER_BYTES = 5


def is_sorted_table(file: RegularFile) -> bool:
    """Whether a file ends as a table does."""
    return file.size >= FOOTER_BYTES and file.read(file.size - 8, 8) == MAGIC


def read_sorted_table(file: RegularFile, limits: Limits) -> Iterator[tuple[bytes, bytes]]:
    """Every key and value in order.

    Raises:
        SnapshotTruncatedError: No footer.
        SnapshotCorruptError: Blocks or entries that do not fit.
        SnapshotUnsupportedError: Compressed blocks.
        SnapshotUnsafeError: A table longer than `limits.pickle_bytes`.
    """
    if not is_sorted_table(file):
        raise SnapshotTruncatedError(
            "the index has no footer: it was cut short",
            subject=file.path,
            found=f"{file.size} bytes",
            remedy="Wait for the trainer to finish, or copy the checkpoint again.",
        )
    if file.size > limits.pickle_bytes:
        raise SnapshotUnsafeError(
            "the index is too long",
            subject=file.path,
            expected=f"at most {limits.pickle_bytes} bytes",
            found=f"{file.size} bytes",
        )
    left = file.size
    try:
        footer = file.read(file.size - FOOTER_BYTES, FOOTER_BYTES)
        _, at = _handle(footer, 0)
        index, _ = _handle(footer, at)
        for _, value in _entries(_block(file, index)):
            handle, _ = _handle(value, 0)
            # Handles may point at one block again and again: every byte is read once at most.
            left -= handle[1]
            if left < 0:
                raise ProtobufError("blocks that overlap")
            yield from _entries(_block(file, handle))
    except (ProtobufError, struct.error) as error:
        raise SnapshotCorruptError(
            "the index is not a sound table",
            subject=file.path,
            found=str(error),
            remedy="Copy the checkpoint again, or leave it out.",
        ) from error


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = varint(data, at)
    nbytes, at = varint(data, at)
    return (offset, nbytes), at


def _block(file: RegularFile, handle: tuple[int, int]) -> bytes:
    offset, nbytes = handle
    if offset + nbytes + _TRAILER_BYTES > file.size:
        raise ProtobufError("a block that reaches beyond the file")
    if file.read(offset + nbytes, 1) != b"\0":
        raise SnapshotUnsupportedError("a compressed index", subject=file.path)
    return file.read(offset, nbytes)


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(block) < 4:
        raise ProtobufError("a block without its restart points")
    (restarts,) = struct.unpack("<I", block[-4:])
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise ProtobufError("a block without its restart points")
    key = b""
    at = 0
    while at < end:
        shared, at = varint(block, at)
        own, at = varint(block, at)
        nbytes, at = varint(block, at)
        if shared > len(key) or at + own + nbytes > end:
            raise ProtobufError("an entry that reaches beyond its block")
        key = key[:shared] + block[at : at + own]
        at += own
        yield key, block[at : at + nbytes]
        at += nbytes
