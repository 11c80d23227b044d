"""A pickle with its byte strings left in the file: what remains is small, whatever it holds.

A first pass over the opcodes (lengths as in the Python standard library's `pickletools`) copies all
but the byte strings, in whose place it puts references; the inert interpreter then reads the copy.
Protocol 2 has none: Python 3 writes text for `_codecs.encode` there, Python 2 its own strings.
"""

from __future__ import annotations

from typing import Any

from smdlens.containers.cursor import Cursor
from smdlens.containers.files import RegularFile
from smdlens.containers.inert_pickle import PickleEndsError, load_pickle
from smdlens.containers.inert_values import InlineBytes, PersistentId
from smdlens.containers.limits import Limits
from smdlens.errors import SnapshotCorruptError, SnapshotTruncatedError, SnapshotUnsafeError

# Byte strings up to this length are kept as well: numbers that NumPy pickles one by one.
_KEPT_BYTES = 64
_FIXED = {0x4B: 1, 0x4D: 2, 0x4A: 4, 0x47: 8, 0x68: 1, 0x6A: 4, 0x71: 1, 0x72: 4, 0x80: 1,
          0x82: 1, 0x83: 2, 0x84: 4}  # fmt: skip
_COUNTED = {0x8A: 1, 0x8B: 4, 0x55: 1, 0x54: 4, 0x58: 4, 0x8C: 1, 0x8D: 8}
_BYTES = {0x42: 4, 0x43: 1, 0x8E: 8, 0x96: 8}
_LINES = {0x49: 1, 0x4C: 1, 0x46: 1, 0x53: 1, 0x56: 1, 0x50: 1, 0x67: 1, 0x70: 1, 0x63: 2, 0x69: 2}
_FRAME, _STOP, _UNICODE = 0x95, 0x2E, 0x58
_STRINGS, _PUTS, _GETS = (0x54, 0x55), (0x71, 0x72), (0x68, 0x6A)
_LONGEST_TEXT = 1 << 12
_LONGEST_LINE = 1 << 16


def load_pickle_in_place(file: RegularFile, limits: Limits) -> Any:
    """The value of a file that is one pickle, with an `InlineBytes` for every byte string.

    Raises:
        SnapshotTruncatedError: The file ends before the pickle does.
        SnapshotCorruptError: Not a pickle, one that contradicts itself, or bytes behind it.
        SnapshotUnsafeError: A bound of `limits` is exceeded.
    """
    places: list[InlineBytes] = []
    copy, end = _copy(file, limits, places)
    if end != file.size:
        raise SnapshotCorruptError(
            "bytes follow the pickle's end",
            subject=file.path,
            found=f"{file.size - end} bytes at offset {end}",
            remedy="Copy the checkpoint again, or leave it out.",
        )

    def resolve(key: Any) -> Any:
        known = type(key) is str and key.isdecimal() and len(key) < 12 and int(key) < len(places)
        return places[int(key)] if known else PersistentId(key)

    try:
        value, _ = load_pickle(copy, subject=file.path, persistent=resolve, limits=limits)
    except PickleEndsError as error:
        raise SnapshotCorruptError("the pickle has no end", subject=file.path) from error
    return value


def _copy(file: RegularFile, limits: Limits, places: list[InlineBytes]) -> tuple[bytes, int]:
    copier = _Copier(Cursor(file, 0, limits.pickle_bytes), places)
    for _ in range(limits.pickle_opcodes):
        try:
            done = copier.opcode()
        except SnapshotTruncatedError as error:
            raise SnapshotTruncatedError(
                "the file ends inside its pickle",
                subject=file.path,
                found=f"a file of {file.size} bytes",
                remedy="Wait for the trainer to finish, or copy the file again.",
            ) from error
        if done:
            return b"".join(copier.parts), copier.cursor.pos
    raise SnapshotUnsafeError(
        "the pickle exceeds a safety limit",
        subject=file.path,
        found=f"more than {limits.pickle_opcodes} operations",
    )


class _Copier:
    """Copies opcode by opcode.

    Attributes:
        cursor: The file.
        parts: The copy.
    """

    def __init__(self, cursor: Cursor, places: list[InlineBytes]) -> None:
        self.cursor = cursor
        self.parts: list[bytes] = []
        self._places = places
        # Whether `_codecs.encode` was pushed last, and where the memo keeps it.
        self._encodes = False
        self._memo: set[bytes] = set()

    def opcode(self) -> bool:
        """Copy one opcode; returns whether it was the last."""
        cursor, parts = self.cursor, self.parts
        head = cursor.take(1)
        code = head[0]
        encodes, self._encodes = self._encodes, False
        if code in _BYTES:
            self._inline(cursor.unsigned(_BYTES[code]))
        elif code in _COUNTED:
            count = cursor.take(_COUNTED[code])
            nbytes = int.from_bytes(count, "little")
            if not cursor.fits(nbytes, 1):
                cursor.skip(nbytes)  # says what is missing
            if code == _UNICODE and encodes:
                self._inline(nbytes, text=True)
            elif code in _STRINGS:
                self._string(head + count, nbytes)
            else:
                parts += (head, count, cursor.take(nbytes))
        elif code in _LINES:
            lines = [_line(cursor) for _ in range(_LINES[code])]
            parts += (head, *lines)
            self._encodes = lines == [b"_codecs\n", b"encode\n"]
        elif code == _FRAME:
            cursor.take(8)  # frames of the copy would have other lengths; none is needed
        else:
            argument = cursor.take(_FIXED.get(code, 0))
            parts.append(head + argument)
            if code in _PUTS and encodes:
                self._memo.add(argument.ljust(4, b"\0"))
                self._encodes = True
            elif code in _GETS:
                self._encodes = argument.ljust(4, b"\0") in self._memo
        return code == _STOP

    def _inline(self, nbytes: int, *, text: bool = False) -> None:
        cursor = self.cursor
        offset = cursor.pos
        kept = cursor.take(nbytes) if nbytes <= _KEPT_BYTES else None
        if kept is None:
            cursor.skip(nbytes)
        elif text:
            try:
                kept = kept.decode("utf-8").encode("latin-1")
            except UnicodeError:
                kept = None
        self._refer(InlineBytes(cursor.file.path, offset, nbytes, kept, text=text))

    def _string(self, head: bytes, nbytes: int) -> None:
        """A string of Python 2: text if it is printable and short, else bytes."""
        cursor = self.cursor
        offset = cursor.pos
        if nbytes > _LONGEST_TEXT:
            self._inline(nbytes)
            return
        kept = cursor.take(nbytes)
        if kept.isascii() and kept.decode("ascii").isprintable():
            self.parts += (head, kept)
        else:
            short = kept if nbytes <= _KEPT_BYTES else None
            self._refer(InlineBytes(cursor.file.path, offset, nbytes, short))

    def _refer(self, place: InlineBytes) -> None:
        key = str(len(self._places)).encode()
        self._places.append(place)
        self.parts.append(b"\x8c" + bytes([len(key)]) + key + b"Q")


def _line(cursor: Cursor) -> bytes:
    text = bytearray()
    while not text.endswith(b"\n"):
        text += cursor.take(1)
        if len(text) > _LONGEST_LINE:
            raise SnapshotUnsafeError(
                "a line of the pickle is too long",
                subject=cursor.file.path,
                expected=f"at most {_LONGEST_LINE} bytes",
                found=f"more at offset {cursor.pos}",
            )
    return bytes(text)
