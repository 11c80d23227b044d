"""Alike blocks of one tensor: read through all snapshots, then brought to sums all at once.

A block of one snapshot takes some tens of microseconds, as long as a few calls from Python. So only
what needs the elements in memory is done block by block: reading, converting, products summed by
row. What is made of row sums is made for all blocks and snapshots of a panel together.
"""

from __future__ import annotations

import numpy as np
import torch

from smdlens.motion.buffers import BufferSums
from smdlens.motion.chord import side_by_side
from smdlens.motion.geometry import Float, Slab, geometry_of
from smdlens.motion.layout import Block
from smdlens.motion.pairs import Chords, NearEnd
from smdlens.motion.plan import TensorPlan
from smdlens.motion.rounding import RoundingSample
from smdlens.motion.sums import SnapshotSum, TensorSums
from smdlens.motion.workspace import Workspace

# Elements of a block from which on looking at each pair of each block takes too long; in blocks
# this large it is also seldom that one needs what the first did not.
_WORTH_A_GUESS = 1 << 13


class Panel:
    """Measures alike blocks.

    Args:
        plan: The tensor.
        blocks: Of one shape; of the same channels, or each of the next ones.
        space: Scratch.
    """

    def __init__(self, plan: TensorPlan, blocks: tuple[Block, ...], space: Workspace) -> None:
        self._plan = plan
        self._blocks = blocks
        self._space = space
        self._geometry = geometry_of(blocks[0], space.device)
        self._weights = [space.slab(f"weights{k}", self._geometry) for k in (0, 1)]
        self._spare = space.slab("spare", self._geometry)
        size = self._geometry.size
        self._loaders = [
            space.loader(sources.weights, size, self._weights[index & 1].flat)
            for index, sources in enumerate(plan.snapshots)
        ]
        snapshots, count = len(plan.snapshots), len(blocks)
        self._norm2 = np.empty((count, snapshots, self._geometry.rows))
        # What depends on other snapshots must not decide this: it shows in the last bits.
        self._guesses = size >= _WORTH_A_GUESS and self._weights[0].rows is not None
        self._guesses = self._guesses and not plan.clock
        self._chords = Chords(plan, count, self._geometry, space, guesses=self._guesses)
        self._rounding = RoundingSample(plan, blocks, self._geometry, space)
        outer, _, inner = blocks[0].stripes[0].shape
        self._clock = np.zeros((snapshots, outer * inner)) if plan.clock else None
        self._nonfinite = np.zeros((snapshots, self._geometry.tensors))

    def measure(self) -> TensorSums:
        """Sums over all blocks in every snapshot and every pair of neighbours.

        Where some weight is not finite all is read again with care, so the usual run pays nothing
        for it.
        """
        buffers = self._walk(careful=False)
        if not np.isfinite(self._norm2).all():
            buffers = self._walk(careful=True)
        return self._summed(buffers)

    def _walk(self, *, careful: bool) -> BufferSums:
        """Bring every block of every snapshot in."""
        buffers = BufferSums(self._plan, len(self._blocks), self._geometry, self._space)
        self._chords.clear()
        quick = self._guesses and not buffers.wanted and not careful
        for place, block in enumerate(self._blocks):
            if place and quick:
                self._next_block(place, block)
            else:
                self._block(place, block, buffers, careful=careful)
        return buffers

    def _block(self, place: int, block: Block, buffers: BufferSums, *, careful: bool) -> None:
        """Bring one block of every snapshot in."""
        geometry, spare = self._geometry, self._spare
        a, a2, bad_a = self._weights[1], self._norm2[place, 0], None
        for index, load in enumerate(self._loaders):
            b, b2, bad_b = self._weights[index & 1], self._norm2[place, index], None
            load(block)
            geometry.row_dots(b, b, spare, b2)
            if careful and not np.isfinite(b2).all():
                bad_b = self._without_nonfinite(b, b2)
            if index:
                self._chords.add(place, index - 1, (a, a2, bad_a), (b, b2, bad_b))
            self._rounding.add(place, index, b, bad_b)
            if bad_b is not None:
                self._nonfinite[index] += geometry.sums(bad_b)
            if self._clock is not None:
                (part,) = b.parts
                self._clock[index] = part.cube.sum(1).view(-1).cpu().numpy()
            if buffers.wanted:
                buffers.add(place, index, block, b)
            a, a2, bad_a = b, b2, bad_b

    def _next_block(self, place: int, block: Block) -> None:
        """The same with nothing said twice, for blocks of weights behind the first.

        Which pairs need their difference formed is known from the blocks before; where that was
        wrong, two snapshots of the block are read again.
        """
        chords, near, vecdot = self._chords, self._chords.near, np.vecdot
        rows = [w.rows for w in self._weights if w.rows is not None]
        norm2, products = list(self._norm2[place]), chords.products(place)
        here, kept = self._rounding.room(place)
        sampled = [w.values[here] for w in self._weights]
        for index, load in enumerate(self._loaders):
            b = rows[index & 1]
            load(block)
            vecdot(b, b, norm2[index])
            if index:
                pair = index - 1
                if near[pair]:
                    chords.add_near(place, pair, *self._ends(pair, norm2))
                else:
                    vecdot(rows[pair & 1], b, products[pair])
            kept[index][:] = sampled[index & 1]
        for pair in chords.overlooked(place, self._norm2[place]):
            self._loaders[pair](block)
            self._loaders[pair + 1](block)
            chords.add_near(place, pair, *self._ends(pair, norm2))

    def _ends(self, pair: int, norm2: list[Float]) -> tuple[NearEnd, NearEnd]:
        """Both ends of a pair whose weights are the last two that were loaded."""
        a, b = self._weights[pair & 1], self._weights[1 - (pair & 1)]
        return (a, norm2[pair]), (b, norm2[pair + 1])

    def _without_nonfinite(self, w: Slab, norm2: Float) -> torch.Tensor:
        """Set what is not finite to zero; returns where that was."""
        # On the CPU by numpy: torch makes a float64 copy on the way.
        on_cpu = len(w.values) > 0
        finite = torch.from_numpy(np.isfinite(w.values)) if on_cpu else torch.isfinite(w.flat)
        bad = finite.logical_not_()
        w.flat.masked_fill_(bad, 0.0)
        self._geometry.row_dots(w, w, self._spare, norm2)
        return bad

    def _summed(self, buffers: BufferSums) -> TensorSums:
        """From rows of blocks to channels of the panel."""
        w2 = self._geometry.to_channels(self._norm2)
        chord = self._chords.summed(self._norm2)
        grad2 = self._geometry.to_channels(buffers.grad2)
        if len(self._blocks) > 1 and self._blocks[0].channel == self._blocks[1].channel:
            w2, grad2, chord = w2.sum(0), grad2.sum(0), chord.merged_over_blocks()
        else:
            w2, grad2, chord = side_by_side(w2), side_by_side(grad2), chord.side_by_side()
        buffers.snapshot[..., SnapshotSum.NONFINITE] = self._nonfinite
        sample = self._rounding.sample()
        self._rounding.summed(buffers.snapshot)
        return TensorSums(
            w2,
            buffers.snapshot,
            self._clock,
            chord,
            buffers.pair,
            buffers.s_range,
            sample,
            grad2,
        )
