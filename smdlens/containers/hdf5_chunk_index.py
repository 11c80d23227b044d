"""Where the chunks of an HDF5 dataset lie, with the five kinds of index since HDF5 1.10.

Layouts from the HDF5 File Format Specification, version 3.0: IV.A.2.i (data layout message, version
4) and VII.A to VII.E (single chunk, implicit, fixed array, extensible array, version 2 B-tree).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product

from smdlens.containers.hdf5_chunks import StoredChunk, read_chunks
from smdlens.containers.hdf5_links import RecordTree
from smdlens.containers.hdf5_types import UNDEFINED, ChunkIndex, Cursor, Hdf5FormatError, Layout

Read = Callable[[int, int], bytes]
_SINGLE, _IMPLICIT, _FIXED, _EXTENSIBLE, _TREE = 1, 2, 3, 4, 5
_ALL_SKIPPED = 0xFFFFFFFF
_CHECKSUM = 4


def stored_chunks(
    read: Read, charge: Callable[[], None], layout: Layout, shape: tuple[int, ...], width: int
) -> tuple[StoredChunk, ...]:
    """The chunks of a dataset, every one of which must have been written.

    Args:
        read: Bytes at an address of the file.
        charge: Pays for one block or chunk.
        layout: The dataset's layout.
        shape: Its shape.
        width: Bytes of an element.
    """
    index, chunk = layout.index, layout.chunk
    if index is None:
        return read_chunks(read, charge, layout.address, shape, chunk)
    if not all(chunk) or len(index.most) != len(shape):
        raise Hdf5FormatError("chunks without an index of their rank")
    counts = [-(-n // part) for n, part in zip(shape, chunk, strict=True)]
    size = math.prod(chunk) * width
    for _ in range(math.prod(counts)):  # paid for before any table of them is made
        charge()
    entry = _Entry(index, size)
    found: dict[tuple[int, ...], tuple[int, int, int]] = {}
    if index.kind == _SINGLE:
        held = (layout.address, index.nbytes or size, index.skipped)
        found = {(0,) * len(shape): held}
    elif index.kind == _TREE:
        for record in RecordTree(read, charge).records(layout.address):
            cursor = Cursor(record)
            held = entry.read(cursor, filtered=len(record) > 8 + 8 * len(shape))
            found[tuple(cursor.number(8) for _ in shape)] = held
    else:
        numbers = _Numbers(index, chunk)
        places = {numbers.of(at): at for at in product(*map(range, counts))}
        if index.kind == _IMPLICIT:
            found = {at: (layout.address + n * size, size, 0) for n, at in places.items()}
        else:
            kind = _fixed if index.kind == _FIXED else _extensible
            for number, held in kind(read, charge, layout.address, entry, max(places) + 1):
                if number in places:
                    found[places[number]] = held
    chunks = []
    for at in product(*map(range, counts)):
        address, nbytes, skipped = found.get(at, (UNDEFINED, 0, 0))
        if address == UNDEFINED:
            raise Hdf5FormatError("chunks that do not cover their dataset")
        corner = tuple(i * part for i, part in zip(at, chunk, strict=True))
        cut = any(c + part > n for c, part, n in zip(corner, chunk, shape, strict=True))
        if cut and index.plain_edges:
            skipped = _ALL_SKIPPED
        chunks.append(StoredChunk(corner, address, nbytes, skipped))
    return tuple(chunks)


class _Numbers:
    """A chunk's number: along the grid of the largest shape, an unlimited axis slowest."""

    def __init__(self, index: ChunkIndex, chunk: tuple[int, ...]) -> None:
        free = [axis for axis, n in enumerate(index.most) if n == UNDEFINED]
        if len(free) > 1 or (free and index.kind != _EXTENSIBLE):
            raise Hdf5FormatError("more unlimited axes than the index of chunks allows")
        rest = [axis for axis in range(len(chunk)) if axis not in free]
        self._order = [*free, *rest]
        counts = [-(-index.most[axis] // chunk[axis]) for axis in rest]
        steps = [math.prod(counts[i + 1 :]) for i in range(len(rest))]
        self._steps = [*([math.prod(counts)] if free else []), *steps]

    def of(self, at: tuple[int, ...]) -> int:
        return sum(at[axis] * step for axis, step in zip(self._order, self._steps, strict=True))


class _Entry:
    """An element of an index: an address and, behind filters, how many bytes and which filters."""

    def __init__(self, index: ChunkIndex, size: int) -> None:
        self._size = size
        self._length = 8 if index.wide else min(8, 1 + (size.bit_length() - 1 + 8) // 8)

    def read(self, cursor: Cursor, *, filtered: bool) -> tuple[int, int, int]:
        address = cursor.number(8)
        if not filtered:
            return address, self._size, 0
        return address, cursor.number(self._length), cursor.number(4)

    def width(self, client: int, declared: int) -> int:
        """Bytes of an element; raises where the header says another number."""
        if client not in (0, 1) or declared != (12 + self._length if client else 8):
            raise Hdf5FormatError(f"an index of chunks with elements of {declared} bytes")
        return declared


_Found = Iterator[tuple[int, tuple[int, int, int]]]


def _elements(data: bytes, first: int, count: int, entry: _Entry, *, filtered: bool) -> _Found:
    cursor = Cursor(data)
    for number in range(first, first + count):
        yield number, entry.read(cursor, filtered=filtered)


def _fixed(
    read: Read, charge: Callable[[], None], address: int, entry: _Entry, wanted: int
) -> _Found:
    head = Cursor(read(address, 28))
    head.expect(b"FAHD", 0)
    client = head.number(1)
    width, bits, count, block = head.number(1), head.number(1), head.number(8), head.number(8)
    entry.width(client, width)
    if block == UNDEFINED or bits > 32:
        raise Hdf5FormatError("an array of chunks that was never written")
    page = 1 << bits
    paged = count > page
    pages = -(-count // page) if paged else 0
    marks = (pages + 7) // 8
    start = Cursor(read(block, 14 + marks))
    start.expect(b"FADB", 0)
    start.take(9)
    written = start.take(marks)
    at = block + 14 + marks + (_CHECKSUM if paged else 0)
    if not paged:
        held = min(count, wanted)
        yield from _elements(read(at, held * width), 0, held, entry, filtered=bool(client))
        return
    for number in range(min(pages, -(-wanted // page))):
        charge()
        if written[number // 8] >> (7 - number % 8) & 1:
            held = min(page, count - number * page)
            data = read(at + number * (page * width + _CHECKSUM), held * width)
            yield from _elements(data, number * page, held, entry, filtered=bool(client))


def _extensible(
    read: Read, charge: Callable[[], None], address: int, entry: _Entry, wanted: int
) -> _Found:
    head = Cursor(read(address, 72))
    head.expect(b"EAHD", 0)
    client, width, bits, inside, least, pointers, page_bits = (head.number(1) for _ in range(7))
    head.take(48)
    block = head.number(8)
    entry.width(client, width)
    if block == UNDEFINED or not least or not pointers or bits > 64 or page_bits > 32:
        raise Hdf5FormatError("an array of chunks of impossible sizes")
    filtered = bool(client)
    direct = 2 * (pointers - 1)
    supers = 1 + bits - (least.bit_length() - 1)
    first_super = 2 * (pointers.bit_length() - 1)
    length = 14 + inside * width + 8 * direct + 8 * max(supers - first_super, 0)
    start = Cursor(read(block, length))
    start.expect(b"EAIB", 0)
    start.take(9)
    data = start.take(inside * width)
    yield from _elements(data, 0, inside, entry, filtered=filtered)
    blocks = [start.number(8) for _ in range(direct)]
    offset_bytes, page = (bits + 7) // 8, 1 << page_bits
    number, place = inside, 0
    for level in range(supers):
        charge()
        if number >= wanted:
            return
        count, size = 1 << (level // 2), least << ((level + 1) // 2)
        pages = size // page if size > page else 0
        marks = b""
        if level < first_super:
            held = blocks[place : place + count]
            place += count
        else:
            at = start.number(8)
            if at == UNDEFINED:
                number += count * size
                continue
            bitmap = count * ((pages + 7) // 8)
            second = Cursor(read(at, 14 + offset_bytes + bitmap + 8 * count))
            second.expect(b"EASB", 0)
            second.take(9 + offset_bytes)
            marks = second.take(bitmap)
            held = [second.number(8) for _ in range(count)]
        for which, at in enumerate(held):
            charge()
            if at != UNDEFINED and number < wanted:
                begin = at + 14 + offset_bytes
                Cursor(read(at, 6)).expect(b"EADB", 0)
                if not pages:
                    some = min(size, wanted - number)
                    data = read(begin, some * width)
                    yield from _elements(data, number, some, entry, filtered=filtered)
                for one in range(pages):
                    bit = which * pages + one
                    if number + one * page < wanted and marks[bit // 8] >> (7 - bit % 8) & 1:
                        data = read(
                            begin + _CHECKSUM + one * (page * width + _CHECKSUM), page * width
                        )
                        yield from _elements(
                            data, number + one * page, page, entry, filtered=filtered
                        )
            number += size
