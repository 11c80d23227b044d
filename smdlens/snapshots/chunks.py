"""Put a tensor that was saved in pieces together again: as ordered byte ranges, nothing is read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from smdlens.containers.limits import Limits
from smdlens.errors import SnapshotCorruptError, SnapshotUnsafeError
from smdlens.snapshots.records import DTYPE_BYTES, Extent, TensorRef


@dataclass(frozen=True, slots=True)
class Chunk:
    """A box of a tensor, stored on its own.

    Attributes:
        offsets: First index along each axis.
        tensor: The box's elements; its shape is the box's.
    """

    offsets: tuple[int, ...]
    tensor: TensorRef

    @property
    def strides(self) -> tuple[int, ...]:
        """Element strides of the stored box."""
        shape = self.tensor.shape
        if self.tensor.strides is not None:
            return self.tensor.strides
        return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


class PieceBudget:
    """How many more byte ranges one checkpoint may be cut into."""

    def __init__(self, subject: str, limits: Limits) -> None:
        self.subject = subject
        self._most = self._left = limits.tensor_pieces

    def charge(self, name: str) -> None:
        """Pay for one range.

        Raises:
            SnapshotUnsafeError: None is left.
        """
        self._left -= 1
        if self._left < 0:
            raise SnapshotUnsafeError(
                f"tensor {name!r} is cut into too many pieces",
                subject=self.subject,
                expected=f"at most {self._most} byte ranges in the checkpoint",
                remedy="Save the checkpoint sharded along the first axis, or consolidated.",
            )


def join_chunks(
    name: str, shape: tuple[int, ...], dtype: str, chunks: Sequence[Chunk], budget: PieceBudget
) -> TensorRef:
    """One tensor from the boxes that tile it.

    Boxes along the first axis become one byte range each; others are split into the runs that lie
    together in row-major order.

    Args:
        name: The tensor's name.
        shape: Its whole shape.
        dtype: Its storage dtype.
        chunks: The boxes, in any order.
        budget: Bounds the number of byte ranges.

    Raises:
        SnapshotCorruptError: The boxes overlap, leave gaps or have another dtype.
        SnapshotUnsafeError: Too many byte ranges.
    """
    numel = math.prod(shape)
    fits = all(
        len(c.offsets) == len(shape) == len(c.tensor.shape)
        and all(o + n <= m for o, n, m in zip(c.offsets, c.tensor.shape, shape, strict=True))
        for c in chunks
    )
    if not fits or sum(c.tensor.numel for c in chunks) != numel:
        raise _no_tiling(name, budget)
    if any(c.tensor.dtype != dtype for c in chunks):
        raise SnapshotCorruptError(
            f"the pieces of tensor {name!r} have another dtype than it", subject=budget.subject
        )
    if numel == 0:
        return TensorRef(name, shape, dtype, ())
    chunks = sorted((c for c in chunks if c.tensor.numel), key=lambda c: c.offsets)
    if len(chunks) == 1:
        only = chunks[0].tensor
        return TensorRef(name, shape, dtype, only.extents, only.strides)
    if _stacked(shape, chunks):
        extents = tuple(extent for c in chunks for extent in c.tensor.extents)
        return TensorRef(name, shape, dtype, extents, chunks[0].tensor.strides)
    runs = _Runs(name, shape, budget)
    return TensorRef(name, shape, dtype, tuple(runs.extents(chunks)))


def slice_extents(extents: Sequence[Extent], low: int, high: int) -> tuple[Extent, ...]:
    """Bytes [low, high) of joined extents; the caller has checked that there are as many."""
    found = []
    start = 0
    for extent in extents:
        begin, end = max(low, start), min(high, start + extent.nbytes)
        if begin < end:
            found.append(extent.part(begin - start, end - start))
        start += extent.nbytes
    return tuple(found)


def _stacked(shape: tuple[int, ...], chunks: Sequence[Chunk]) -> bool:
    """Whether the boxes follow one another along the first axis, each dense and strided alike."""
    strides, row = chunks[0].strides, math.prod(shape[1:])
    at = 0
    for c in chunks:
        part = c.tensor
        alike = part.shape[1:] == shape[1:] and c.strides == strides
        dense = sum(e.nbytes for e in part.extents) == part.nbytes
        if c.offsets[0] != at or not alike or strides[0] != row or not dense:
            return False
        at += part.shape[0]
    # Permuted inner axes stay so in the joined tensor; only rows are joined.
    return at == shape[0] and len({c.tensor.strides for c in chunks}) == 1


class _Runs:
    """Byte ranges of one tensor's elements in row-major order."""

    def __init__(self, name: str, shape: tuple[int, ...], budget: PieceBudget) -> None:
        self._name = name
        self._shape = shape
        self._budget = budget

    def extents(self, chunks: Sequence[Chunk]) -> Iterator[Extent]:
        """The ranges, neighbours merged."""
        last: Extent | None = None
        for extent in self._box(0, (), chunks):
            if last is None:
                last = extent
            elif last.path == extent.path and last.offset + last.nbytes == extent.offset:
                last = Extent(last.path, last.offset, last.nbytes + extent.nbytes)
            else:
                yield last
                last = extent
        if last is not None:
            yield last

    def _box(self, axis: int, index: tuple[int, ...], chunks: Sequence[Chunk]) -> Iterator[Extent]:
        """Ranges of all elements whose first indices are `index`; `chunks` contain them."""
        if axis == len(self._shape):
            yield from self._run(chunks[0], index, 1)
            return
        cuts = {0, self._shape[axis]}
        for c in chunks:
            cuts |= {c.offsets[axis], c.offsets[axis] + c.tensor.shape[axis]}
        rest = self._shape[axis + 1 :]
        for low, high in pairwise(sorted(cuts)):
            inside = [
                c
                for c in chunks
                if c.offsets[axis] <= low and high <= c.offsets[axis] + c.tensor.shape[axis]
            ]
            if not inside or (len(inside) > 1 and not rest):
                raise _no_tiling(self._name, self._budget)
            whole = len(inside) == 1 and inside[0].tensor.shape[axis + 1 :] == rest
            if whole and _dense_from(inside[0], axis):
                first = (*index, low, *(0 for _ in rest))
                yield from self._run(inside[0], first, (high - low) * math.prod(rest))
                continue
            for i in range(low, high):
                self._budget.charge(self._name)
                yield from self._box(axis + 1, (*index, i), inside)

    def _run(self, chunk: Chunk, first: tuple[int, ...], count: int) -> Iterator[Extent]:
        self._budget.charge(self._name)
        width = DTYPE_BYTES[chunk.tensor.dtype]
        places = zip(first, chunk.offsets, chunk.strides, strict=True)
        at = sum((i - o) * stride for i, o, stride in places) * width
        yield from slice_extents(chunk.tensor.extents, at, at + count * width)


def _dense_from(chunk: Chunk, axis: int) -> bool:
    """Whether the elements under one index of the axes before `axis` lie together."""
    shape = chunk.tensor.shape
    return all(
        shape[d] == 1 or stride == math.prod(shape[d + 1 :])
        for d, stride in enumerate(chunk.strides)
        if d >= axis
    )


def _no_tiling(name: str, budget: PieceBudget) -> SnapshotCorruptError:
    return SnapshotCorruptError(
        f"the pieces of tensor {name!r} overlap, leave gaps or reach beyond it",
        subject=budget.subject,
        remedy="Copy the checkpoint again, or leave it out.",
    )
