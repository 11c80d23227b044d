"""NumPy's files: .npz archives (`savez`), one array per entry, and single .npy arrays.

Keys with slashes are nested. An archive with an optimizer's state flattened by MLX, inside or in a
file beside it, has MLX's axes.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

from smdlens.containers.files import FileStamp, RegularFile, reading
from smdlens.containers.limits import Limits
from smdlens.containers.npy_header import MAGIC, NpyArray, read_npy_header
from smdlens.containers.window import FileWindow
from smdlens.containers.zip_directory import ZipEntry, read_zip_directory
from smdlens.errors import SnapshotCorruptError, SnapshotUnsupportedError
from smdlens.snapshots.candidate import Candidate, RawCheckpoint
from smdlens.snapshots.flax_tree import from_flax, looks_like_flax, nested
from smdlens.snapshots.mlx import from_mlx, is_optimizer_state, optimizer_beside, with_state
from smdlens.snapshots.records import DTYPE_BYTES, Extent, Packed, TensorRef

_SUFFIX = ".npy"
_SINGLE = "array"
_TREES = frozenset({"model", "ema", "params", "weights", "state_dict", "state", "optimizer"})
_HEAD_BYTES = 1 << 17
# Deflate packs at most about 1,032 : 1; what claims more is no honest file.
_MOST_RATIO = 1_100


class NpzReader:
    """Reader of .npz archives, compressed or not."""

    name = "numpy-npz"

    def recognises(self, candidate: Candidate) -> bool:
        """A zip whose first entry is an array."""
        head = candidate.head
        if not head.startswith(b"PK\3\4"):
            return False
        length = int.from_bytes(head[26:28], "little")
        return head[30 : 30 + length].endswith(_SUFFIX.encode())

    def read(self, candidate: Candidate, limits: Limits) -> RawCheckpoint:
        """Read the header of every array; arrays of text and objects are left out."""
        stamps: dict[str, FileStamp] = {}
        path = candidate.path
        tensors = _arrays(path, limits, stamps)
        root: dict[str, Any] = dict(tensors)
        files, flattened = [path], from_mlx(tensors)
        if any("/" in name for name in tensors):
            root = nested(tensors, str(path))
            if looks_like_flax(root):
                root = from_flax(root)
            elif not root.keys() & _TREES:  # layers, not trees beside each other
                root = {"": {name.replace("/", "."): ref for name, ref in tensors.items()}}
        elif "optimizer" in flattened:
            root = flattened
        elif (beside := optimizer_beside(path)) is not None and beside.suffix == path.suffix:
            state = _arrays(beside, limits, stamps)
            if is_optimizer_state(state):
                root = flattened | with_state(state)
                files.append(beside)
        ordered = "optimizer" not in flattened and len(files) == 1
        return RawCheckpoint(self.name, root, tuple(files), stamps, ordered)


class NpyReader:
    """Reader of single .npy arrays: a checkpoint of one tensor."""

    name = "numpy-npy"

    def recognises(self, candidate: Candidate) -> bool:
        """NumPy's own mark."""
        return candidate.head.startswith(MAGIC)

    def read(self, candidate: Candidate, limits: Limits) -> RawCheckpoint:
        """Read the header."""
        with reading(candidate.path) as file:
            array = read_npy_header(file, dict(DTYPE_BYTES))
            if array.dtype is None:
                raise SnapshotUnsupportedError(
                    "an array of objects or text: NumPy pickles those",
                    subject=file.path,
                    expected="an array of numbers",
                    remedy="Save the arrays with numpy.savez.",
                )
            tensor = _tensor(_SINGLE, array, array.dtype, file, 0)
        return RawCheckpoint(
            self.name, {_SINGLE: tensor}, (candidate.path,), {file.path: file.stamp}
        )


def _arrays(path: Path, limits: Limits, stamps: dict[str, FileStamp]) -> dict[str, TensorRef]:
    tensors: dict[str, TensorRef] = {}
    with reading(path) as file:
        for entry in read_zip_directory(file, limits).values():
            if not entry.name.endswith(_SUFFIX):
                continue
            name = entry.name[: -len(_SUFFIX)]
            if not entry.stored:
                tensor = _packed(name, file, entry)
                tensors |= {name: tensor} if tensor is not None else {}
                continue
            window = FileWindow(file, entry.offset, entry.nbytes)
            array = read_npy_header(window, dict(DTYPE_BYTES))
            if array.dtype is not None:
                tensors[name] = _tensor(name, array, array.dtype, window, window.start)
    stamps[file.path] = file.stamp
    return tensors


class _Head(FileWindow):
    """The first bytes of a compressed entry, as if they were a file of all of its bytes."""

    __slots__ = ("_head",)

    def __init__(self, file: RegularFile, entry: ZipEntry) -> None:
        super().__init__(file, entry.offset, entry.nbytes)
        stored = file.read(entry.offset, min(entry.nbytes, _HEAD_BYTES))
        try:
            self._head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored, _HEAD_BYTES)
        except zlib.error as error:
            raise _corrupt(file, entry.name, str(error)) from error
        self.size = _MOST_RATIO * entry.nbytes

    def read(self, offset: int, nbytes: int) -> bytes:
        if offset + nbytes > len(self._head):
            raise _corrupt(self, "array", "a header that goes on behind its first bytes")
        return self._head[offset : offset + nbytes]


def _packed(name: str, file: RegularFile, entry: ZipEntry) -> TensorRef | None:
    """An array of numpy.savez_compressed, unpacked when it is read."""
    array = read_npy_header(_Head(file, entry), dict(DTYPE_BYTES))
    if array.dtype is None:
        return None
    nbytes = math.prod(array.shape) * DTYPE_BYTES[array.dtype]
    packed = Packed(entry.nbytes, ("raw-deflate",), array.offset + nbytes, skip=array.offset)
    return _placed(name, array, array.dtype, Extent(file.path, entry.offset, nbytes, packed))


def _corrupt(file: RegularFile, name: str, found: str) -> SnapshotCorruptError:
    return SnapshotCorruptError(
        f"the compressed entry {name[:200]!r} is no sound array",
        subject=file.path,
        found=found,
        remedy="Copy the file again, or leave it out.",
    )


def _tensor(name: str, array: NpyArray, dtype: str, file: RegularFile, start: int) -> TensorRef:
    nbytes = math.prod(array.shape) * DTYPE_BYTES[dtype]
    if array.offset + nbytes != file.size:
        raise SnapshotCorruptError(
            f"array {name!r} has another size than its header says",
            subject=file.path,
            expected=f"{array.offset + nbytes} bytes",
            found=f"{file.size} bytes",
        )
    return _placed(name, array, dtype, Extent(file.path, start + array.offset, nbytes))


def _placed(name: str, array: NpyArray, dtype: str, place: Extent) -> TensorRef:
    shape = array.shape
    strides = None
    if array.fortran and len(shape) > 1 and place.nbytes:
        strides = tuple(math.prod(shape[:axis]) for axis in range(len(shape)))
    return TensorRef(name, shape, dtype, (place,) if place.nbytes else (), strides)
