"""Object headers of HDF5, versions 1 and 2: the messages that describe a group or dataset.

Layouts from the HDF5 File Format Specification, version 3.0, sections IV.A.1.a and IV.A.1.b.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from smdlens.containers.hdf5_types import Cursor, Hdf5FormatError

_CONTINUATION = 0x10
_MOST_BLOCKS = 10_000


@dataclass(frozen=True, slots=True)
class Message:
    """One message: its kind, its bytes, where they lie, and whether it points elsewhere."""

    kind: int
    body: bytes
    offset: int
    shared: bool


class ObjectHeaders:
    """Reads object headers.

    Args:
        read: Bytes at an address of the file.
        charge: Pays for one message.
    """

    def __init__(self, read: Callable[[int, int], bytes], charge: Callable[[], None]) -> None:
        self._read = read
        self._charge = charge

    def messages(self, address: int) -> list[Message]:
        """Every message of the object at `address`."""
        if self._read(address, 4) == b"OHDR":
            return self._second(address)
        return self._first(address)

    def _first(self, address: int) -> list[Message]:
        head = Cursor(self._read(address, 16))
        if (version := head.number(1)) != 1:
            raise Hdf5FormatError(f"an object header of version {version}")
        head.take(1)
        count = head.number(2)
        head.take(4)
        blocks = [(address + 16, head.number(4))]
        found: list[Message] = []
        for start, size in blocks:
            cursor = Cursor(self._read(start, size))
            while len(found) < count and size - cursor.at >= 8:
                kind, length, flags = cursor.number(2), cursor.number(2), cursor.number(1)
                cursor.take(3)
                self._take(found, blocks, Message(0, b"", start + cursor.at, False), kind, flags,
                           cursor.take(length), margin=(0, 0))  # fmt: skip
        return found

    def _second(self, address: int) -> list[Message]:
        head = Cursor(self._read(address, 6))
        head.expect(b"OHDR", 2)
        flags = head.number(1)
        skipped = (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        at = address + 6 + skipped
        size = int.from_bytes(self._read(at, width), "little")
        order = 2 if flags & 4 else 0
        blocks = [(at + width, size)]
        found: list[Message] = []
        for start, length in blocks:
            cursor = Cursor(self._read(start, length))
            while length - cursor.at >= 4 + order:
                kind, nbytes, how = cursor.number(1), cursor.number(2), cursor.number(1)
                cursor.take(order)
                self._take(found, blocks, Message(0, b"", start + cursor.at, False), kind, how,
                           cursor.take(nbytes), margin=(4, 4))  # fmt: skip
        return found

    def _take(
        self,
        found: list[Message],
        blocks: list[tuple[int, int]],
        place: Message,
        kind: int,
        flags: int,
        body: bytes,
        margin: tuple[int, int],
    ) -> None:
        """Keep a message; a continuation adds a block (of version 2: with signature, checksum)."""
        self._charge()
        found.append(Message(kind, body, place.offset, bool(flags & 2)))
        if kind == _CONTINUATION:
            cursor = Cursor(body)
            start, length = cursor.number(8), cursor.number(8)
            if margin[0] and self._read(start, 4) != b"OCHK":
                raise Hdf5FormatError("an object header that goes on nowhere")
            if length < sum(margin) or len(blocks) >= _MOST_BLOCKS:
                raise Hdf5FormatError("an object header without end")
            blocks.append((start + margin[0], length - sum(margin)))
