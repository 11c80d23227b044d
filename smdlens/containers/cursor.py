"""Fields read one after another from a file, in windows, up to a bound."""

from __future__ import annotations

from smdlens.containers.files import RegularFile
from smdlens.errors import SnapshotUnsafeError

_WINDOW = 1 << 16


class Cursor:
    """A place in a file that moves on with every little-endian field read.

    Args:
        file: The file.
        start: Where to begin.
        most: Bytes that may be taken in all (skipped ones are free).

    Attributes:
        file: The file.
        pos: Offset of the next field.
    """

    def __init__(self, file: RegularFile, start: int, most: int) -> None:
        self.file = file
        self.pos = start
        self._left = self._most = most
        self._window = b""
        self._start = start

    def take(self, nbytes: int) -> bytes:
        """The next bytes.

        Raises:
            SnapshotTruncatedError: The file ends before them.
            SnapshotUnsafeError: More than may be taken.
        """
        self._left -= nbytes
        if self._left < 0:
            raise SnapshotUnsafeError(
                "the header is too long",
                subject=self.file.path,
                expected=f"at most {self._most} bytes",
                found=f"more before offset {self.pos + nbytes}",
            )
        start = self.pos - self._start
        if start + nbytes > len(self._window):
            most = max(nbytes, min(_WINDOW, self.file.size - self.pos))
            self._window, self._start, start = self.file.read(self.pos, most), self.pos, 0
        self.pos += nbytes
        return self._window[start : start + nbytes]

    def skip(self, nbytes: int) -> int:
        """Pass over bytes that the file must have; returns where they begin."""
        begin = self.pos
        if nbytes > self.file.size - begin:
            self.file.read(begin, nbytes)  # says what is missing
        self.pos += nbytes
        if self.pos > self._start + len(self._window):
            self._window, self._start = b"", self.pos
        return begin

    def unsigned(self, nbytes: int) -> int:
        """An unsigned integer."""
        return int.from_bytes(self.take(nbytes), "little")

    def signed(self, nbytes: int) -> int:
        """A signed integer."""
        return int.from_bytes(self.take(nbytes), "little", signed=True)

    def fits(self, count: int, nbytes: int) -> bool:
        """Whether as many items of at least so many bytes can still follow."""
        return 0 <= count * nbytes <= self.file.size - self.pos
