"""Where the chunks of an HDF5 dataset lie: the version 1 B-tree of chunks.

Layout from the HDF5 File Format Specification, version 3.0, section III.A.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from smdlens.containers.hdf5_types import Cursor, Hdf5FormatError, is_grid

_DEEPEST = 32


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A box of an array: its first index along each axis, and its bytes in the file.

    Attributes:
        corner: First index along each axis.
        address: Where its bytes begin.
        nbytes: How many there are, as stored.
        skipped: Bit i set: filter i was not applied to it.
    """

    corner: tuple[int, ...]
    address: int
    nbytes: int
    skipped: int


def read_chunks(
    read: Callable[[int, int], bytes],
    charge: Callable[[], None],
    address: int,
    shape: tuple[int, ...],
    chunk: tuple[int, ...],
) -> tuple[StoredChunk, ...]:
    """The chunks of a dataset, which must cover it exactly once each.

    Args:
        read: Bytes at an address of the file.
        charge: Pays for one node or chunk.
        address: Root of the tree.
        shape: Shape of the array.
        chunk: Shape of a chunk.
    """
    found = list(_walk(read, charge, address, len(shape), 0))
    if not is_grid(shape, chunk, [c.corner for c in found]):
        raise Hdf5FormatError("chunks that do not cover their dataset")
    return tuple(sorted(found, key=lambda c: c.corner))


def _walk(
    read: Callable[[int, int], bytes],
    charge: Callable[[], None],
    address: int,
    rank: int,
    depth: int,
) -> Iterator[StoredChunk]:
    charge()
    head = Cursor(read(address, 24))
    head.expect(b"TREE", 1)
    level, count = head.number(1), head.number(2)
    if depth > _DEEPEST:
        raise Hdf5FormatError("a tree of chunks without end")
    key = 8 + 8 * (rank + 1)
    body = Cursor(read(address + 24, count * (key + 8)))
    for _ in range(count):
        charge()
        nbytes, skipped = body.number(4), body.number(4)
        corner = tuple(body.number(8) for _ in range(rank))
        body.take(8)
        child = body.number(8)
        if level:
            yield from _walk(read, charge, child, rank, depth + 1)
        else:
            yield StoredChunk(corner, child, nbytes, skipped)
