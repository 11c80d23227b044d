"""Datasets of an HDF5 file as tensors: byte ranges, joined where a dataset lies in chunks."""

from __future__ import annotations

import math
from collections.abc import Mapping

from smdlens.containers.files import RegularFile
from smdlens.containers.hdf5_file import Hdf5Dataset, Hdf5Group
from smdlens.containers.window import FileWindow
from smdlens.errors import SnapshotUnsafeError, SnapshotUnsupportedError
from smdlens.snapshots.chunks import Chunk, PieceBudget, join_chunks
from smdlens.snapshots.records import DTYPE_BYTES, Extent, Packed, TensorRef

# Deflate packs at most about 1,032 : 1; what claims more is no honest file.
_MOST_RATIO = 1_100


def hdf5_tensor(
    name: str, dataset: Hdf5Dataset, file: RegularFile, budget: PieceBudget
) -> TensorRef:
    """A dataset of numbers as a tensor.

    Args:
        name: Its path in the file.
        dataset: Its place.
        file: The file, or a window on the archive it lies in.
        budget: Pays for byte ranges.

    Raises:
        SnapshotUnsupportedError: Its elements are no plain little-endian numbers.
        SnapshotUnsafeError: It would unpack to far more than is stored.
        SnapshotCorruptError: Its chunks do not cover it.
    """
    if not dataset.dtype:
        raise SnapshotUnsupportedError(
            f"the dataset {name!r} has elements that are not read",
            subject=file.path,
            expected="little-endian numbers of 1, 2, 4 or 8 bytes",
        )
    base = file.start if isinstance(file, FileWindow) else 0
    width = DTYPE_BYTES[dataset.dtype]
    size = math.prod(dataset.chunk_shape) * width
    dense = tuple(math.prod(dataset.chunk_shape[d + 1 :]) for d in range(len(dataset.shape)))
    boxes = []
    for chunk in dataset.chunks:
        applied = tuple(f for i, f in enumerate(dataset.filters) if not chunk.skipped >> i & 1)
        if size > _MOST_RATIO * max(chunk.nbytes, 1):
            raise SnapshotUnsafeError(
                f"the dataset {name!r} declares more elements than its bytes can hold",
                subject=file.path,
                expected=f"at most {_MOST_RATIO * chunk.nbytes} bytes",
                found=f"{size} bytes in a chunk of {chunk.nbytes}",
            )
        packed = Packed(chunk.nbytes, applied, size) if applied else None
        extent = Extent(file.path, base + chunk.address, size, packed)
        shape = tuple(
            min(part, whole - corner)
            for part, whole, corner in zip(
                dataset.chunk_shape, dataset.shape, chunk.corner, strict=True
            )
        )
        strides = None if shape == dataset.chunk_shape else dense
        boxes.append(Chunk(chunk.corner, TensorRef(name, shape, dataset.dtype, (extent,), strides)))
    if len(boxes) == 1 and boxes[0].tensor.strides is None:
        return boxes[0].tensor
    return join_chunks(name, dataset.shape, dataset.dtype, boxes, budget)


def member(group: Hdf5Group, *path: str) -> Hdf5Group | Hdf5Dataset | None:
    """What lies under a path of names, or None."""
    found: Hdf5Group | Hdf5Dataset | None = group
    for name in path:
        found = found.members.get(name) if isinstance(found, Hdf5Group) else None
    return found


def text_list(attributes: Mapping[str, object], name: str) -> list[str] | None:
    """A list of texts; Keras cuts long ones into `name0`, `name1` ... None where there is none."""
    if name in attributes:
        value = attributes[name]
        if value is None:  # an empty list has no text type
            return []
        return [str(v) for v in value] if isinstance(value, list) else None
    parts: list[str] = []
    for number in range(len(attributes)):
        piece = attributes.get(f"{name}{number}")
        if not isinstance(piece, list):
            break
        parts += piece
    return parts or None
