"""NumPy's .npz archives (`savez`): one array per entry; keys with slashes are nested."""

from __future__ import annotations

import math
from typing import Any

from smdlens.containers.files import reading
from smdlens.containers.limits import Limits
from smdlens.containers.npy_header import NpyArray, read_npy_header
from smdlens.containers.window import FileWindow
from smdlens.containers.zip_directory import read_zip_directory
from smdlens.errors import SnapshotCorruptError, SnapshotUnsupportedError
from smdlens.snapshots.candidate import Candidate, RawCheckpoint
from smdlens.snapshots.flax_tree import from_flax, looks_like_flax, nested
from smdlens.snapshots.records import DTYPE_BYTES, Extent, TensorRef

_SUFFIX = ".npy"


class NpzReader:
    """Reader of uncompressed .npz archives."""

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
        tensors: dict[str, Any] = {}
        with reading(candidate.path) as file:
            for entry in read_zip_directory(file, limits).values():
                if not entry.name.endswith(_SUFFIX):
                    continue
                if not entry.stored:
                    raise SnapshotUnsupportedError(
                        f"a compressed array: {entry.name!r}",
                        subject=file.path,
                        expected="an archive of numpy.savez",
                        remedy="Save it with numpy.savez instead of numpy.savez_compressed.",
                    )
                name = entry.name[: -len(_SUFFIX)]
                window = FileWindow(file, entry.offset, entry.nbytes)
                array = read_npy_header(window, dict(DTYPE_BYTES))
                if array.dtype is not None:
                    tensors[name] = _tensor(name, array, array.dtype, window)
        root: dict[str, Any] = tensors
        if any("/" in name for name in tensors):
            root = nested(tensors, str(candidate.path))
            root = from_flax(root) if looks_like_flax(root) else root
        return RawCheckpoint(self.name, root, (candidate.path,), {file.path: file.stamp})


def _tensor(name: str, array: NpyArray, dtype: str, window: FileWindow) -> TensorRef:
    shape = array.shape
    nbytes = math.prod(shape) * DTYPE_BYTES[dtype]
    if array.offset + nbytes != window.size:
        raise SnapshotCorruptError(
            f"array {name!r} has another size than its header says",
            subject=window.path,
            expected=f"{array.offset + nbytes} bytes",
            found=f"{window.size} bytes",
        )
    extents = (Extent(window.path, window.start + array.offset, nbytes),) if nbytes else ()
    strides = None
    if array.fortran and len(shape) > 1 and nbytes:
        strides = tuple(math.prod(shape[:axis]) for axis in range(len(shape)))
    return TensorRef(name, shape, dtype, extents, strides)
