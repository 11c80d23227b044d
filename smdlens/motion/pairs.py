"""Chords of the pairs of neighbouring snapshots, over alike blocks of one tensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from smdlens.motion import kernels
from smdlens.motion.chord import ChordSums
from smdlens.motion.geometry import LONGEST_ROW, Float, Geometry, Slab
from smdlens.motion.plan import TensorPlan
from smdlens.motion.workspace import Workspace

Flags = NDArray[np.bool_]
# One end of a pair: weights, their row sums of squares, and which of them are not finite.
End = tuple[Slab, Float, torch.Tensor | None]
NearEnd = tuple[Slab, Float]
# The row sums |a|^2, |b|^2 and <a, b> carry errors of about 1e-16 each, and so does
# D = |b|^2 - 2 r <a, b> + r^2 |a|^2; over the n rows of a tensor they average out to
# 4e-16 |b|^2 / sqrt(n). Where D is at least FAR_APART / sqrt(n) of |b|^2, three times that is below
# 1e-12 of it.
FAR_APART = 2e-3
# Never below this: from here on (angles above 1e-3) <a, b> - r |a|^2 is good to 1e-12 of what it
# adds to the chord, and the D of a channel, one row or few, to 1e-9.
NOT_NEAR = 1e-6
# Blocks of one tensor are not equally far apart. Where the first is far, only one that is nearer
# by this much is formed anew: the error of the whole then is still about 1e-12 (measured: 1.2e-12).
MARGIN = 2.0


class Chords:
    """Keeps the row sums of pairs until they become sums of channels, all at once.

    Args:
        plan: The tensor.
        blocks: How many blocks there are.
        geometry: Their shape.
        space: Scratch.
        guesses: Whether the first block tells what the others are taken to need.

    Attributes:
        near: Of each pair, whether some block was found to need the difference itself; the blocks
            that follow are then taken to need it too, which costs time and no accuracy.
    """

    def __init__(
        self,
        plan: TensorPlan,
        blocks: int,
        geometry: Geometry,
        space: Workspace,
        *,
        guesses: bool,
    ) -> None:
        self._geometry = geometry
        self._space = space
        self._spare = space.slab("spare", geometry)
        self._difference = space.slab("difference", geometry)
        self._wide = [s.weights.dtype == "float64" for s in plan.snapshots]
        pairs = max(len(plan.snapshots) - 1, 0)
        self._ab = np.empty((blocks, pairs, geometry.rows))
        sizes = np.array([plan.numel]) if plan.joined is None else geometry.sizes
        far = FAR_APART / np.sqrt(np.maximum(sizes / LONGEST_ROW, 1.0))
        if geometry.is_joined:
            far = geometry.to_rows(geometry.of_owner(far))
        self._cos_far = np.sqrt(1.0 - np.maximum(far, NOT_NEAR))
        self._cos_nearer = np.sqrt(1.0 - np.maximum(far / MARGIN, NOT_NEAR))
        self._guesses = guesses
        self._exact: _Exact | None = None
        self._masked: dict[tuple[int, int], tuple[Float, Float]] = {}
        self.near = [False] * pairs

    def add(self, block: int, pair: int, start: End, end: End) -> None:
        """One more pair in one more block."""
        a, aa, bad_a = start
        b, bb, bad_b = end
        if bad_a is not None or bad_b is not None:
            a, b, aa, bb = self._without(a, b, bad_a, bad_b)
            self._masked[block, pair] = aa, bb
        ab = self._ab[block, pair]
        self._geometry.row_dots(a, b, self._spare, ab)
        has_guess = self._guesses and block > 0
        cos = self._cos_nearer if has_guess else self._cos_far
        if (has_guess and self.near[pair]) or _is_close(aa, bb, ab, cos).any():
            self.add_near(block, pair, (a, aa), (b, bb))

    def products(self, block: int) -> list[Float]:
        """Where <a, b> of each pair's rows goes, for pairs that are not near."""
        return list(self._ab[block])

    def overlooked(self, block: int, norm2: Float) -> list[int]:
        """Pairs whose products show that they are near in this block, though not in those before.

        Args:
            block: The block.
            norm2: Its row sums of squares, [snapshots, rows].
        """
        close = _is_close(norm2[:-1], norm2[1:], self._ab[block], self._cos_nearer)
        found: list[int] = np.flatnonzero(np.any(close, axis=-1)).tolist()
        return [pair for pair in found if not self.near[pair]]

    def add_near(self, block: int, pair: int, start: NearEnd, end: NearEnd) -> None:
        """Sums of b - r a itself, from both ends and their row sums of squares.

        One r does for a whole tensor: its chord has one c, and how far channels stray from it is
        part of that chord.
        """
        (a, aa), (b, bb) = start, end
        geometry, difference = self._geometry, self._difference
        if self._exact is None:
            self._exact = _Exact.empty(*self._ab.shape, geometry.channels)
        exact = self._exact
        ratio: Float | float
        if not geometry.is_joined:
            ratio = kernels.one_reference_ratio(float(aa.sum()), float(bb.sum()))
        else:
            ratio = kernels.reference_ratio(geometry.to_channels(aa), geometry.to_channels(bb))
        wide = self._wide[pair] or self._wide[pair + 1]
        kernels.residual(a, b, ratio, difference, wide=wide)
        geometry.row_dots(difference, difference, self._spare, exact.dd[block, pair])
        geometry.row_dots(difference, a, self._spare, exact.da[block, pair])
        exact.ratio[block, pair] = ratio
        exact.taken[block, pair] = self.near[pair] = True

    def clear(self) -> None:
        """Forget what was added."""
        self._exact = None
        self._masked.clear()
        self.near = [False] * len(self.near)

    def summed(self, norm2: Float) -> ChordSums:
        """Sums of channels, [blocks, pairs, channels].

        Args:
            norm2: Row sums of squares, [blocks, snapshots, rows].
        """
        geometry, ab = self._geometry, self._ab
        aa, bb = norm2[:, :-1], norm2[:, 1:]
        if self._masked:
            aa, bb = aa.copy(), bb.copy()
        for at, (start2, end2) in self._masked.items():
            aa[at], bb[at] = start2, end2
        a2, b2 = geometry.to_channels(aa), geometry.to_channels(bb)
        ratio = kernels.reference_ratio(a2, b2)
        r = geometry.to_rows(ratio)
        # |b - r a|^2 and <b - r a, a> from <a, b> alone, where nothing is lost by it.
        dd = geometry.to_channels(bb - 2.0 * (r * ab) + r * r * aa)
        da = geometry.to_channels(ab - r * aa)
        if (exact := self._exact) is not None:
            counts = exact.taken[..., None]
            if geometry.is_joined:
                counts = counts & geometry.whole_tensors(_is_close(aa, bb, ab, self._cos_far))
            dd = np.where(counts, geometry.to_channels(exact.dd), dd)
            da = np.where(counts, geometry.to_channels(exact.da), da)
            ratio = np.where(counts, exact.ratio, ratio)
        return ChordSums(a2, b2, dd, da, ratio)

    def _without(
        self, a: Slab, b: Slab, bad_a: torch.Tensor | None, bad_b: torch.Tensor | None
    ) -> tuple[Slab, Slab, Float, Float]:
        """Both ends, and their row sums of squares, without what is not finite at either."""
        geometry = self._geometry
        if bad_b is not None:
            a = self._masked_copy("start", a, bad_b)
        if bad_a is not None:
            b = self._masked_copy("end", b, bad_a)
        aa, bb = np.empty(geometry.rows), np.empty(geometry.rows)
        geometry.row_dots(a, a, self._spare, aa)
        geometry.row_dots(b, b, self._spare, bb)
        return a, b, aa, bb

    def _masked_copy(self, name: str, x: Slab, bad: torch.Tensor) -> Slab:
        copy = self._space.slab(name, self._geometry)
        copy.flat.copy_(x.flat).masked_fill_(bad, 0.0)
        return copy


def _is_close(aa: Float, bb: Float, ab: Float, cos: Float) -> Flags:
    """Rows whose angle is below that of `cos`; a^2 b^2 need not be a number that float64 has."""
    close: Flags = ab > cos * (np.sqrt(aa) * np.sqrt(bb))
    return close


@dataclass(frozen=True, slots=True)
class _Exact:
    """Row sums of b - r a where it was formed, r of each channel, and where that was."""

    dd: Float
    da: Float
    ratio: Float
    taken: Flags

    @classmethod
    def empty(cls, blocks: int, pairs: int, rows: int, channels: int) -> _Exact:
        """Room for all, taken nowhere."""
        dd, da = np.empty((blocks, pairs, rows)), np.empty((blocks, pairs, rows))
        taken = np.zeros((blocks, pairs), dtype=bool)
        return cls(dd, da, np.empty((blocks, pairs, channels)), taken)
