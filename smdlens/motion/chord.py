"""Squared chord |b - c a|^2 with c = |b| / |a|, from sums that merge by adding.

|a - b|^2 loses the angle when the norm moves, and c is known only after the last block. So every
block uses a reference ratio r of its own, near c, and keeps the sums A = |a|^2, B = |b|^2,
D = |b - r a|^2 and X = <b - r a, a>; moving them to another ratio c is exact algebra:

    |b - c a|^2 = D - 2 (c - r) X + (c - r)^2 A        <b - c a, a> = X - (c - r) A

(derived in docs/theory.md). It stays accurate because c - r is no larger than the true spread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


@dataclass(slots=True)
class ChordSums:
    """Sums over the elements of each piece; float64 arrays of one shape.

    Attributes:
        aa: |a|^2.
        bb: |b|^2.
        dd: |b - r a|^2.
        da: <b - r a, a>.
        ratio: r.
    """

    aa: Float
    bb: Float
    dd: Float
    da: Float
    ratio: Float

    @classmethod
    def zeros(cls, *shape: int) -> ChordSums:
        """Sums over nothing."""
        aa, bb, dd, da = (np.zeros(shape) for _ in range(4))
        return cls(aa, bb, dd, da, np.ones(shape))

    def merged(self, other: ChordSums) -> ChordSums:
        """Sums over both pieces, with the reference of the piece that has more of |a|^2.

        Moving the smaller piece costs at most twice the spread that the merged chord has anyway.
        """
        ratio = np.where(other.aa > self.aa, other.ratio, self.ratio)
        mine, theirs = self._moved(ratio), other._moved(ratio)
        return ChordSums(
            self.aa + other.aa,
            self.bb + other.bb,
            mine[0] + theirs[0],
            mine[1] + theirs[1],
            ratio,
        )

    def merged_over_blocks(self) -> ChordSums:
        """From sums of blocks of the same pieces, [blocks, ...], to their sums over all blocks."""
        most = self.aa.argmax(0)[None]
        ratio = np.take_along_axis(self.ratio, most, 0)[0]
        dd, da = self._moved(ratio)
        return ChordSums(self.aa.sum(0), self.bb.sum(0), dd.sum(0), da.sum(0), ratio)

    def side_by_side(self) -> ChordSums:
        """From sums of blocks of channels, [blocks, pairs, channels], to those of all channels."""
        return ChordSums(*(side_by_side(getattr(self, name)) for name in self.__slots__))

    def of(self, channels: slice) -> ChordSums:
        """The sums of some channels of [pairs, channels], as views."""
        return ChordSums(*(getattr(self, name)[:, channels] for name in self.__slots__))

    def take(self, channels: NDArray[np.intp]) -> ChordSums:
        """The sums of some channels of [pairs, channels], as [pairs, *channels.shape]."""
        return ChordSums(*(np.take(getattr(self, name), channels, 1) for name in self.__slots__))

    def add_at(self, channel: int, other: ChordSums) -> None:
        """Merge `other` [pairs, channels] into the channels from `channel` on, in place."""
        where = slice(channel, channel + other.aa.shape[1])
        part = self.of(where)
        if part.aa.any() or part.bb.any():
            other = part.merged(other)
        for name in self.__slots__:
            getattr(self, name)[:, where] = getattr(other, name)

    def chord2(self) -> Float:
        """|b - c a|^2 with each piece's own c; NaN where a or b is zero."""
        return self._at(_ratio(self.aa, self.bb))

    def total_chord2(self) -> Float:
        """|b - c a|^2 of all pieces along the last axis as one vector, one c for all."""
        total = _ratio(self.aa.sum(-1), self.bb.sum(-1))
        moved: Float = self._at(total[..., None]).sum(-1)
        return moved

    def dot(self) -> Float:
        """<a, b> of each piece."""
        return self.da + self.ratio * self.aa

    def _at(self, ratio: Float) -> Float:
        return np.maximum(self._moved(ratio)[0], 0.0)

    def _moved(self, ratio: Float) -> tuple[Float, Float]:
        shift = ratio - self.ratio
        return self.dd - 2 * shift * self.da + shift * shift * self.aa, self.da - shift * self.aa


def side_by_side(x: Float) -> Float:
    """[blocks, rows, channels] as [rows, blocks * channels]."""
    blocks, rows, channels = x.shape
    return np.ascontiguousarray(x.transpose(1, 0, 2)).reshape(rows, blocks * channels)


def _ratio(aa: Float, bb: Float) -> Float:
    return np.where((aa > 0) & (bb > 0), np.sqrt(bb / aa), np.nan)
