"""Links of an HDF5 group: symbol tables, links in its header, and links in a fractal heap.

Layouts from the HDF5 File Format Specification, version 3.0: III.A (B-trees), III.C (symbol
tables), III.D (local heaps), III.G (fractal heaps), IV.A.2.g (link message).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from smdlens.containers.hdf5_types import UNDEFINED, Cursor, Hdf5FormatError

_DEEPEST = 32
Read = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class Link:
    """A name in a group: the address of an object, or None for a soft or external link."""

    name: str
    address: int | None


def parse_link(cursor: Cursor) -> Link:
    """A link message."""
    if (version := cursor.number(1)) != 1:
        raise Hdf5FormatError(f"a link of version {version}")
    flags = cursor.number(1)
    kind = cursor.number(1) if flags & 8 else 0
    cursor.take((8 if flags & 4 else 0) + (1 if flags & 16 else 0))
    name = cursor.take(cursor.number(1 << (flags & 3))).decode("utf-8", "replace")
    return Link(name, cursor.number(8) if kind == 0 else None)


class OldGroup:
    """A group kept as a B-tree of symbol tables with its names in a local heap."""

    def __init__(self, read: Read, charge: Callable[[], None]) -> None:
        self._read = read
        self._charge = charge

    def links(self, tree: int, heap: int) -> Iterator[Link]:
        """Links of the group."""
        head = Cursor(self._read(heap, 32))
        head.expect(b"HEAP", 0)
        head.take(3)
        size, _, data = head.number(8), head.number(8), head.number(8)
        names = self._read(data, size)
        for table in self._leaves(tree, 0):
            yield from self._symbols(table, names)

    def _leaves(self, address: int, depth: int) -> Iterator[int]:
        self._charge()
        if depth > _DEEPEST:
            raise Hdf5FormatError("a tree of names without end")
        head = Cursor(self._read(address, 24))
        head.expect(b"TREE", 0)
        level, count = head.number(1), head.number(2)
        body = Cursor(self._read(address + 24, 8 * (2 * count + 1)))
        for _ in range(count):
            body.take(8)
            child = body.number(8)
            if level:
                yield from self._leaves(child, depth + 1)
            else:
                yield child

    def _symbols(self, address: int, names: bytes) -> Iterator[Link]:
        head = Cursor(self._read(address, 8))
        head.expect(b"SNOD", 1)
        head.take(1)
        count = head.number(2)
        body = Cursor(self._read(address + 8, 40 * count))
        for _ in range(count):
            self._charge()
            offset, target, cached = body.number(8), body.number(8), body.number(4)
            body.take(20)
            end = names.find(b"\0", offset)
            if offset >= len(names) or end < 0:
                raise Hdf5FormatError("a name outside its heap")
            name = names[offset:end].decode("utf-8", "replace")
            yield Link(name, None if cached == 2 or target == UNDEFINED else target)


class FractalHeap:
    """Objects of a heap whose blocks double in size row by row; unfiltered heaps only."""

    def __init__(self, read: Read, address: int) -> None:
        head = Cursor(read(address, 142))
        head.expect(b"FRHP", 0)
        head.take(2)
        if head.number(2):
            raise Hdf5FormatError("a compressed heap of names")
        head.take(1)
        largest = head.number(4)
        head.take(12 * 8)
        self._width, self._start, self._most = head.number(2), head.number(8), head.number(8)
        self._bits = head.number(2)
        head.take(2)
        self._root, self._rows = head.number(8), head.number(2)
        if not (self._width and self._start and self._most >= self._start and self._bits <= 64):
            raise Hdf5FormatError("a heap of impossible sizes")
        self._read = read
        self._offset_bytes = -(-self._bits // 8)
        self._length_bytes = min(_bytes_for(self._most), _bytes_for(largest))
        self._direct_rows = self._most.bit_length() - self._start.bit_length() + 2

    def object(self, identity: bytes) -> bytes:
        """The bytes of a managed object."""
        cursor = Cursor(identity)
        if (kind := cursor.number(1) >> 4 & 3) != 0:
            raise Hdf5FormatError(f"a heap object of kind {kind}")
        offset, length = cursor.number(self._offset_bytes), cursor.number(self._length_bytes)
        block, base, size = self._find(offset)
        if offset - base + length > size:
            raise Hdf5FormatError("a heap object outside its block")
        return self._read(block + offset - base, length)

    def _find(self, offset: int) -> tuple[int, int, int]:
        """Address, first heap offset and size of the direct block with an offset."""
        address, rows, base = self._root, self._rows, 0
        if rows == 0:
            return address, 0, self._start
        for _ in range(_DEEPEST):
            low = base
            for row in range(rows):
                size = self._start << max(row - 1, 0)
                if offset < low + size * self._width:
                    break
                low += size * self._width
            else:
                raise Hdf5FormatError("a heap object beyond its heap")
            column = (offset - low) // size
            low += column * size
            entry = address + 5 + 8 + self._offset_bytes + 8 * (row * self._width + column)
            child = int.from_bytes(self._read(entry, 8), "little")
            if child == UNDEFINED:
                raise Hdf5FormatError("a heap object in a block that was never written")
            if row < self._direct_rows:
                return child, low, size
            address, base = child, low
            rows = size.bit_length() - (self._start * self._width).bit_length() + 1
        raise Hdf5FormatError("a heap without end")


class RecordTree:
    """Records of a version 2 B-tree, in order."""

    def __init__(self, read: Read, charge: Callable[[], None]) -> None:
        self._read = read
        self._charge = charge

    def records(self, address: int) -> Iterator[bytes]:
        """Every record."""
        head = Cursor(self._read(address, 34))
        head.expect(b"BTHD", 0)
        head.take(1)
        self._node, self._size, depth = head.number(4), head.number(2), head.number(2)
        head.take(2)
        root, count = head.number(8), head.number(2)
        if not self._size or self._node < 10 + self._size or depth > _DEEPEST:
            raise Hdf5FormatError("a tree of records of impossible sizes")
        if root != UNDEFINED:
            most = (self._node - 10) // self._size
            self._count_bytes = _bytes_for(most)
            self._total_bytes = [0]  # of the subtree's records, by level
            total = most
            for _ in range(depth):
                below = self._total_bytes[-1]
                pointer = 8 + self._count_bytes + below
                inner = max((self._node - 10 - pointer) // (self._size + pointer), 1)
                total = (inner + 1) * total + inner
                self._total_bytes.append(_bytes_for(total))
            yield from self._walk(root, count, depth)

    def _walk(self, address: int, count: int, level: int) -> Iterator[bytes]:
        self._charge()
        below = self._total_bytes[level - 1] if level > 1 else 0
        pointer = 8 + self._count_bytes + below
        length = 6 + count * self._size + ((count + 1) * pointer if level else 0)
        node = Cursor(self._read(address, length))
        node.expect(b"BTIN" if level else b"BTLF", 0)
        node.take(1)
        records = [node.take(self._size) for _ in range(count)]
        if level:
            for _ in range(count + 1):
                child, inside = node.number(8), node.number(self._count_bytes)
                node.take(below)
                yield from self._walk(child, inside, level - 1)
        for record in records:
            self._charge()
            yield record


def _bytes_for(limit: int) -> int:
    """Bytes that hold numbers up to `limit`, as the format counts them."""
    return max(limit.bit_length() - 1, 0) // 8 + 1
