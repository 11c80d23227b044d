"""Regular files, read by position, with a stamp that says whether they changed meanwhile."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from smdlens.errors import (
    SnapshotChangedError,
    SnapshotMissingError,
    SnapshotTruncatedError,
    SnapshotUnsafeError,
)

# One read never asks for more: the kernel caps a single read near 2 GiB.
_LARGEST_READ = 1 << 30
_WAIT = "Wait until the trainer has finished writing it, then run smdlens again."


@dataclass(frozen=True, slots=True)
class FileStamp:
    """Identity of a file's content as far as the file system tells it."""

    size: int
    mtime_ns: int
    inode: int
    device: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileStamp:
        """The stamp in a stat result."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)


class RegularFile:
    """An open regular file: positional, exact reads only. Made by `open_regular`.

    Attributes:
        path: The path it was opened by.
        size: Size in bytes at opening.
        stamp: Stamp at opening.
    """

    __slots__ = ("_fd", "path", "size", "stamp")

    def __init__(self, path: str, fd: int, stamp: FileStamp) -> None:
        self.path = path
        self.stamp = stamp
        self.size = stamp.size
        self._fd = fd

    def __enter__(self) -> RegularFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptor back; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def fileno(self) -> int:
        """The descriptor, for positional reads into a caller's buffer."""
        return self._fd

    def read(self, offset: int, nbytes: int) -> bytes:
        """Exactly `nbytes` bytes from `offset`; nothing is allocated beyond the file's size.

        Raises:
            SnapshotTruncatedError: The range does not lie inside the file.
            SnapshotChangedError: The file shrank since it was opened.
        """
        if offset < 0 or nbytes < 0 or offset + nbytes > self.size:
            raise SnapshotTruncatedError(
                "the file ends before its own headers say",
                subject=self.path,
                expected=f"{nbytes} bytes at offset {offset}",
                found=f"a file of {self.size} bytes",
                remedy="Copy the checkpoint again, or leave it out.",
            )
        parts = []
        while nbytes > 0:
            part = os.pread(self._fd, min(nbytes, _LARGEST_READ), offset)
            if not part:
                raise self._changed("the file became shorter while it was being read")
            parts.append(part)
            offset += len(part)
            nbytes -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def check_unchanged(self, earlier: FileStamp | None = None) -> None:
        """Compare the stamp of now with the one of opening, or with an earlier one.

        Raises:
            SnapshotChangedError: Size, time or identity differ.
        """
        if FileStamp.of(os.fstat(self._fd)) != (earlier or self.stamp):
            raise self._changed("the file was written to while it was being read")

    def _changed(self, message: str) -> SnapshotChangedError:
        now = os.fstat(self._fd)
        return SnapshotChangedError(
            message,
            subject=self.path,
            expected=f"{self.stamp.size} bytes, modified at {self.stamp.mtime_ns} ns",
            found=f"{now.st_size} bytes, modified at {now.st_mtime_ns} ns",
            remedy=_WAIT,
        )


def open_regular(path: str | os.PathLike[str]) -> RegularFile:
    """Open a regular file for positional reads; anything else is refused without waiting.

    Raises:
        SnapshotMissingError: There is no such file, or it may not be read.
        SnapshotUnsafeError: A directory, FIFO, socket or device.
    """
    name = os.fspath(path)
    # O_NONBLOCK: opening a FIFO for reading would otherwise wait for a writer for ever.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        fd = os.open(name, flags)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENXIO, errno.ENODEV):
            raise _not_regular(name, "a socket or device") from error
        raise SnapshotMissingError(
            "the file cannot be opened",
            subject=name,
            found=error.strerror if isinstance(error, OSError) else "a path with a NUL",
            remedy="Check the path and its permissions.",
        ) from error
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a FIFO, socket or device"
        raise _not_regular(name, kind)
    return RegularFile(name, fd, FileStamp.of(status))


@contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[RegularFile]:
    """Open a regular file, and insist on leaving that it did not change meanwhile."""
    with open_regular(path) as file:
        yield file
        file.check_unchanged()


def contained(root: Path, name: str, *, subject: str) -> Path:
    """Resolve a file name that an index gives, inside `root`.

    Args:
        root: The folder the name must not leave, not even through a symbolic link.
        name: The name as the index has it: hostile.
        subject: The index, for the error.

    Raises:
        SnapshotUnsafeError: An absolute name, one with a NUL, or one that leaves `root`.
    """
    if not name or "\0" in name or "\\" in name or name.startswith("/"):
        raise _escapes(subject, name)
    # realpath: Path.resolve raises on links that point to themselves.
    base = Path(os.path.realpath(root))
    target = Path(os.path.realpath(base / name))
    if not target.is_relative_to(base) or target == base:
        raise _escapes(subject, name)
    return root / name


def _not_regular(name: str, kind: str) -> SnapshotUnsafeError:
    return SnapshotUnsafeError(
        "only regular files are read",
        subject=name,
        expected="a regular file",
        found=kind,
        remedy="Leave it out, or give the checkpoint file itself.",
    )


def _escapes(subject: str, name: str) -> SnapshotUnsafeError:
    return SnapshotUnsafeError(
        "the index names a file outside its own folder",
        subject=subject,
        expected="a name inside the folder",
        found=repr(name[:200]),
        remedy="Put the weight files beside the index; do not trust this checkpoint otherwise.",
    )
