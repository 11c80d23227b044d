"""Orbax checkpoints (JAX): folders of zarr arrays, in files or in an OCDBT database.

A step's folder is one tree, or holds a folder for each item (`state`, `params`, `extra` ...).
Names come from `_METADATA`; without it, from the arrays' own. Nothing of JAX is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from smdlens.containers.files import FileStamp, contained, open_regular, reading
from smdlens.containers.json_header import parse_json, read_json
from smdlens.containers.limits import Limits
from smdlens.containers.ocdbt import MANIFEST, OcdbtReader, OcdbtValue
from smdlens.errors import SnapshotCorruptError, SnapshotTruncatedError, SnapshotUnsafeError
from smdlens.snapshots.candidate import (
    Candidate,
    RawCheckpoint,
    candidate_file,
    candidate_folder,
    is_folder,
)
from smdlens.snapshots.chunks import PieceBudget
from smdlens.snapshots.extent_bytes import read_extent
from smdlens.snapshots.flax_msgpack import FlaxMsgpackReader, msgpack_tree
from smdlens.snapshots.orbax_tree import checkpoint_root, placed
from smdlens.snapshots.records import Extent, Packed, TensorRef
from smdlens.snapshots.steps import position_of_name
from smdlens.snapshots.zarr_arrays import zarr_array, zarr_tensor

_TREE, _STEP, _COMMITTED = "_METADATA", "_CHECKPOINT_METADATA", "commit_success.txt"
# What older versions write beside or in place of arrays: a tree of Flax' MessagePack.
_TOGETHER = "checkpoint"
_JSON_ITEM = "metadata"
_ARRAYS = (".zarray", "zarr.json")
_MOST_ITEMS = 100


class OrbaxReader:
    """Reader of Orbax's folders."""

    name = "orbax"

    def recognises(self, candidate: Candidate) -> bool:
        """Orbax's metadata of a tree or of a step, or a database of arrays."""
        if not candidate.is_folder:
            return False
        return bool(candidate.names & {_TREE, _STEP, MANIFEST}) or _is_older(candidate)

    def read(self, candidate: Candidate, limits: Limits) -> RawCheckpoint:
        """Read metadata and the places of all chunks."""
        folder = candidate.path
        _check_committed(folder, candidate.names, limits)
        opened = _Opened(limits)
        if candidate.names & {_TREE, MANIFEST} or _has_together(candidate):
            items = {"": opened.tree(folder)}
        else:
            items = {}
            for name in sorted(candidate.names)[:_MOST_ITEMS]:
                if name.startswith(".") or not is_folder(folder / name):
                    continue
                inner = candidate_folder(contained(folder, name, subject=str(folder)))
                if inner.names & {_TREE, MANIFEST} or _has_together(inner):
                    items[name] = opened.tree(inner.path)
                elif _JSON_ITEM in inner.names:
                    items[name] = opened.json(inner.path / _JSON_ITEM)
        root = checkpoint_root(items)
        files = tuple(map(Path, opened.stamps)) or (folder,)
        return RawCheckpoint(self.name, root, files, opened.stamps, ordered=False)


def _is_older(candidate: Candidate) -> bool:
    """Before Orbax 0.5: a tree without metadata, or a step's folder of items without its own."""
    if _has_together(candidate):
        return True
    if not _has_position(candidate.path.name):
        return False
    for name in sorted(candidate.names)[:_MOST_ITEMS]:
        # Folders of steps are no items: their parent is a run.
        if not _has_position(name) and is_folder(candidate.path / name):
            inner = candidate.path / name
            if any((inner / mark).is_file() for mark in (_TREE, MANIFEST)):
                return True
    return False


def _has_position(name: str) -> bool:
    read = position_of_name(name)
    return read.step is not None or read.epoch is not None or read.number is not None


def _has_together(candidate: Candidate) -> bool:
    """Whether a folder has such a tree (TensorFlow keeps text under the name)."""
    if _TOGETHER not in candidate.names or not (candidate.path / _TOGETHER).is_file():
        return False
    return FlaxMsgpackReader().recognises(candidate_file(candidate.path / _TOGETHER))


def _check_committed(folder: Path, names: frozenset[str], limits: Limits) -> None:
    """A step that Orbax began and never finished has metadata without the time of its commit."""
    if _STEP not in names or _COMMITTED in names:
        return
    said = read_json(str(folder / _STEP), limits=limits)
    if not isinstance(said, Mapping) or said.get("commit_timestamp_nsecs") is None:
        raise SnapshotTruncatedError(
            "Orbax did not finish this checkpoint",
            subject=str(folder),
            expected=f"{_COMMITTED}, or a time of commit in {_STEP}",
            remedy="Wait for the trainer to finish, or leave it out.",
        )


@dataclass(slots=True)
class _Opened:
    """What has been read of one checkpoint."""

    limits: Limits
    stamps: dict[str, FileStamp] = field(default_factory=dict)

    def json(self, path: Path) -> Any:
        with reading(path) as file:
            self.stamps[file.path] = file.stamp
        return read_json(str(path), limits=self.limits, allow_nan=True)

    def tree(self, folder: Path) -> dict[str, Any]:
        """Nested dicts of tensors."""
        metadata = self.json(folder / _TREE) if (folder / _TREE).is_file() else None
        store: _Store = _Files(folder, self)
        if (folder / MANIFEST).is_file():
            store = _Database(folder, self)
        budget = PieceBudget(str(folder), self.limits)
        tensors: dict[str, TensorRef] = {}
        for name in store.arrays(metadata):
            key, text = store.metadata(name)
            said = parse_json(text, subject=f"{folder}:{key}", limits=self.limits, allow_nan=True)
            array = zarr_array(said, name, str(folder))
            if array is not None:
                tensors[name] = zarr_tensor(
                    name,
                    array,
                    partial(_chunk, store, name),
                    self.fetch,
                    budget,
                )
        return placed(tensors, metadata, self.together(folder / _TOGETHER), str(folder))

    def together(self, path: Path) -> Any:
        """The tree of arrays that were saved in one file; None where there is none."""
        if not path.is_file():
            return None
        with reading(path) as file:
            self.stamps[file.path] = file.stamp
            return msgpack_tree(file, self.limits)

    def fetch(self, extent: Extent) -> bytes:
        with open_regular(extent.path) as file:
            file.check_unchanged(self.stamps.get(extent.path))
            return read_extent(file, extent)


def _chunk(store: _Store, name: str, chunk: str) -> Extent | None:
    return store.extent(f"{name}/{chunk}")


class _Store(Protocol):
    """Where the arrays of one checkpoint are kept: a database, or files."""

    def arrays(self, metadata: Any) -> Iterator[str]:
        """Names of the arrays."""

    def metadata(self, name: str) -> tuple[str, bytes]:
        """Key and text of an array's description."""

    def extent(self, key: str) -> Extent | None:
        """Where the value of a key lies; None where there is none."""


class _Database(_Store):
    """An OCDBT database."""

    def __init__(self, folder: Path, opened: _Opened) -> None:
        reader = OcdbtReader(folder, opened.limits)
        self._values = reader.values()
        self._folder = folder
        self._opened = opened
        opened.stamps |= reader.stamps

    def arrays(self, metadata: Any) -> Iterator[str]:
        for key in self._values:
            name, _, last = key.rpartition("/")
            if last in _ARRAYS:
                yield name

    def metadata(self, name: str) -> tuple[str, bytes]:
        key = next(f"{name}/{last}" for last in _ARRAYS if f"{name}/{last}" in self._values)
        value = self._values[key]
        if value.nbytes > self._opened.limits.json_bytes:
            raise SnapshotUnsafeError("metadata of an array are too long", subject=value.path)
        if value.data is not None:
            return key, value.data
        extent = self.extent(key)
        assert extent is not None, "the key was just found"
        return key, self._opened.fetch(extent)

    def extent(self, key: str) -> Extent | None:
        value = self._values.get(key)
        return None if value is None else self._place(value)

    def _place(self, value: OcdbtValue) -> Extent:
        block = value.block
        if block is None:
            if value.path not in self._opened.stamps:
                with open_regular(value.path) as file:
                    self._opened.stamps[file.path] = file.stamp
            size = self._opened.stamps[value.path].size
            if value.offset + value.nbytes > size:
                raise SnapshotTruncatedError(
                    "a data file ends before its database says",
                    subject=value.path,
                    expected=f"{value.nbytes} bytes at offset {value.offset}",
                    found=f"a file of {size} bytes",
                    remedy="Copy the whole checkpoint folder again, or leave it out.",
                )
            return Extent(value.path, value.offset, value.nbytes)
        if not block.compressed:
            return Extent(block.path, block.offset + value.offset, value.nbytes)
        packed = Packed(block.stored, ("zstd",), block.unpacked, skip=value.offset)
        return Extent(block.path, block.offset, value.nbytes, packed)


class _Files(_Store):
    """A folder for each array."""

    def __init__(self, folder: Path, opened: _Opened) -> None:
        self._folder = folder
        self._opened = opened

    def arrays(self, metadata: Any) -> Iterator[str]:
        names = candidate_folder(self._folder).names
        if len(names) > self._opened.limits.plain_values:
            raise SnapshotUnsafeError("too many arrays", subject=str(self._folder))
        for name in sorted(names):
            if any((self._folder / name / last).is_file() for last in _ARRAYS):
                yield name

    def metadata(self, name: str) -> tuple[str, bytes]:
        last = next(each for each in _ARRAYS if (self._folder / name / each).is_file())
        with reading(self._contained(f"{name}/{last}")) as file:
            if file.size > self._opened.limits.json_bytes:
                raise SnapshotUnsafeError("metadata of an array are too long", subject=file.path)
            return f"{name}/{last}", file.read(0, file.size)

    def extent(self, key: str) -> Extent | None:
        path = self._contained(key)
        if not path.exists():
            return None
        with open_regular(path) as file:
            self._opened.stamps[file.path] = file.stamp
            if not file.size:
                raise SnapshotCorruptError("an empty chunk", subject=file.path)
            return Extent(file.path, 0, file.size)

    def _contained(self, name: str) -> Path:
        return contained(self._folder, name, subject=str(self._folder))
