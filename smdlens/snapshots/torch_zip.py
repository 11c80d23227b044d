"""`torch.save` since 1.6: a zip of one pickle and one stored entry per storage.

Also reads TorchScript archives, whose `data.pkl` has the same form.
"""

from __future__ import annotations

from typing import Any

from smdlens.containers.files import RegularFile, reading
from smdlens.containers.inert_pickle import PickleEndsError, load_pickle
from smdlens.containers.inert_values import Opaque, PersistentId, Storage, StorageKind
from smdlens.containers.limits import Limits
from smdlens.containers.zip_directory import ZipEntry, read_zip_directory, require_stored
from smdlens.errors import SnapshotCorruptError, SnapshotUnsafeError, SnapshotUnsupportedError
from smdlens.snapshots.candidate import Candidate, RawCheckpoint
from smdlens.snapshots.records import DTYPE_BYTES

_FIRST_ENTRIES = (
    b"data.pkl", b"data/", b"version", b"byteorder", b".format_version", b"constants.pkl",
    b"code/", b".data/", b"extra/",
)  # fmt: skip


class TorchZipReader:
    """Reader of torch zip archives."""

    name = "torch-zip"

    def recognises(self, candidate: Candidate) -> bool:
        """A zip whose first entry is one that PyTorch's writer begins an archive with."""
        head = candidate.head
        if not head.startswith(b"PK\3\4"):
            return False
        length = int.from_bytes(head[26:28], "little")
        _, slash, entry = head[30 : 30 + length].partition(b"/")
        return slash != b"" and entry.startswith(_FIRST_ENTRIES)

    def read(self, candidate: Candidate, limits: Limits) -> RawCheckpoint:
        """Read directory and pickle; storages stay where they are."""
        with reading(candidate.path) as file:
            root = read_archive(file, limits)
        scripted = type(root) is Opaque and root.module.startswith("__torch__")
        network = str(candidate.path) if scripted else None
        stamps = {file.path: file.stamp}
        return RawCheckpoint(self.name, root, (candidate.path,), stamps, network=network)


def read_archive(file: RegularFile, limits: Limits, start: int = 0) -> Any:
    """The object in one archive.

    Args:
        file: The archive, or a window on the file that holds it.
        limits: Bounds.
        start: Where the window begins in its file, so that storages lie where the file has them.
    """
    entries = read_zip_directory(file, limits)
    prefix = _prefix(file, entries)
    _check_byte_order(file, entries.get(f"{prefix}byteorder"))
    pickled = require_stored(file, entries[f"{prefix}data.pkl"])
    if pickled.nbytes > limits.pickle_bytes:
        raise SnapshotUnsafeError(
            "the pickle is too long",
            subject=file.path,
            expected=f"at most {limits.pickle_bytes} bytes",
            found=f"{pickled.nbytes} bytes",
        )
    data = file.read(pickled.offset, pickled.nbytes)
    storages = _Storages(file, entries, prefix, start)
    try:
        root, _ = load_pickle(
            data,
            subject=file.path,
            persistent=storages.resolve,
            limits=limits,
            base=start + pickled.offset,
        )
    except PickleEndsError as error:
        raise SnapshotCorruptError(
            "the pickle inside the archive has no end", subject=file.path
        ) from error
    return root


class _Storages:
    """Turns persistent ids into storages that know where their bytes lie."""

    def __init__(
        self, file: RegularFile, entries: dict[str, ZipEntry], prefix: str, start: int
    ) -> None:
        self._file = file
        self._start = start
        self._path = file.path
        self._entries = entries
        self._prefix = prefix

    def resolve(self, pid: Any) -> Any:
        if type(pid) is not tuple or len(pid) < 5 or pid[0] != "storage":
            return PersistentId(pid)
        _, kind, key, _, numel = pid[:5]
        if type(kind) is not StorageKind or type(key) is not str or type(numel) is not int:
            raise TypeError("a malformed storage reference")
        entry = self._entries.get(f"{self._prefix}data/{key}")
        if entry is None:
            raise SnapshotCorruptError(
                f"the storage {key!r} is missing from the archive",
                subject=self._path,
                expected=f"an entry {self._prefix}data/{key}",
            )
        require_stored(self._file, entry)
        width = 1 if kind.dtype is None else DTYPE_BYTES[kind.dtype]
        if numel < 0 or numel * width > entry.nbytes:
            raise SnapshotCorruptError(
                f"the storage {key!r} is smaller than declared",
                subject=self._path,
                expected=f"{numel * width} bytes",
                found=f"{entry.nbytes} bytes at offset {entry.offset}",
            )
        storage = Storage(key, kind.dtype, numel)
        storage.path, storage.nbytes = self._path, entry.nbytes
        storage.offset = self._start + entry.offset
        return storage


def _prefix(file: RegularFile, entries: dict[str, ZipEntry]) -> str:
    for name in entries:
        folder, slash, rest = name.partition("/")
        if slash and rest == "data.pkl":
            return f"{folder}/"
    raise SnapshotUnsupportedError(
        "a zip archive without data.pkl: not written by torch.save",
        subject=file.path,
        expected="an archive of torch.save",
    )


def _check_byte_order(file: RegularFile, entry: ZipEntry | None) -> None:
    if (
        entry is not None
        and file.read(require_stored(file, entry).offset, min(entry.nbytes, 16)) == b"big"
    ):
        raise SnapshotUnsupportedError(
            "the checkpoint was written on a big-endian machine",
            subject=file.path,
            expected="little-endian storages",
            remedy="Load and save it again with torch on a little-endian machine.",
        )
