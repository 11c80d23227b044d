"""One block through all snapshots, with only the previous and the current one in memory."""

from __future__ import annotations

import numpy as np
import torch

from smdlens.motion import kernels
from smdlens.motion.chord import ChordSums
from smdlens.motion.kernels import Float, dot
from smdlens.motion.layout import Block
from smdlens.motion.plan import AdamSource, GradientRule, SnapshotSources, Task, TensorPlan
from smdlens.motion.rounding import (
    ORDINARY_RMS,
    careful_rounding_variance,
    rounding_variance,
)
from smdlens.motion.sums import PairSum, SnapshotSum, TaskSums, TensorSums, quiet
from smdlens.motion.workspace import Scratch, Workspace

# Squared chord over |b|^2. A sum like |a|^2 carries an error of a few 1e-16 of itself. From here on
# (angles above 0.07) that is below 1e-13 of the chord, however it was obtained.
FAR_APART = 5e-3
# From here on (angles above 1e-3) it is below 1e-12 of what <b - r a, a> adds to the chord.
NOT_NEAR = 1e-6


def run_task(task: Task, space: Workspace) -> TaskSums:
    """Measure a task's blocks one after another and merge their sums."""
    covered = list(task.blocks())
    channel = min(b.channel for b in covered)
    channels = max(b.channel + b.shape[1] for b in covered) - channel
    clock = min(b.clock for b in covered)
    length = max(b.clock + b.shape[0] * b.shape[2] for b in covered) - clock
    plan = task.plan
    total = TensorSums.zeros(len(plan.snapshots), channels, length if plan.clock else None)
    with quiet():
        for block in covered:
            part = measure_block(plan, block, space)
            total.add(part, block.channel - channel, block.clock - clock)
    return TaskSums(task.tensor, channel, clock, total)


def measure_block(plan: TensorPlan, block: Block, space: Workspace) -> TensorSums:
    """Sums over one block in every snapshot and every pair of neighbours.

    A snapshot of NaN, infinite or extraordinarily large or small values is read again with care,
    so the usual one pays nothing for them, and no snapshot's sums depend on any but its neighbours.
    """
    return _BlockWalk(plan, block, space).run()


class _BlockWalk:
    """State of one walk."""

    def __init__(self, plan: TensorPlan, block: Block, space: Workspace) -> None:
        self.plan = plan
        self.block = block
        self.space = space
        self.spare = space.scratch("spare", block.shape)
        self.difference = space.scratch("difference", block.shape)
        outer, channels, inner = block.shape
        clock = outer * inner if plan.clock else None
        self.sums = TensorSums.zeros(len(plan.snapshots), channels, clock)

    def run(self) -> TensorSums:
        before: _State | None = None
        for index, sources in enumerate(self.plan.snapshots):
            now = self._read(sources, index, careful=False)
            if not self._is_ordinary(index):
                self.sums.snapshot[index] = 0.0
                now = self._read(sources, index, careful=True)
            if before is not None:
                self._chord(before, now, index - 1)
                self._gradient(before, now, index - 1, self.plan.gradients[index - 1])
                self._weighted(before, now, index - 1)
            before = now
        return self.sums

    def _is_ordinary(self, index: int) -> bool:
        mean = float(self.sums.w2[index].sum()) / (self.block.high - self.block.low)
        low, high = ORDINARY_RMS
        finite = bool(np.isfinite(self.sums.snapshot[index]).all())
        return low * low < mean < high * high and finite

    def _read(self, sources: SnapshotSources, index: int, careful: bool) -> _State:
        """Bring one snapshot's block in and take the sums that need no neighbour.

        With `careful`, non-finite weights are counted and left out.
        """
        parity, row = index % 2, self.sums.snapshot[index]
        raw = self.space.raw(sources.weights, self.block)
        w = self.space.scratch(f"w{parity}", self.block.shape)
        values = self.space.narrowed(raw)
        w.flat.copy_(values)
        bad = None
        if careful:
            bad = torch.isfinite(w.flat).logical_not_()
            w.flat.masked_fill_(bad, 0.0)
            row[SnapshotSum.NONFINITE] = int(bad.sum())
            row[SnapshotSum.ROUND2] = careful_rounding_variance(raw, bad)
        else:
            row[SnapshotSum.ROUND2] = rounding_variance(values, raw.dtype, self.spare)
        state = _State(w, kernels.channel_norm2(w, self.spare), bad)
        state.wide = sources.weights.dtype == "float64"
        self.sums.w2[index] = state.norm2
        if self.sums.clock is not None:
            self.sums.clock[index] = kernels.channel_sum(w)
        if sources.momentum is not None:
            v = _finite(self.space.load(sources.momentum, self.block, f"v{parity}"), careful)
            state.momentum = v
            row[SnapshotSum.WV] = dot(w, v)
            row[SnapshotSum.V2] = dot(v, v)
        if sources.adam is not None:
            self._read_adam(sources.adam, state, parity, row, careful)
        return state

    def _read_adam(
        self, adam: AdamSource, state: _State, parity: int, row: Float, careful: bool
    ) -> None:
        first = _finite(self.space.load(adam.first, self.block, f"u{parity}"), careful)
        second = _finite(self.space.load(adam.second, self.block, f"s{parity}"), careful)
        bias = adam.bias1, adam.bias2
        row[SnapshotSum.VHAT] = kernels.adam_direction(first, second, bias, adam.eps)
        state.direction, state.scale = _finite(first, careful), _finite(second, careful)
        row[SnapshotSum.WU] = dot(state.w, first)
        row[SnapshotSum.U2] = dot(first, first)

    def _chord(self, before: _State, now: _State, pair: int) -> None:
        a, b, a2, b2 = before.w, now.w, before.norm2, now.norm2
        bad = _either(before.bad, now.bad)
        if bad is not None:
            a, b = self._without(a, bad), self._without(b, bad)
            a2, b2 = kernels.channel_norm2(a, self.spare), kernels.channel_norm2(b, self.spare)
        ratio = kernels.reference_ratio(a2, b2)
        dot_ab = kernels.channel_dot(a, b, self.spare)
        da = dot_ab - ratio * a2
        # |b - r a|^2 and <b - r a, a> from <a, b> alone, where nothing is lost by it.
        dd = b2 - 2.0 * ratio * dot_ab + ratio * ratio * a2
        if not (dd >= FAR_APART * b2).all():
            near = not (dd >= NOT_NEAR * b2).all()
            kernels.residual(a, b, ratio, self.difference, before.wide or now.wide)
            dd = kernels.channel_norm2(self.difference, self.spare)
            if near:
                da = kernels.channel_dot(self.difference, a, self.spare)
        chord: ChordSums = self.sums.chord
        chord.aa[pair], chord.bb[pair], chord.ratio[pair] = a2, b2, ratio
        chord.dd[pair], chord.da[pair] = dd, da

    def _without(self, x: Scratch, bad: torch.Tensor) -> Scratch:
        return Scratch(x.flat.masked_fill(bad, 0.0), self.block.shape)

    def _gradient(self, before: _State, now: _State, pair: int, rule: GradientRule | None) -> None:
        if rule is None or before.momentum is None or now.momentum is None:
            return
        terms = rule.momentum, rule.dampening, rule.weight_decay
        g = self.difference
        kernels.gradient(before.w, before.momentum, now.momentum, terms, g)
        row = self.sums.pair[pair]
        row[PairSum.GRAD2] = dot(g, g)
        row[PairSum.GRAD_W] = dot(g, before.w)
        row[PairSum.GRAD_V] = dot(g, before.momentum)

    def _weighted(self, before: _State, now: _State, pair: int) -> None:
        """Sums weighted with S, the geometric mean of both ends' sqrt(vhat) + eps."""
        s = self.difference
        if before.scale is not None and now.scale is not None:
            torch.mul(before.scale.flat, now.scale.flat, out=s.flat).sqrt_()
        elif (only := before.scale or now.scale) is not None:
            s.flat.copy_(only.flat)
        else:
            return
        row, weighted = self.sums.pair[pair], self.spare
        row[PairSum.S_SUM] = float(s.flat.sum())
        ends = (
            (before, PairSum.S_W2_FROM, PairSum.S_WU_FROM, PairSum.S_U2_FROM),
            (now, PairSum.S_W2_TO, PairSum.S_WU_TO, PairSum.S_U2_TO),
        )
        for end, w2, wu, u2 in ends:
            torch.mul(s.flat, end.w.flat, out=weighted.flat)
            row[w2] = dot(weighted, end.w)
            if end.direction is not None:
                row[wu] = dot(weighted, end.direction)
                torch.mul(s.flat, end.direction.flat, out=weighted.flat)
                row[u2] = dot(weighted, end.direction)
        low, high = torch.aminmax(s.flat)
        self.sums.s_range[pair] = float(low), float(high)


def _finite(x: Scratch, careful: bool) -> Scratch:
    if careful:
        x.flat.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
    return x


def _either(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    """Elements that do not count at one end or the other; None where all do."""
    bad = a | b if a is not None and b is not None else a if b is None else b
    return bad if bad is not None and bool(bad.any()) else None


class _State:
    """One snapshot's block: weights, their norms and what the optimizer kept."""

    __slots__ = ("bad", "direction", "momentum", "norm2", "scale", "w", "wide")

    def __init__(self, w: Scratch, norm2: Float, bad: torch.Tensor | None) -> None:
        self.w = w
        self.norm2 = norm2
        self.bad = bad
        self.wide = False
        self.momentum: Scratch | None = None
        self.direction: Scratch | None = None
        self.scale: Scratch | None = None
