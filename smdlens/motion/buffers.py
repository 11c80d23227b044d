"""Sums over what the optimizer kept: momentum, Adam's moments, gradients, S-weighted sums."""

from __future__ import annotations

import numpy as np
import torch

from smdlens.motion import kernels
from smdlens.motion.geometry import Float, Geometry, Slab
from smdlens.motion.layout import Block
from smdlens.motion.plan import AdamSource, TensorPlan
from smdlens.motion.sums import PairSum, SnapshotSum, TensorSums
from smdlens.motion.workspace import Workspace
from smdlens.snapshots.records import TensorRef


class BufferSums:
    """Adds up block by block; snapshots of a block come one after another.

    Args:
        plan: The tensor.
        blocks: How many blocks there are.
        geometry: The shape of the blocks.
        space: Scratch.

    Attributes:
        wanted: Whether any snapshot has buffers.
        snapshot: As `TensorSums.snapshot`; so are pair and s_range.
        grad2: Row sums of squared gradients, [blocks, pairs, rows]; no pairs without a rule.
    """

    def __init__(self, plan: TensorPlan, blocks: int, geometry: Geometry, space: Workspace) -> None:
        self._plan = plan
        self._geometry = geometry
        self._space = space
        self.wanted = any(s.momentum or s.adam for s in plan.snapshots)
        empty = TensorSums.zeros(len(plan.snapshots), 0, None, geometry.tensors)
        self.snapshot, self.pair, self.s_range = empty.snapshot, empty.pair, empty.s_range
        pairs = len(plan.gradients) if any(plan.gradients) else 0
        self.grad2 = np.zeros((blocks, pairs, geometry.rows))
        self._before: _State | None = None
        if self.wanted:
            self._spare = space.slab("spare", geometry)
            self._difference = space.slab("difference", geometry)
            self._weighted = space.slab("weighted", geometry)

    def add(self, place: int, index: int, block: Block, w: Slab) -> None:
        """One block of one snapshot; the one of the snapshot before must be the last that came.

        Args:
            place: Which block of all.
            index: Which snapshot.
            block: The block.
            w: Its weights.
        """
        sources = self._plan.snapshots[index]
        now = _State(w)
        if sources.momentum is not None:
            self._momentum(sources.momentum, index, block, now)
        if sources.adam is not None:
            self._adam(sources.adam, index, block, now)
        if index and self._before is not None:
            self._gradient(self._before, now, place, index - 1)
            self._weight(self._before, now, index - 1)
        self._before = now

    def _momentum(self, source: TensorRef, index: int, block: Block, state: _State) -> None:
        v = self._slab("momentum", index)
        self._space.load(source, block, v.flat)
        v2 = self._dots(v, v)
        if not np.isfinite(v2).all():
            _make_finite(v)
            v2 = self._dots(v, v)
        state.momentum = v
        row = self.snapshot[index]
        row[:, SnapshotSum.V2] += v2
        row[:, SnapshotSum.WV] += self._dots(state.w, v)

    def _adam(self, adam: AdamSource, index: int, block: Block, state: _State) -> None:
        first, second = self._slab("direction", index), self._slab("scale", index)
        vhat, u2 = self._direction(adam, block, first, second, careful=False)
        if not (np.isfinite(vhat).all() and np.isfinite(u2).all()):
            vhat, u2 = self._direction(adam, block, first, second, careful=True)
        state.direction, state.scale, state.bias = first, second, adam.bias1
        row = self.snapshot[index]
        row[:, SnapshotSum.VHAT] += vhat
        row[:, SnapshotSum.U2] += u2
        row[:, SnapshotSum.WU] += self._dots(state.w, first)

    def _direction(
        self, adam: AdamSource, block: Block, first: Slab, second: Slab, *, careful: bool
    ) -> tuple[Float, Float]:
        """Sum of vhat and |u|^2; `careful` puts zero for what is not finite, before and after."""
        self._space.load(adam.first, block, first.flat)
        self._space.load(adam.second, block, second.flat)
        if careful:
            _make_finite(first, second)
        bias = adam.bias1, adam.bias2
        vhat = kernels.adam_direction(first.flat, second.flat, bias, adam.eps, self._geometry)
        if careful:
            _make_finite(first, second)
        return vhat, self._dots(first, first)

    def _gradient(self, before: _State, now: _State, place: int, pair: int) -> None:
        rule = self._plan.gradients[pair]
        if rule is None:
            return
        g = self._difference
        v_a, v_b = before.momentum, now.momentum
        if v_a is None or v_b is None:
            if before.direction is None or now.direction is None:
                return
            v_a, v_b = _first_moment(before, self._weighted), _first_moment(now, g)
        terms = rule.momentum, rule.dampening, rule.weight_decay
        kernels.gradient(before.w.flat, v_a.flat, v_b.flat, terms, g.flat)
        row = self.pair[pair]
        rows = self.grad2[place, pair]
        self._geometry.row_dots(g, g, self._spare, rows)
        row[:, PairSum.GRAD2] += self._geometry.to_tensors(self._geometry.to_channels(rows))
        row[:, PairSum.GRAD_W] += self._dots(g, before.w)
        row[:, PairSum.GRAD_V] += self._dots(g, v_a)

    def _weight(self, before: _State, now: _State, pair: int) -> None:
        """Sums weighted with S, the geometric mean of both ends' sqrt(vhat) + eps."""
        s = self._difference
        if before.scale is not None and now.scale is not None:
            torch.mul(before.scale.flat, now.scale.flat, out=s.flat).sqrt_()
        elif (only := before.scale or now.scale) is not None:
            s.flat.copy_(only.flat)
        else:
            return
        row, weighted = self.pair[pair], self._weighted
        row[:, PairSum.S_SUM] += self._geometry.sums(s.flat)
        ends = (
            (before, PairSum.S_W2_FROM, PairSum.S_WU_FROM, PairSum.S_U2_FROM),
            (now, PairSum.S_W2_TO, PairSum.S_WU_TO, PairSum.S_U2_TO),
        )
        for end, w2, wu, u2 in ends:
            torch.mul(s.flat, end.w.flat, out=weighted.flat)
            row[:, w2] += self._dots(weighted, end.w)
            if end.direction is not None:
                row[:, wu] += self._dots(weighted, end.direction)
                torch.mul(s.flat, end.direction.flat, out=weighted.flat)
                row[:, u2] += self._dots(weighted, end.direction)
        ends_of_s, s_range = self._geometry.range(s.flat), self.s_range[pair]
        np.minimum(s_range[:, 0], ends_of_s[:, 0], out=s_range[:, 0])
        np.maximum(s_range[:, 1], ends_of_s[:, 1], out=s_range[:, 1])

    def _slab(self, name: str, index: int) -> Slab:
        return self._space.slab(f"{name}{index & 1}", self._geometry)

    def _dots(self, x: Slab, y: Slab) -> Float:
        rows = np.empty(self._geometry.rows)
        self._geometry.row_dots(x, y, self._spare, rows)
        return self._geometry.to_tensors(self._geometry.to_channels(rows))


class _State:
    """One snapshot's block in memory: weights, momentum v, Adam's u, sqrt(vhat) + eps and bias."""

    __slots__ = ("bias", "direction", "momentum", "scale", "w")

    def __init__(self, w: Slab) -> None:
        self.w = w
        self.momentum: Slab | None = None
        self.direction: Slab | None = None
        self.scale: Slab | None = None
        self.bias = 1.0


def _first_moment(state: _State, out: Slab) -> Slab:
    """Adam's first moment again, from the direction it became."""
    assert state.direction is not None and state.scale is not None
    torch.mul(state.direction.flat, state.scale.flat, out=out.flat).mul_(state.bias)
    return out


def _make_finite(*slabs: Slab) -> None:
    for slab in slabs:
        slab.flat.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
