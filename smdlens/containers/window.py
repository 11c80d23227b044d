"""A range of a file read as if it were a file: archives that lie one behind the other."""

from __future__ import annotations

from smdlens.containers.files import FileStamp, RegularFile
from smdlens.errors import SnapshotTruncatedError


class FileWindow(RegularFile):
    """Bytes [start, start + nbytes) of an open file, with offsets counted from `start`.

    The file itself is neither owned nor closed.

    Attributes:
        start: Where the window begins in the file.
    """

    __slots__ = ("_file", "start")

    def __init__(self, file: RegularFile, start: int, nbytes: int) -> None:
        """Look at a range of an open file.

        Raises:
            SnapshotTruncatedError: The range does not lie inside the file.
        """
        if start < 0 or nbytes < 0 or start + nbytes > file.size:
            raise SnapshotTruncatedError(
                "the file ends before the metadata say",
                subject=file.path,
                expected=f"{nbytes} bytes at offset {start}",
                found=f"a file of {file.size} bytes",
                remedy="Copy the checkpoint again, or leave it out.",
            )
        super().__init__(file.path, -1, file.stamp)
        self.size = nbytes
        self.start = start
        self._file = file

    def fileno(self) -> int:
        """The descriptor of the whole file."""
        return self._file.fileno()

    def read(self, offset: int, nbytes: int) -> bytes:
        """Exactly `nbytes` bytes from `offset` inside the window; errors as the file's own."""
        if offset < 0 or nbytes < 0 or offset + nbytes > self.size:
            raise SnapshotTruncatedError(
                "a part of the file ends before its own headers say",
                subject=self.path,
                expected=f"{nbytes} bytes at offset {self.start + offset}",
                found=f"a part of {self.size} bytes at offset {self.start}",
                remedy="Copy the checkpoint again, or leave it out.",
            )
        return self._file.read(self.start + offset, nbytes)

    def check_unchanged(self, earlier: FileStamp | None = None) -> None:
        """As the file's own."""
        self._file.check_unchanged(earlier)
