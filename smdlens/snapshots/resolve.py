"""From a tensor as a pickle describes it to the bytes it occupies, checked."""

from __future__ import annotations

import math
import sys
from typing import Any

from smdlens.containers.inert_values import PickledTensor
from smdlens.errors import SnapshotCorruptError, SnapshotUnsafeError, SnapshotUnsupportedError
from smdlens.snapshots.records import DTYPE_BYTES, Extent, TensorRef, shared

_MOST_DIMENSIONS = 64


def is_tensor(value: Any) -> bool:
    """Whether a value of a raw checkpoint is a tensor."""
    return type(value) is PickledTensor or type(value) is TensorRef


def tensor_ref(name: str, value: PickledTensor | TensorRef) -> TensorRef:
    """The tensor under `name`, with the bytes its view covers and nothing more.

    Raises:
        SnapshotCorruptError: The view reaches beyond its storage.
        SnapshotUnsafeError: It declares more elements than its storage holds.
        SnapshotUnsupportedError: A dtype we do not know.
    """
    if isinstance(value, TensorRef):
        return value
    storage = value.storage
    width = DTYPE_BYTES.get(value.dtype)
    if width is None or len(value.shape) > _MOST_DIMENSIONS:
        raise SnapshotUnsupportedError(
            f"tensor {name!r} has a dtype or layout that is not read",
            subject=storage.path,
            found=f"{value.dtype}, {len(value.shape)} dimensions",
        )
    # The same names and shapes come again in every snapshot of the run.
    name, shape = sys.intern(name), shared(value.shape)
    numel = math.prod(shape)
    if numel == 0:
        return TensorRef(name, shape, value.dtype, ())
    span = 1 + sum((size - 1) * stride for size, stride in zip(shape, value.strides, strict=True))
    start = value.offset * width
    if start + span * width > storage.nbytes:
        raise SnapshotCorruptError(
            f"tensor {name!r} reaches beyond its storage",
            subject=storage.path,
            expected=f"at most {storage.nbytes} bytes",
            found=f"{span * width} bytes at offset {start} of storage {storage.key!r}",
        )
    if numel * width > storage.nbytes:
        raise SnapshotUnsafeError(
            f"tensor {name!r} declares more elements than its storage holds",
            subject=storage.path,
            expected=f"at most {storage.nbytes // width} elements",
            found=f"{numel} elements",
        )
    if _is_dense(shape, value.strides):
        extent = Extent(storage.path, storage.offset + start, numel * width)
        return TensorRef(name, shape, value.dtype, (extent,))
    extent = Extent(storage.path, storage.offset + start, span * width)
    return TensorRef(name, shape, value.dtype, (extent,), value.strides)


def _is_dense(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True
