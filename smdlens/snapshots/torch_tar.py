"""`torch.save` before 0.1.10: a tar of the members storages, tensors and pickle.

`storages` holds a count, then per storage a pickled (key, location, type), an int64 count and raw
bytes, then a pickled list of views; `tensors` holds a count, then per tensor a pickled (key,
storage key, type), its dimensions, sizes, strides and offset; `pickle` refers to tensors by key.
"""

from __future__ import annotations

import struct
from typing import Any

from smdlens.containers.files import RegularFile, reading
from smdlens.containers.inert_values import PickledTensor, Storage, StorageKind
from smdlens.containers.limits import Limits
from smdlens.containers.tar_directory import read_tar_directory
from smdlens.errors import SnapshotCorruptError, SnapshotUnsupportedError
from smdlens.snapshots.candidate import Candidate, RawCheckpoint
from smdlens.snapshots.torch_legacy import read_pickle, storage_width

_MEMBERS = ("storages", "tensors", "pickle")
_MOST_DIMENSIONS = 64
_WINDOW = 4096


class TorchTarReader:
    """Reader of torch's first format."""

    name = "torch-tar"

    def recognises(self, candidate: Candidate) -> bool:
        """A tar archive, by the mark at offset 257."""
        return candidate.head[257:262] == b"ustar"

    def read(self, candidate: Candidate, limits: Limits) -> RawCheckpoint:
        """Walk over the counts and headers; weights stay where they are."""
        with reading(candidate.path) as file:
            root = _read(file, limits)
        return RawCheckpoint(self.name, root, (candidate.path,), {file.path: file.stamp})


def _read(file: RegularFile, limits: Limits) -> Any:
    members = read_tar_directory(file)
    if not all(name in members for name in _MEMBERS):
        raise SnapshotUnsupportedError(
            "a tar archive not written by torch.save",
            subject=file.path,
            expected="the members " + ", ".join(_MEMBERS),
        )
    try:
        storages = _storages(file, members["storages"][0], limits)
        tensors = _tensors(file, members["tensors"][0], storages, limits)
    except (TypeError, ValueError) as error:
        raise _corrupt(file, f"a malformed member: {error}"[:200], 0) from error

    def resolve(pid: Any) -> Any:
        # A class of a container comes as (class, source file, source); a tensor as its key.
        return pid[0] if type(pid) is tuple else tensors[_key(pid)]

    root, _ = read_pickle(file, members["pickle"][0], resolve, limits)
    return root


def _key(value: Any) -> int:
    if type(value) not in (int, str):
        raise ValueError("a key that is not a number")
    return int(value)


def _storages(file: RegularFile, at: int, limits: Limits) -> dict[int, Storage]:
    count, at = _count(file, at, limits)
    storages: dict[int, Storage] = {}
    for _ in range(count):
        (key, _, kind), at = _triple(file, at, limits)
        if type(kind) is not StorageKind:
            raise _corrupt(file, "a storage without a type", at)
        numel = int.from_bytes(file.read(at, 8), "little", signed=True)
        number = _key(key)
        storage = Storage(str(number), kind.dtype, numel)
        storage.path, storage.offset = file.path, at + 8
        storage.nbytes = numel * storage_width(storage)
        if numel < 0 or at + 8 + storage.nbytes > file.size:
            raise _corrupt(file, f"the storage {storage.key!r} reaches beyond the file", at)
        storages[number] = storage
        at += 8 + storage.nbytes
    views, _ = read_pickle(file, at, _no_reference, limits, _WINDOW)
    if type(views) is not list:
        raise _corrupt(file, "a malformed list of storage views", at)
    for view in views:
        if type(view) is not tuple or len(view) != 4 or type(view[2]) is not int:
            raise _corrupt(file, "a malformed storage view", at)
        whole = storages.get(_key(view[1]))
        if whole is None or type(view[3]) is not int or view[2] < 0 or view[3] < 0:
            raise _corrupt(file, "a malformed storage view", at)
        part = Storage(str(_key(view[0])), whole.dtype, view[3])
        width = storage_width(part)
        part.path, part.offset = file.path, whole.offset + view[2] * width
        part.nbytes = view[3] * width
        if view[2] * width + part.nbytes > whole.nbytes:
            raise _corrupt(file, "a storage view reaches beyond its storage", at)
        storages[_key(view[0])] = part
    return storages


def _tensors(
    file: RegularFile, at: int, storages: dict[int, Storage], limits: Limits
) -> dict[int, PickledTensor]:
    count, at = _count(file, at, limits)
    tensors: dict[int, PickledTensor] = {}
    for _ in range(count):
        (key, storage_key, _), at = _triple(file, at, limits)
        number = _key(key)
        storage = storages.get(_key(storage_key))
        (dimensions,) = struct.unpack("<i", file.read(at, 4))
        if storage is None or not 0 <= dimensions <= _MOST_DIMENSIONS:
            raise _corrupt(file, f"the tensor {number} has an impossible header", at)
        numbers = struct.unpack(f"<{2 * dimensions + 1}q", file.read(at + 8, 16 * dimensions + 8))
        if min(numbers) < 0:
            raise _corrupt(file, f"the tensor {number} has a negative size", at)
        at += 16 * (dimensions + 1)
        shape, strides = numbers[:dimensions], numbers[dimensions:-1]
        dtype = storage.dtype or "uint8"
        tensors[number] = PickledTensor(storage, dtype, numbers[-1], shape, strides)
    return tensors


def _count(file: RegularFile, at: int, limits: Limits) -> tuple[int, int]:
    count, at = read_pickle(file, at, _no_reference, limits, _WINDOW)
    if type(count) is not int or not 0 <= count <= limits.zip_entries:
        raise _corrupt(file, "a malformed count", at)
    return count, at


def _triple(file: RegularFile, at: int, limits: Limits) -> tuple[tuple[Any, Any, Any], int]:
    value, end = read_pickle(file, at, _no_reference, limits, _WINDOW)
    if type(value) is not tuple or len(value) != 3:
        raise _corrupt(file, "a malformed entry", at)
    return value, end


def _no_reference(pid: Any) -> Any:
    raise ValueError("a reference where none is allowed")


def _corrupt(file: RegularFile, message: str, offset: int) -> SnapshotCorruptError:
    return SnapshotCorruptError(message, subject=file.path, found=f"at offset {offset}")
