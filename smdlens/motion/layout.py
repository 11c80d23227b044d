"""Blocks: ranges of a tensor's elements that fit the cache, with a map from element to channel.

A tensor in storage order is seen as [outer, count, inner]: element i belongs to channel
(i // inner) % count. For a convolution weight (out, in, kh, kw) with channel axis 0 that is
[1, out, in*kh*kw]; for Keras's (kh, kw, in, out) with axis 3 it is [kh*kw*in, out, 1].
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Layout:
    """Elements in storage order as [outer, count, inner]; `count` channels."""

    outer: int
    count: int
    inner: int

    @property
    def numel(self) -> int:
        """Number of elements."""
        return self.outer * self.count * self.inner

    @property
    def clock_size(self) -> int:
        """Length of the vector that a sum over the channel axis leaves."""
        return self.outer * self.inner


@dataclass(frozen=True, slots=True)
class Stripe:
    """A run of a block's elements of one shape.

    Attributes:
        start: Where it begins in the block.
        shape: (outer, channels, inner).
    """

    start: int
    shape: tuple[int, int, int]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Block:
    """Elements [low, high) in storage order.

    Attributes:
        stripes: What they are; several only in a block of several small tensors.
        owners: Of several small tensors as one block, or of one that is measured as such, the
            first channel of each; else nothing.
        channel: First channel in the block.
        clock: Where the block's sum over channels lands in the flat [outer * inner] vector.
    """

    low: int
    high: int
    stripes: tuple[Stripe, ...]
    channel: int = 0
    clock: int = 0
    owners: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.high - self.low

    @property
    def shape(self) -> tuple[int, int, int]:
        """(outer, channels, inner) of a block of one tensor."""
        (stripe,) = self.stripes
        return stripe.shape

    @property
    def channels(self) -> int:
        """Number of channels."""
        return sum(stripe.shape[1] for stripe in self.stripes)

    def halves(self) -> tuple[Block, Block]:
        """The same elements as two blocks, of one tensor and more than one element."""
        outer, channels, inner = self.shape
        if outer > 1:
            k = outer // 2
            shapes = (k, channels, inner), (outer - k, channels, inner)
            channel, clock = 0, k * inner
        elif channels > 1:
            k = channels // 2
            shapes = (1, k, inner), (1, channels - k, inner)
            channel, clock = k, 0
        else:
            k = inner // 2
            shapes = (1, 1, k), (1, 1, inner - k)
            channel, clock = 0, k
        middle = self.low + math.prod(shapes[0])
        return (
            Block(self.low, middle, (Stripe(0, shapes[0]),), self.channel, self.clock),
            Block(
                middle,
                self.high,
                (Stripe(0, shapes[1]),),
                self.channel + channel,
                self.clock + clock,
            ),
        )


def storage_order(
    shape: tuple[int, ...], strides: tuple[int, ...] | None
) -> tuple[int, ...] | None:
    """Axes of a dense tensor from the slowest to the fastest in storage; None if not dense.

    Args:
        shape: Logical shape.
        strides: Element strides, None for row-major.
    """
    axes = tuple(range(len(shape)))
    if strides is None:
        return axes
    # An axis of length 1 may carry any stride; it goes where row-major order would put it.
    row_major = tuple(math.prod(shape[d + 1 :]) for d in axes)
    own = tuple(r if n == 1 else s for n, s, r in zip(shape, strides, row_major, strict=True))
    order = tuple(sorted(axes, key=lambda d: (-own[d], d)))
    expected = 1
    for d in reversed(order):
        if shape[d] != 1 and own[d] != expected:
            return None
        expected *= shape[d]
    return order


@lru_cache
def layout_of(shape: tuple[int, ...], order: tuple[int, ...], axis: int | None) -> Layout:
    """The layout of a dense tensor.

    Args:
        shape: Logical shape.
        order: From `storage_order`. Sums do not depend on the order of elements, so a permuted
            tensor (channels last) is measured in storage order.
        axis: Channel axis of the logical shape; None for one channel.
    """
    if axis is None:
        return Layout(1, 1, math.prod(shape))
    place = order.index(axis)
    return Layout(
        outer=math.prod(shape[d] for d in order[:place]),
        count=shape[axis],
        inner=math.prod(shape[d] for d in order[place + 1 :]),
    )


def blocks(layout: Layout, size: int) -> Iterator[Block]:
    """Cut a tensor into blocks of at most `size` elements, in storage order."""
    count, inner = layout.count, layout.inner
    plane = count * inner
    if plane <= size:
        step = size // plane
        for o in range(0, layout.outer, step):
            k = min(step, layout.outer - o)
            yield _block(o * plane, (k, count, inner), 0, o * inner)
        return
    rows = max(size // inner, 1)
    width = min(inner, size)
    for o in range(layout.outer):
        for c in range(0, count, rows):
            k = min(rows, count - c)
            for i in range(0, inner, width):
                n = min(width, inner - i)
                yield _block(o * plane + c * inner + i, (1, k, n), c, o * inner + i)


def _block(low: int, shape: tuple[int, int, int], channel: int, clock: int) -> Block:
    return Block(low, low + math.prod(shape), (Stripe(0, shape),), channel, clock)
