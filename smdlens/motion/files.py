"""Positional reads from a bounded pool of open files, and proof that none of them changed.

Each file's stamp, noted when its headers were read or else when it is first opened, is compared
when it is opened and at the end, so a checkpoint that is overwritten meanwhile is never measured
half and half.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

from smdlens.containers.files import FileStamp, RegularFile, open_regular
from smdlens.errors import (
    SnapshotChangedError,
    SnapshotCorruptError,
    SnapshotError,
    SnapshotTruncatedError,
)
from smdlens.motion.unpacked import UnpackedChunks
from smdlens.snapshots.records import Extent


@dataclass(slots=True)
class _Handle:
    file: RegularFile
    users: int = 0


class FilePool:
    """Open files shared by all workers.

    Args:
        limit: Files kept open; more only while that many are being read at one moment.
        stamps: What the files were when their headers were read, by path.
    """

    def __init__(self, limit: int = 64, stamps: Mapping[str, FileStamp] | None = None) -> None:
        self._limit = limit
        self._handles: OrderedDict[str, _Handle] = OrderedDict()
        self._stamps: dict[str, FileStamp] = dict(stamps or {})
        self._lock = Lock()
        self._unpacked = UnpackedChunks()
        self.bytes_read = 0

    def read_into(self, extents: Sequence[Extent], low: int, high: int, target: memoryview) -> None:
        """Fill `target` with bytes [low, high) of the joined extents.

        Raises:
            SnapshotTruncatedError: A file ends before its extent does.
            SnapshotChangedError: A file is not the one that was first opened under its name.
            SnapshotMissingError: A file cannot be opened or read.
            SnapshotUnsafeError: A path is not a regular file.
            SnapshotCorruptError: The extents hold fewer bytes than `high`.
        """
        held = sum(extent.nbytes for extent in extents)
        if high > held:
            raise SnapshotCorruptError(
                "a tensor has too few bytes",
                subject=extents[0].path if extents else None,
                expected=f"{high} bytes",
                found=f"{held} bytes",
                remedy="Save the checkpoint again, or leave it out.",
            )
        for extent, first, begin, end in _pieces(extents, low, high):
            handle = self._acquire(extent.path)
            cost = end - begin
            try:
                part = target[begin:end]
                if extent.packed is None:
                    _read_fully(handle.file, extent.offset + first, part)
                else:
                    last = first + end - begin
                    cost = self._unpacked.read_into(extent, first, last, part, handle.file)
            finally:
                with self._lock:
                    handle.users -= 1
                    self.bytes_read += cost

    def verify(self) -> None:
        """Compare every file that was read with what lies under its path now.

        Raises:
            SnapshotChangedError: Size, time or identity differ, or it is gone.
        """
        for path, stamp in self._stamps.items():
            try:
                with open_regular(path) as file:
                    now = file.stamp
            except SnapshotError as error:
                raise _changed(path) from error
            if now != stamp:
                raise _changed(path)

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            for handle in self._handles.values():
                handle.file.close()
            self._handles.clear()
        self._unpacked.close()

    def __enter__(self) -> FilePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _acquire(self, path: str) -> _Handle:
        with self._lock:
            handle = self._handles.get(path)
            if handle is None:
                handle = self._handles[path] = _Handle(self._open(path))
            self._handles.move_to_end(path)
            handle.users += 1
            self._evict()
        return handle

    def _open(self, path: str) -> RegularFile:
        file = open_regular(path)
        if self._stamps.setdefault(path, file.stamp) != file.stamp:
            file.close()
            raise _changed(path)
        return file

    def _evict(self) -> None:
        if len(self._handles) <= self._limit:
            return
        for path in list(self._handles):
            if len(self._handles) <= self._limit:
                return
            if self._handles[path].users == 0:
                self._handles.pop(path).file.close()


def _changed(path: str) -> SnapshotChangedError:
    return SnapshotChangedError(
        "the file changed while it was being measured",
        subject=path,
        remedy="Wait until the trainer has finished writing it, then run smdlens again.",
    )


def _pieces(
    extents: Sequence[Extent], low: int, high: int
) -> Iterator[tuple[Extent, int, int, int]]:
    """Extent, first of its bytes, and where the piece begins and ends in the target."""
    start = 0
    for extent in extents:
        begin, end = max(low, start), min(high, start + extent.nbytes)
        if begin < end:
            yield extent, begin - start, begin - low, end - low
        start += extent.nbytes
        if start >= high:
            return


def _read_fully(file: RegularFile, offset: int, target: memoryview) -> None:
    done = 0
    while done < len(target):
        try:
            count = os.preadv(file.fileno(), [target[done:]], offset + done)
        except OSError as error:
            raise SnapshotError(
                f"the file cannot be read ({error.strerror})",
                subject=file.path,
                remedy="Check the disk or the network mount it lies on.",
            ) from error
        if count == 0:
            raise SnapshotTruncatedError(
                "the file ends before its own headers say",
                subject=file.path,
                expected=f"{len(target)} bytes at offset {offset}",
                found=f"{done} bytes",
                remedy="Copy the checkpoint again, or leave it out.",
            )
        done += count
