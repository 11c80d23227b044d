"""The bytes of one extent, unpacked where they are stored compressed: for single small values."""

from __future__ import annotations

from smdlens.containers.files import RegularFile
from smdlens.containers.packed import unpack
from smdlens.snapshots.records import Extent


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
    stored = file.read(extent.offset, packed.stored)
    whole = unpack(stored, packed.filters, packed.unpacked, extent.path)
    return whole[packed.skip : packed.skip + nbytes]
