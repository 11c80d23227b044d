"""The bytes of one extent, unpacked where they are stored compressed: for single small values."""

from __future__ import annotations

from smdlens.containers.files import RegularFile
from smdlens.containers.packed import unpack
from smdlens.snapshots.records import Extent, Packed


def read_extent(file: RegularFile, extent: Extent, most: int | None = None) -> bytes:
    """The first `most` bytes of an extent (all by default).

    Args:
        file: The open file that it lies in.
        extent: The place.
        most: Bytes to return.

    Raises:
        SnapshotError: As `RegularFile.read` and `unpack`.
    """
    nbytes = extent.nbytes if most is None else min(most, extent.nbytes)
    packed = extent.packed
    if packed is None:
        return file.read(extent.offset, nbytes)
    return unpacked_block(file, extent.offset, packed)[packed.skip : packed.skip + nbytes]


def unpacked_block(file: RegularFile, offset: int, packed: Packed) -> bytes:
    """All that a packed block holds, whatever part of it is wanted; errors as `read_extent`."""
    outer = packed.inside
    if outer is None:
        stored = file.read(offset, packed.stored)
    else:
        stored = unpacked_block(file, offset, outer)[outer.skip : outer.skip + packed.stored]
    return unpack(stored, packed.filters, packed.unpacked, file.path)
