"""`torch.save` before 1.6: five pickles in a row, then every storage as a count and raw bytes.

The pickles are a magic number, a protocol version, facts about the machine, the object, and the
list of storage keys in the order in which they follow.
"""

from __future__ import annotations

from typing import Any

from smdlens.containers.files import RegularFile, reading
from smdlens.containers.inert_pickle import PickleEndsError, load_pickle
from smdlens.containers.inert_values import PersistentId, Storage, StorageKind
from smdlens.containers.limits import Limits
from smdlens.errors import (
    SnapshotCorruptError,
    SnapshotTruncatedError,
    SnapshotUnsafeError,
    SnapshotUnsupportedError,
)
from smdlens.snapshots.candidate import Candidate, RawCheckpoint
from smdlens.snapshots.records import DTYPE_BYTES

_MAGIC = 0x1950A86A20F9469CFC6C
_MAGIC_BYTES = _MAGIC.to_bytes(10, "little")
_FIRST_WINDOW = 1 << 20


class TorchLegacyReader:
    """Reader of pre-1.6 torch files."""

    name = "torch-legacy"

    def recognises(self, candidate: Candidate) -> bool:
        """A pickle whose first value is torch's magic number."""
        return candidate.head[:1] == b"\x80" and _MAGIC_BYTES in candidate.head[:20]

    def read(self, candidate: Candidate, limits: Limits) -> RawCheckpoint:
        """Read the pickles, then walk over the storages' counts."""
        with reading(candidate.path) as file:
            root = _read(file, limits)
        return RawCheckpoint(self.name, root, (candidate.path,), {file.path: file.stamp})


class LegacyStorages:
    """Collects the storages a pickle refers to; their places become known afterwards."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.by_key: dict[str, Storage] = {}
        self.views: dict[tuple[str, str], Storage] = {}
        self._placing: list[tuple[Storage, Storage, int, int]] = []

    def resolve(self, pid: Any) -> Any:
        """Persistent ids: ('storage', type, key, location, numel, view) and ('module', ...)."""
        if type(pid) is tuple and pid and pid[0] == "module":
            return pid[1]
        if type(pid) is not tuple or len(pid) < 5 or pid[0] != "storage":
            return PersistentId(pid)
        _, kind, key, _, numel = pid[:5]
        if type(kind) is not StorageKind or type(key) is not str or type(numel) is not int:
            raise TypeError("a malformed storage reference")
        storage = self.by_key.get(key)
        if storage is None:
            storage = self.by_key[key] = Storage(key, kind.dtype, numel)
            storage.path = self.path
        view = pid[5] if len(pid) > 5 else None
        if view is None:
            return storage
        view_key, offset, size = view
        if type(offset) is not int or type(size) is not int or offset < 0 or size < 0:
            raise ValueError("a malformed storage view")
        if type(view_key) is not str:
            raise TypeError("a malformed storage view")
        part = self.views.get((key, view_key))
        if part is None:
            part = self.views[key, view_key] = Storage(key, storage.dtype, size)
            part.path = self.path
            self._placing.append((part, storage, offset, size))
        return part

    def place(self, key: str, offset: int, nbytes: int) -> None:
        """Say where the bytes of a storage lie."""
        storage = self.by_key[key]
        storage.offset, storage.nbytes = offset, nbytes

    def place_views(self) -> None:
        """Place views of storages inside the storages they look into."""
        for part, whole, offset, size in self._placing:
            width = storage_width(part)
            if (offset + size) * width > whole.nbytes:
                raise SnapshotCorruptError(
                    f"a view of storage {part.key!r} reaches beyond it", subject=self.path
                )
            part.offset, part.nbytes = whole.offset + offset * width, size * width


def storage_width(storage: Storage) -> int:
    """Bytes per element of a storage."""
    return 1 if storage.dtype is None else DTYPE_BYTES[storage.dtype]


def _read(file: RegularFile, limits: Limits) -> Any:
    storages = LegacyStorages(file.path)
    at = 0
    values = []
    for _ in range(5):
        value, at = read_pickle(file, at, storages.resolve, limits)
        values.append(value)
    magic, version, machine, root, keys = values
    if magic != _MAGIC or type(magic) is not int or version != 1001:
        raise SnapshotUnsupportedError("a legacy torch file of another version", subject=file.path)
    if type(machine) is dict and machine.get("little_endian") is False:
        raise SnapshotUnsupportedError(
            "the checkpoint was written on a big-endian machine",
            subject=file.path,
            remedy="Load and save it again with torch on a little-endian machine.",
        )
    if (
        type(keys) is not list
        or not all(type(key) is str for key in keys)
        or len(keys) != len(set(keys))
    ):
        raise SnapshotCorruptError("the list of storages is malformed", subject=file.path)
    for key in keys:
        storage = storages.by_key.get(key)
        if storage is None:
            raise SnapshotCorruptError(
                f"the storage {key[:50]!r} is listed but never used", subject=file.path
            )
        at = place_storage(file, storages, storage, at)
    missing = next((s for s in storages.by_key.values() if s.offset < 0), None)
    if missing is not None:
        raise SnapshotCorruptError(
            f"the storage {missing.key!r} is missing from the file", subject=file.path
        )
    storages.place_views()
    return root


def place_storage(file: RegularFile, storages: LegacyStorages, storage: Storage, at: int) -> int:
    """Read the count in front of a storage, place it, and return where it ends."""
    numel = int.from_bytes(file.read(at, 8), "little", signed=True)
    nbytes = numel * storage_width(storage)
    if numel != storage.numel:
        raise SnapshotCorruptError(
            f"the storage {storage.key!r} has another size than its pickle says",
            subject=file.path,
            expected=f"{storage.numel} elements",
            found=f"{numel} at offset {at}",
        )
    if at + 8 + nbytes > file.size:
        raise SnapshotTruncatedError(
            f"the file ends inside storage {storage.key!r}",
            subject=file.path,
            expected=f"{nbytes} bytes at offset {at + 8}",
            found=f"a file of {file.size} bytes",
        )
    storages.place(storage.key, at + 8, nbytes)
    return at + 8 + nbytes


def read_pickle(
    file: RegularFile, at: int, resolve: Any, limits: Limits, window: int = _FIRST_WINDOW
) -> tuple[Any, int]:
    """Read one pickle of unknown length at an offset; returns its value and where it ends."""
    while True:
        data = file.read(at, min(window, limits.pickle_bytes, file.size - at))
        try:
            value, length = load_pickle(
                data, subject=file.path, persistent=resolve, limits=limits, base=at
            )
        except PickleEndsError as error:
            if at + len(data) >= file.size:
                raise SnapshotTruncatedError(
                    "the file ends inside a pickle",
                    subject=file.path,
                    found=f"a file of {file.size} bytes",
                ) from error
            if len(data) >= limits.pickle_bytes:
                raise SnapshotUnsafeError(
                    "the pickle is too long",
                    subject=file.path,
                    expected=f"at most {limits.pickle_bytes} bytes",
                ) from error
            window *= 8
            continue
        return value, at + length
