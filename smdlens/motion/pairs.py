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
# The row sums |a|^2, |b|^2 and <a, b> carry errors of about 1e-16 each, and so does
# D = |b|^2 - 2 r <a, b> + r^2 |a|^2; over the n rows of a tensor they average out to
# 4e-16 |b|^2 / sqrt(n). Where D is at least FAR_APART / sqrt(n) of |b|^2, three times that is below
# 1e-12 of it.
FAR_APART = 2e-3
# Never below this: from here on (angles above 1e-3) <a, b> - r |a|^2 is good to 1e-12 of what it
# adds to the chord, and the D of a channel, one row or few, to 1e-9.
NOT_NEAR = 1e-6


class Chords:
    """Keeps the row sums of pairs until they become sums of channels, all at once.

    Args:
        plan: The tensor.
        blocks: How many blocks there are.
        geometry: Their shape.
        space: Scratch.
    """

    def __init__(self, plan: TensorPlan, blocks: int, geometry: Geometry, space: Workspace) -> None:
        self._geometry = geometry
        self._space = space
        self._spare = space.slab("spare", geometry)
        self._difference = space.slab("difference", geometry)
        self._wide = [s.weights.dtype == "float64" for s in plan.snapshots]
        self._ab = np.empty((blocks, max(len(plan.snapshots) - 1, 0), geometry.rows))
        sizes = np.array([plan.numel]) if plan.joined is None else geometry.sizes
        far = FAR_APART / np.sqrt(np.maximum(sizes / LONGEST_ROW, 1.0))
        self._cos2_far = 1.0 - geometry.to_rows(geometry.of_owner(np.maximum(far, NOT_NEAR)))
        self._exact: dict[tuple[int, int], _Exact] = {}
        self._masked: dict[tuple[int, int], tuple[Float, Float]] = {}

    def add(self, block: int, pair: int, start: End, end: End) -> None:
        """One more pair in one more block."""
        a, aa, bad_a = start
        b, bb, bad_b = end
        if bad_a is not None or bad_b is not None:
            a, b, aa, bb = self._without(a, b, bad_a, bad_b)
            self._masked[block, pair] = aa, bb
        ab = self._ab[block, pair]
        self._geometry.row_dots(a, b, self._spare, ab)
        if self._is_close(aa, bb, ab).any():
            self._exact[block, pair] = self._from_difference(a, b, aa, bb, pair)

    def clear(self) -> None:
        """Forget what was added."""
        self._exact.clear()
        self._masked.clear()

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
        if self._exact:
            counts = geometry.whole_tensors(self._is_close(aa, bb, ab))
            for at, exact in self._exact.items():
                where = counts[at]
                dd[at][where], da[at][where] = exact.dd[where], exact.da[where]
                ratio[at][where] = np.broadcast_to(exact.ratio, where.shape)[where]
        return ChordSums(a2, b2, dd, da, ratio)

    def _is_close(self, aa: Float, bb: Float, ab: Float) -> Flags:
        close: Flags = ab * ab > self._cos2_far * (aa * bb)
        return close

    def _from_difference(self, a: Slab, b: Slab, aa: Float, bb: Float, pair: int) -> _Exact:
        """Sums of b - r a itself.

        One r does for a whole tensor: its chord has one c, and how far channels stray from it is
        part of that chord.
        """
        geometry, difference = self._geometry, self._difference
        if geometry.tensors == 1:
            a2, b2 = aa.sum(keepdims=True), bb.sum(keepdims=True)
        else:
            a2, b2 = geometry.to_channels(aa), geometry.to_channels(bb)
        ratio = kernels.reference_ratio(a2, b2)
        wide = self._wide[pair] or self._wide[pair + 1]
        kernels.residual(a, b, ratio, difference, wide=wide)
        dd, da = np.empty(geometry.rows), np.empty(geometry.rows)
        geometry.row_dots(difference, difference, self._spare, dd)
        geometry.row_dots(difference, a, self._spare, da)
        return _Exact(ratio, geometry.to_channels(dd), geometry.to_channels(da))

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


@dataclass(frozen=True, slots=True)
class _Exact:
    """Sums of b - r a by channel, and r: one, or one for each channel."""

    ratio: Float
    dd: Float
    da: Float
