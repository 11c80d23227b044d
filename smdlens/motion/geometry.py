"""How the elements of a block become sums: elements to rows, rows to channels, channels to tensors.

A row is a run of at most 8192 neighbouring elements of one channel. Its float64 sum carries an
error of about one unit in the last place, and what is made of several such sums by subtraction is
made row by row, before rows are added: so the errors of many rows average out.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from smdlens.motion.layout import Block, Stripe

Float = NDArray[np.float64]
LONGEST_ROW = 8192
# Shorter rows cost more to start than to sum.
SHORTEST_ROW = 32
_CPU = torch.device("cpu")
# numpy 2 has a product and sum of rows in one pass; longer rows would make its BLAS start threads.
_ONE_PASS = hasattr(np, "vecdot")


class Geometry:
    """The rows, channels and tensors of one kind of block.

    Args:
        stripes: What the block consists of; several only where each has outer = 1.
        owners: As `Block.owners`.
        on_cpu: Whether its elements lie in memory that numpy sees.

    Attributes:
        size: Elements.
        rows: Number of row sums.
        channels: Number of channels.
        tensors: Number of tensors.
        is_joined: Whether tensors are told apart; one may be alone and has the sums, bit by bit,
            that it has among others.
        sizes: Elements of each tensor.
    """

    def __init__(self, stripes: tuple[Stripe, ...], owners: tuple[int, ...], on_cpu: bool) -> None:
        self._stripes: list[_Rows] = []
        for stripe in stripes:
            first = sum(each.count for each in self._stripes)
            self._stripes.append(_Rows(stripe, first, on_cpu))
        self.size = sum(stripe.size for stripe in stripes)
        self.rows = sum(each.count for each in self._stripes)
        self.channels = sum(each.channels for each in self._stripes)
        self.tensors = max(len(owners), 1)
        self.is_joined = bool(owners)
        self._owners = np.array(owners or (0,))
        self._is_per_channel = self.rows == self.channels
        self._parts = np.concatenate([np.full(r.channels, r.parts) for r in self._stripes])
        self._first_rows = np.concatenate(([0], np.cumsum(self._parts)[:-1]))
        per_channel = np.concatenate([np.full(r.channels, r.per_channel) for r in self._stripes])
        first_elements = np.concatenate(([0], np.cumsum(per_channel)[:-1]))
        self._first_elements = first_elements[self._owners]
        self.sizes = np.diff(self._first_elements, append=self.size)

    def row_dots(self, x: Slab, y: Slab, spare: Slab, out: Float) -> None:
        """<x, y> of each row into `out`, float64 [rows]; `spare` may be overwritten."""
        if x.rows is not None and y.rows is not None:
            np.vecdot(x.rows, y.rows, out=out)
            return
        for each, a, b, c in zip(self._stripes, x.parts, y.parts, spare.parts, strict=True):
            each.dots(a, b, c, out)

    def to_channels(self, rows: Float) -> Float:
        """Sums over the rows of each channel, [..., rows] to [..., channels]."""
        if self._is_per_channel:
            return rows
        if len(self._stripes) == 1:
            return self._stripes[0].to_channels(rows)
        return np.asarray(np.add.reduceat(rows, self._first_rows, axis=-1))

    def to_rows(self, channels: Float) -> Float:
        """Each channel's value for each of its rows, [..., channels] to [..., rows]."""
        if self._is_per_channel:
            return channels
        if len(self._stripes) == 1:
            return self._stripes[0].to_rows(channels)
        return np.repeat(channels, self._parts, axis=-1)

    def to_tensors(self, channels: Float) -> Float:
        """Sums over the channels of each tensor, [..., channels] to [..., tensors]."""
        if not self.is_joined:
            return np.asarray(channels.sum(-1, keepdims=True))
        return np.asarray(np.add.reduceat(channels, self._owners, axis=-1))

    def of_owner(self, tensors: Float) -> Float:
        """Each tensor's value for each of its channels."""
        return np.repeat(tensors, np.diff(self._owners, append=self.channels), axis=-1)

    def whole_tensors(self, rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """[..., rows] to [..., channels]: whether a channel's tensor has a row that is flagged."""
        found = self.to_tensors(self.to_channels(rows.astype(np.float64)))
        return self.of_owner(found) > 0

    def sums(self, x: torch.Tensor) -> Float:
        """Sum of the elements of each tensor, [tensors]; x is [size]."""
        if not self.is_joined:
            return np.array([float(x.sum())])
        values = x.numpy().astype(np.float64, copy=False)
        return np.asarray(np.add.reduceat(values, self._first_elements))

    def square_sums(self, x: torch.Tensor) -> Float:
        """Sums of squares of the elements of each tensor, [..., size] to [..., tensors].

        Of one tensor any number of elements do.
        """
        if not self.is_joined:
            if _ONE_PASS and x.device == _CPU:
                return np.asarray(np.vecdot(x.numpy(), x.numpy())[..., None])
            return np.asarray(torch.linalg.vecdot(x, x).unsqueeze(-1).cpu().numpy())
        squares = np.square(x.numpy())
        return np.asarray(np.add.reduceat(squares, self._first_elements, axis=-1))

    def strided(self, most: int) -> NDArray[np.int64]:
        """Of each tensor's elements every so-manieth, at most `most`, one tensor after another."""
        pieces = [
            np.arange(first, first + size, -(-size // most))
            for first, size in zip(self._first_elements.tolist(), self.sizes.tolist(), strict=True)
        ]
        return np.concatenate(pieces)

    def range(self, x: torch.Tensor) -> Float:
        """Smallest and largest element of each tensor, [tensors, 2]; x is [size]."""
        if not self.is_joined:
            low, high = torch.aminmax(x)
            return np.array([[float(low), float(high)]])
        ends = (each.reduceat(x.numpy(), self._first_elements) for each in (np.minimum, np.maximum))
        return np.stack(tuple(ends), -1)

    def slab(self, flat: torch.Tensor) -> Slab:
        """Elements [size] seen by their rows."""
        return Slab(flat, [each.part(flat) for each in self._stripes])


class Slab:
    """One block's elements, float64.

    Attributes:
        flat: [size].
        values: The same as numpy, where it sees the memory; else empty.
        rows: [rows, elements] as numpy, where that is all there is to a row sum.
        parts: For each stripe its views.
    """

    __slots__ = ("flat", "parts", "rows", "values")

    def __init__(self, flat: torch.Tensor, parts: list[_Part]) -> None:
        self.flat = flat
        self.values: Float = flat.numpy() if flat.device == _CPU else np.empty(0)
        self.parts = parts
        plain = len(parts) == 1 and parts[0].rest is None
        self.rows = parts[0].rows if plain else None


class _Part:
    """Views of one stripe's elements: as [outer, channels, inner], and as rows where numpy can."""

    __slots__ = ("cube", "rest", "rows")

    def __init__(
        self,
        cube: torch.Tensor,
        rows: NDArray[np.float64] | None = None,
        rest: NDArray[np.float64] | None = None,
    ) -> None:
        self.cube = cube
        self.rows = rows
        self.rest = rest


class _Rows:
    """The rows of one stripe."""

    def __init__(self, stripe: Stripe, first: int, on_cpu: bool) -> None:
        self._stripe = stripe
        self._first = first
        outer, self.channels, inner = stripe.shape
        self.per_channel = outer * inner
        one_pass = on_cpu and _ONE_PASS and inner >= SHORTEST_ROW
        self.parts = _parts(inner) if one_pass else 1
        self.outer = outer if one_pass else 1
        self.count = self.outer * self.channels * self.parts
        self._one_pass = one_pass
        self._length = inner // self.parts if inner % self.parts == 0 else LONGEST_ROW
        self._whole = inner // self._length

    def part(self, flat: torch.Tensor) -> _Part:
        start, (outer, channels, inner) = self._stripe.start, self._stripe.shape
        cube = flat[start : start + self._stripe.size].view(outer, channels, inner)
        if not self._one_pass:
            return _Part(cube)
        rows = cube.numpy().reshape(outer * channels, inner)
        full = self._whole * self._length
        if full == inner:
            return _Part(cube, rows.reshape(-1, self._length))
        whole = rows[:, :full].reshape(outer * channels, self._whole, self._length)
        return _Part(cube, whole, rows[:, full:])

    def dots(self, x: _Part, y: _Part, spare: _Part, out: Float) -> None:
        out = out[self._first : self._first + self.count]
        if x.rows is None or y.rows is None:
            out[:] = torch.mul(x.cube, y.cube, out=spare.cube).sum((0, 2)).cpu().numpy()
        elif x.rest is None or y.rest is None:
            np.vecdot(x.rows, y.rows, out=out)
        else:
            out = out.reshape(-1, self.parts)
            np.vecdot(x.rows, y.rows, out=out[:, : self._whole])
            np.vecdot(x.rest, y.rest, out=out[:, -1])

    def to_channels(self, rows: Float) -> Float:
        cube = rows.reshape(*rows.shape[:-1], self.outer, self.channels, self.parts)
        return np.asarray(cube.sum((-3, -1)))

    def to_rows(self, channels: Float) -> Float:
        shape = *channels.shape[:-1], self.outer, self.channels, self.parts
        spread = np.broadcast_to(channels[..., None, :, None], shape)
        return spread.reshape(*channels.shape[:-1], -1)


def _parts(inner: int) -> int:
    """Rows that make up one run of elements of a channel: equal ones where that is possible."""
    fewest = -(-inner // LONGEST_ROW)
    return next((n for n in range(fewest, 2 * fewest) if inner % n == 0), fewest)


@lru_cache(maxsize=256)
def _geometry(stripes: tuple[Stripe, ...], owners: tuple[int, ...], on_cpu: bool) -> Geometry:
    return Geometry(stripes, owners, on_cpu)


def geometry_of(block: Block, device: torch.device) -> Geometry:
    """The geometry of a block; alike blocks share it."""
    return _geometry(block.stripes, block.owners, device == _CPU)
