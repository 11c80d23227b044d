"""Unpacked bytes of compressed chunks, kept while needed: in memory, then in a scratch file.

A block is read from every snapshot before the next block is, so each chunk is asked for again and
again. Memory holds the latest; what does not fit goes to one anonymous file in the folder for
temporary files, and where that is full, chunks are unpacked again.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import replace
from threading import Lock

from smdlens.atomic import scratch_file
from smdlens.containers.files import RegularFile
from smdlens.snapshots.extent_bytes import unpacked_block
from smdlens.snapshots.records import Extent, Packed

_MEMORY = 128 << 20
_SCRATCH = 32 << 30
Key = tuple[str, int, Packed]


class UnpackedChunks:
    """A store of unpacked chunks shared by all workers.

    Args:
        memory: Most bytes kept in memory.
        scratch: Most bytes kept in the scratch file.
    """

    def __init__(self, memory: int = _MEMORY, scratch: int = _SCRATCH) -> None:
        self._memory = memory
        self._scratch = scratch
        self._chunks: OrderedDict[Key, bytes] = OrderedDict()
        self._held = 0
        self._spilled: dict[Key, tuple[int, int]] = {}
        self._end = 0
        self._file = -1
        self._lock = Lock()

    def read_into(
        self, extent: Extent, low: int, high: int, target: memoryview, file: RegularFile
    ) -> int:
        """Fill `target` with bytes [low, high) of a packed extent; returns bytes read from disk.

        Raises:
            SnapshotError: As `RegularFile.read` and `unpack`.
        """
        packed = extent.packed
        assert packed is not None, "called for packed extents"
        key = extent.path, extent.offset, replace(packed, skip=0)
        start = packed.skip + low
        with self._lock:
            chunk = self._chunks.get(key)
            if chunk is not None:
                self._chunks.move_to_end(key)
            elif (place := self._spilled.get(key)) is not None:
                target[:] = os.pread(self._file, high - low, place[0] + start)
                return 0
        cost = 0
        if chunk is None:
            chunk = unpacked_block(file, extent.offset, packed)
            cost = (packed if packed.inside is None else packed.inside).stored
            with self._lock:
                self._keep(key, chunk)
        target[:] = chunk[start : start + high - low]
        return cost

    def close(self) -> None:
        """Forget everything; the scratch file is gone."""
        with self._lock:
            self._chunks.clear()
            self._spilled.clear()
            self._held = 0
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def _keep(self, key: Key, chunk: bytes) -> None:
        if key not in self._chunks:
            self._chunks[key] = chunk
            self._held += len(chunk)
        while self._held > self._memory and self._chunks:
            oldest, held = self._chunks.popitem(last=False)
            self._held -= len(held)
            self._spill(oldest, held)

    def _spill(self, key: Key, chunk: bytes) -> None:
        if key in self._spilled:
            return
        if self._end + len(chunk) > self._scratch:
            self._spilled.clear()
            self._end = 0
        try:
            if self._file < 0:
                self._file = scratch_file()
            _write(self._file, chunk, self._end)
        except OSError:
            return  # no room: the chunk is unpacked again when it is asked for
        self._spilled[key] = self._end, len(chunk)
        self._end += len(chunk)


def _write(file: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    done = 0
    while done < len(data):
        done += os.pwrite(file, view[done:], offset + done)
