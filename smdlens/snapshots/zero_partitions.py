"""Flat buffers that DeepSpeed's ZeRO spreads over ranks, and the parameters inside them.

Stages 1 and 2: the parameters of a group follow one another in one flat buffer, of which every rank
keeps a consecutive part, padded at the end. Stage 3: every parameter is cut into as many equal
parts as there are ranks, rounded up, and every rank keeps its parts one behind the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smdlens.errors import SnapshotCorruptError
from smdlens.snapshots.chunks import slice_extents
from smdlens.snapshots.records import DTYPE_BYTES, Extent, TensorRef
from smdlens.snapshots.resolve import is_tensor, tensor_ref

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Flat:
    """A one-dimensional buffer that may lie in several files."""

    dtype: str
    numel: int
    extents: tuple[Extent, ...]

    def part(self, low: int, high: int) -> tuple[Extent, ...]:
        """Byte ranges of elements [low, high)."""
        width = DTYPE_BYTES[self.dtype]
        return slice_extents(self.extents, low * width, high * width)


def flat(name: str, tensors: Sequence[Any], subject: str) -> Flat:
    """Several one-dimensional tensors, one behind the other.

    Raises:
        SnapshotCorruptError: Something that is not a dense tensor, or several dtypes.
    """
    refs = []
    for tensor in tensors:
        if not is_tensor(tensor):
            raise _corrupt(subject, f"{name} is not a tensor")
        refs.append(tensor_ref(name, tensor))
    if not refs or any(r.strides is not None or r.dtype != refs[0].dtype for r in refs):
        raise _corrupt(subject, f"{name} is not a flat buffer of one dtype")
    extents = tuple(extent for r in refs for extent in r.extents)
    return Flat(refs[0].dtype, sum(r.numel for r in refs), extents)


def consecutive(buffer: Flat, shapes: Shapes, subject: str) -> Iterator[tuple[str, TensorRef]]:
    """Stages 1 and 2: parameters in the order of `shapes`, from the ranks' joined buffer."""
    at = 0
    for name, shape in shapes.items():
        end = at + math.prod(shape)
        if end > buffer.numel:
            raise _short(subject, name, end, buffer.numel)
        yield name, TensorRef(name, shape, buffer.dtype, buffer.part(at, end))
        at = end


def spread(
    buffers: Sequence[Flat], shapes: Shapes, subject: str
) -> Iterator[tuple[str, TensorRef]]:
    """Stage 3: parameters in the order of `shapes`, each from a part of every rank's buffer."""
    width = DTYPE_BYTES[buffers[0].dtype]
    at = 0
    for name, shape in shapes.items():
        numel = math.prod(shape)
        share = -(-numel // len(buffers))
        shortest = min(b.numel for b in buffers)
        if at + share > shortest or any(b.dtype != buffers[0].dtype for b in buffers):
            raise _short(subject, name, at + share, shortest)
        joined = tuple(extent for b in buffers for extent in b.part(at, at + share))
        extents = slice_extents(joined, 0, numel * width)
        yield name, TensorRef(name, shape, buffers[0].dtype, extents)
        at += share


def shapes_of(value: Any, subject: str) -> tuple[dict[str, tuple[int, ...]], ...]:
    """`param_shapes` of a model file: names and shapes per parameter group."""
    groups = list(value) if isinstance(value, (list, tuple)) else [value]
    found = []
    for group in groups:
        if not isinstance(group, Mapping):
            raise _corrupt(subject, "param_shapes is not a mapping")
        shapes: dict[str, tuple[int, ...]] = {}
        for name, shape in group.items():
            good = type(shape) is tuple and len(shape) <= 64
            if not good or not all(type(n) is int and 0 <= n < 1 << 62 for n in shape):
                raise _corrupt(subject, "param_shapes holds something that is no shape")
            if type(name) is not str:
                raise _corrupt(subject, "param_shapes holds something that is no name")
            shapes[name] = shape
        found.append(shapes)
    return tuple(found)


def _short(subject: str, name: str, expected: int, found: int) -> SnapshotCorruptError:
    return SnapshotCorruptError(
        f"the ranks' buffers end before parameter {name!r} does",
        subject=subject,
        expected=f"{expected} elements",
        found=str(found),
    )


def _corrupt(subject: str, found: str) -> SnapshotCorruptError:
    return SnapshotCorruptError(
        "the optimizer's files contradict DeepSpeed's layout",
        subject=subject,
        found=found,
        remedy="Copy the checkpoint again, or leave it out.",
    )
