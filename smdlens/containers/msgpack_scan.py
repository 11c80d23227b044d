"""MessagePack, scanned without reading what is long: byte strings become places in the file.

Formats from the MessagePack specification (spec.md of msgpack/msgpack). Extension types are left to
the caller.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from smdlens.containers.files import RegularFile
from smdlens.containers.limits import Limits
from smdlens.errors import SnapshotCorruptError, SnapshotUnsafeError

_WINDOW = 1 << 13
_LONGEST_TEXT = 1 << 16
_INTEGERS = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
             0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}  # fmt: skip
_FLOATS = {0xCA: ">f", 0xCB: ">d"}
_LENGTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4,
            0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}  # fmt: skip
_FIXED_EXT = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}


@dataclass(frozen=True, slots=True)
class Span:
    """A byte string, by its place in the file."""

    offset: int
    nbytes: int


Extension = Callable[["Scanner", int, Span], Any]


class Scanner:
    """Reads one value after another from a file.

    Args:
        file: The file.
        limits: Bounds on objects and depth.
        extension: Makes a value of an extension: (scanner, its type, where its bytes lie).
    """

    def __init__(self, file: RegularFile, limits: Limits, extension: Extension) -> None:
        self.file = file
        self.pos = 0
        self._limits = limits
        self._extension = extension
        self._left = limits.pickle_objects
        self._window = b""
        self._start = 0

    def value(self, depth: int = 0) -> Any:
        """The next value.

        Raises:
            SnapshotTruncatedError: The file ends before the value does.
            SnapshotCorruptError: A byte that begins no value, a map with keys that are no text.
            SnapshotUnsafeError: Deeper or more than `limits` allows.
        """
        self._left -= 1
        if self._left < 0 or depth > self._limits.json_depth:
            raise SnapshotUnsafeError(
                "the file exceeds a safety limit",
                subject=self.file.path,
                found=f"nesting or number of values at offset {self.pos}",
            )
        code = self._take(1)[0]
        if code < 0x80:
            return code
        if code >= 0xE0:
            return code - 0x100
        if code < 0x90:
            return self._map(code & 0x0F, depth)
        if code < 0xA0:
            return self._array(code & 0x0F, depth)
        if code < 0xC0:
            return self._text(code & 0x1F)
        if code in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[code]
        if (form := _INTEGERS.get(code) or _FLOATS.get(code)) is not None:
            return struct.unpack(form, self._take(struct.calcsize(form)))[0]
        if code in _FIXED_EXT:
            return self._ext(_FIXED_EXT[code])
        if code not in _LENGTHS:
            raise self.corrupt("a byte that begins no value")
        length = int.from_bytes(self._take(_LENGTHS[code]), "big")
        if code <= 0xC6:
            return self._skip(length)
        if code <= 0xC9:
            return self._ext(length)
        if code <= 0xDB:
            return self._text(length)
        return self._array(length, depth) if code <= 0xDD else self._map(length, depth)

    def corrupt(self, found: str) -> SnapshotCorruptError:
        """The error of bytes that contradict the format, with where they are."""
        return SnapshotCorruptError(
            "not valid MessagePack",
            subject=self.file.path,
            found=f"{found}, before offset {self.pos}",
            remedy="Copy the checkpoint again, or leave it out.",
        )

    def _take(self, nbytes: int) -> bytes:
        start = self.pos - self._start
        if start < 0 or start + nbytes > len(self._window):
            most = max(nbytes, min(_WINDOW, self.file.size - self.pos))
            self._window, self._start, start = self.file.read(self.pos, most), self.pos, 0
        self.pos += nbytes
        return self._window[start : start + nbytes]

    def _skip(self, nbytes: int) -> Span:
        span = Span(self.pos, nbytes)
        if nbytes > self.file.size - self.pos:
            self.file.read(self.pos, nbytes)  # says what is missing
        self.pos += nbytes
        return span

    def _ext(self, nbytes: int) -> Any:
        kind = struct.unpack(">b", self._take(1))[0]
        span = self._skip(nbytes)
        after, self.pos = self.pos, span.offset
        made = self._extension(self, kind, span)
        self.pos = after
        return made

    def _text(self, nbytes: int) -> str:
        if nbytes > _LONGEST_TEXT:
            raise SnapshotUnsafeError(
                "a text is too long",
                subject=self.file.path,
                expected=f"at most {_LONGEST_TEXT} bytes",
                found=f"{nbytes} bytes at offset {self.pos}",
            )
        try:
            return self._take(nbytes).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.corrupt("a text that is not UTF-8") from error

    def _array(self, count: int, depth: int) -> list[Any]:
        self._fits(count)
        return [self.value(depth + 1) for _ in range(count)]

    def _map(self, count: int, depth: int) -> dict[str, Any]:
        self._fits(2 * count)
        found: dict[str, Any] = {}
        for _ in range(count):
            key = self.value(depth + 1)
            if type(key) is not str or key in found:
                raise self.corrupt("a key that is no text, or is given twice")
            found[key] = self.value(depth + 1)
        return found

    def _fits(self, values: int) -> None:
        """Every value takes a byte at least: a larger count needs a longer file."""
        if values > self.file.size - self.pos:
            self.file.read(self.pos, values)
