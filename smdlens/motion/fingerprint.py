"""Fingerprints of files: what a file holds, from a few of its bytes.

A fingerprint covers the size, the first and the last bytes (headers; of a zip archive also the
directory with a checksum of every tensor) and blocks spread evenly over the rest. Taking it costs
under 2 MB of reading, and nothing at all where the file system says that nothing changed.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass

from smdlens.containers.files import RegularFile, open_regular
from smdlens.errors import SnapshotChangedError

SAMPLES = 64
SAMPLE_BYTES = 4 << 10
_HEAD_BYTES = 64 << 10
_TAIL_BYTES = 1 << 20
# File systems count time in ticks: a file this young may change again without a new time.
_SETTLED_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class FileState:
    """What the file system says of a file; the same state, the same content.

    Attributes:
        size: Bytes.
        mtime_ns: Last time the content changed.
        ctime_ns: Last time anything about the file changed; cannot be set back.
        inode: Identity on its device.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileState:
        """The state in a stat result."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)

    def is_settled(self) -> bool:
        """Whether a later change is sure to show in the times."""
        return time.time_ns() - max(self.mtime_ns, self.ctime_ns) > _SETTLED_NS


def fingerprint(path: str) -> tuple[str, FileState]:
    """The fingerprint of a file, as hex, and the state in which it was taken.

    Raises:
        SnapshotChangedError: The file is being written.
        SnapshotMissingError: It cannot be opened.
        SnapshotTruncatedError: It became shorter meanwhile.
        SnapshotUnsafeError: It is not a regular file.
    """
    with open_regular(path) as file:
        before = FileState.of(os.fstat(file.fileno()))
        digest = _digest(file)
        if FileState.of(os.fstat(file.fileno())) != before:
            raise SnapshotChangedError(
                "the file changed while it was being read",
                subject=path,
                remedy="Wait until the trainer has finished writing it, then run smdlens again.",
            )
    return digest, before


def _digest(file: RegularFile) -> str:
    found = hashlib.blake2b(file.size.to_bytes(8, "little"), digest_size=16)
    if file.size <= _HEAD_BYTES + _TAIL_BYTES:
        found.update(file.read(0, file.size))
        return found.hexdigest()
    found.update(file.read(0, _HEAD_BYTES))
    room = file.size - SAMPLE_BYTES
    for k in range(SAMPLES):
        found.update(file.read(room * k // (SAMPLES - 1), SAMPLE_BYTES))
    found.update(file.read(file.size - _TAIL_BYTES, _TAIL_BYTES))
    return found.hexdigest()
