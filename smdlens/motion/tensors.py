"""Whole tensors as stored: the bytes of a `TensorRef` become a torch tensor, and nothing runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from smdlens.errors import SnapshotUnsupportedError
from smdlens.motion.files import FilePool
from smdlens.snapshots.records import DTYPE_BYTES

if TYPE_CHECKING:
    from smdlens.snapshots.records import TensorRef


def load(ref: TensorRef, pool: FilePool | None = None) -> torch.Tensor:
    """Read one tensor.

    Args:
        ref: Where the tensor lies.
        pool: Open files to read through; a pool of its own otherwise.

    Returns:
        Contiguous tensor of `ref.shape` in the storage dtype, on the CPU; times `ref.scale`.

    Raises:
        SnapshotTruncatedError: A file ends before its extent does.
        SnapshotCorruptError: The extents hold fewer elements than shape and strides need.
        SnapshotUnsupportedError: This torch has no such dtype.
    """
    dtype = storage_dtype(ref.dtype)
    width = DTYPE_BYTES[ref.dtype]
    need = span(ref.shape, ref.strides) * width
    # torch.empty, not frombuffer: the memory is aligned for every dtype and owned by the tensor.
    raw = torch.empty(need, dtype=torch.uint8)
    if need:
        if pool is None:
            with FilePool() as own:
                own.read_into(ref.extents, 0, need, raw.numpy().data)
        else:
            pool.read_into(ref.extents, 0, need, raw.numpy().data)
    flat = raw.view(dtype)
    if ref.scale != 1.0:
        flat.mul_(ref.scale)
    if ref.strides is None:
        return flat.view(ref.shape)
    return flat.as_strided(ref.shape, ref.strides).contiguous()


def storage_dtype(name: str) -> torch.dtype:
    """The torch dtype of a storage dtype name.

    Raises:
        SnapshotUnsupportedError: This torch has no such dtype.
    """
    dtype = getattr(torch, name, None) if name in DTYPE_BYTES else None
    if not isinstance(dtype, torch.dtype):
        raise SnapshotUnsupportedError(
            f"storage dtype {name!r} is not known to torch {torch.__version__}",
            expected="one of " + ", ".join(DTYPE_BYTES),
            found=name,
            remedy="Update torch, or exclude the tensor.",
        )
    return dtype


def span(shape: tuple[int, ...], strides: tuple[int, ...] | None) -> int:
    """Elements of storage that a tensor walks over, the first element included."""
    if math.prod(shape) == 0:
        return 0
    if strides is None:
        return math.prod(shape)
    return 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
