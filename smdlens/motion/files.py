"""Positional reads from a bounded pool of open files, and proof that none of them changed.

Each file's stamp, noted when its headers were read or else when it is first opened, is compared
when it is opened and at the end, so a checkpoint that is overwritten meanwhile is never measured
half and half.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
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
        limit: Files kept open; more only while that many are being read at one moment. Half of
            what the system lets this process open unless given.
        stamps: What the files were when their headers were read, by path.

    Attributes:
        bytes_read: By all workers.
        read_seconds: Time all workers together spent on it.
    """

    def __init__(
        self, limit: int | None = None, stamps: Mapping[str, FileStamp] | None = None
    ) -> None:
        self._limit = limit or _share_of_descriptors()
        self._handles: dict[str, _Handle] = {}
        self._random = Random(0)
        self._stamps: dict[str, FileStamp] = dict(stamps or {})
        self._lock = Lock()
        self._unpacked = UnpackedChunks()
        self.bytes_read = 0
        self.read_seconds = 0.0

    def read_into(self, extents: Sequence[Extent], low: int, high: int, target: memoryview) -> None:
        """Fill `target` with bytes [low, high) of the joined extents.

        Raises:
            SnapshotTruncatedError: A file ends before its extent does.
            SnapshotChangedError: A file is not the one that was first opened under its name.
            SnapshotMissingError: A file cannot be opened or read.
            SnapshotUnsafeError: A path is not a regular file.
            SnapshotCorruptError: The extents hold fewer bytes than `high`.
        """
        if len(extents) == 1 and 0 <= low <= high <= extents[0].nbytes:
            self.fill(extents[0], low, target)
            return
        held = sum(extent.nbytes for extent in extents)
        if high > held:
            raise _too_short(extents[0].path if extents else None, high, held)
        for extent, first, begin, end in _pieces(extents, low, high):
            self.fill(extent, first, target[begin:end])

    def note(self, paths: Iterable[str]) -> None:
        """Note the stamps of files that are not known yet, before processes open them."""
        for path in set(paths).difference(self._stamps):
            with open_regular(path) as file:
                self._stamps[path] = file.stamp

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

    def fill(self, extent: Extent, first: int, target: memoryview) -> None:
        """Fill `target` with the bytes of one extent from `first` on.

        Raises:
            SnapshotError: As `read_into`.
        """
        if first + len(target) > extent.nbytes:
            raise _too_short(extent.path, first + len(target), extent.nbytes)
        path, cost, started = extent.path, 0, time.perf_counter()
        with self._lock:
            handle = self._handles.get(path)
            if handle is None:
                handle = self._handles[path] = _Handle(self._open(path))
                self._evict(path)
            handle.users += 1
        try:
            if extent.packed is None:
                cost = len(target)
                _read_fully(handle.file, extent.offset + first, target)
            else:
                last = first + len(target)
                cost = self._unpacked.read_into(extent, first, last, target, handle.file)
        finally:
            with self._lock:
                handle.users -= 1
                self.bytes_read += cost
                self.read_seconds += time.perf_counter() - started

    def _open(self, path: str) -> RegularFile:
        file = open_regular(path)
        if self._stamps.setdefault(path, file.stamp) != file.stamp:
            file.close()
            raise _changed(path)
        return file

    def _evict(self, kept: str) -> None:
        """Close idle files beyond the limit, any but `kept`.

        Which one is left to chance: a scan through more files than may be open would find
        the least recently used one, its next, always closed.
        """
        while len(self._handles) > self._limit:
            idle = [p for p, handle in self._handles.items() if handle.users == 0 and p != kept]
            if not idle:
                return
            self._handles.pop(self._random.choice(idle)).file.close()


def _too_short(path: str | None, expected: int, found: int) -> SnapshotCorruptError:
    return SnapshotCorruptError(
        "a tensor has too few bytes",
        subject=path,
        expected=f"{expected} bytes",
        found=f"{found} bytes",
        remedy="Save the checkpoint again, or leave it out.",
    )


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
    try:
        # Nearly always all there is to do.
        done = os.preadv(file.fileno(), [target], offset)
    except OSError:
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


def _share_of_descriptors() -> int:
    try:
        import resource
    except ImportError:
        return 64
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(soft // 2, 4096) if soft > 0 else 4096
