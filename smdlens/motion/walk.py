"""One block through all snapshots, with only the previous and the current one in memory."""

from __future__ import annotations

import numpy as np
import torch

from smdlens.motion import kernels
from smdlens.motion.chord import ChordSums
from smdlens.motion.layout import Block
from smdlens.motion.plan import GradientRule, SnapshotSources, Task, TensorPlan
from smdlens.motion.rounding import rounding_variance
from smdlens.motion.sums import PairSum, SnapshotSum, TaskSums, TensorSums
from smdlens.motion.workspace import Workspace


def run_task(task: Task, space: Workspace) -> TaskSums:
    """Measure a task's blocks one after another and merge their sums."""
    covered = list(task.blocks())
    channel = min(b.channel for b in covered)
    channels = max(b.channel + b.shape[1] for b in covered) - channel
    clock = min(b.clock for b in covered)
    length = max(b.clock + b.shape[0] * b.shape[2] for b in covered) - clock
    plan = task.plan
    total = TensorSums.zeros(len(plan.snapshots), channels, length if plan.clock else None)
    for block in covered:
        part = measure_block(plan, block, space)
        total.add(part, block.channel - channel, block.clock - clock)
    return TaskSums(task.tensor, channel, clock, total)


def measure_block(plan: TensorPlan, block: Block, space: Workspace) -> TensorSums:
    """Sums over one block in every snapshot and every pair of neighbours.

    A block with NaN or infinite values is measured again with them left out (in both ends of a
    pair), so the usual case pays nothing for them.
    """
    sums = _BlockWalk(plan, block, space, masked=False).run()
    if all(np.isfinite(x).all() for x in (sums.w2, sums.snapshot, sums.chord.dd, sums.pair)):
        return sums
    return _BlockWalk(plan, block, space, masked=True).run()


class _BlockWalk:
    def __init__(self, plan: TensorPlan, block: Block, space: Workspace, masked: bool) -> None:
        self.plan = plan
        self.block = block
        self.space = space
        self.masked = masked
        self.snapshot: list[dict[int, torch.Tensor]] = []
        self.pair: list[dict[int, torch.Tensor]] = []

    def run(self) -> TensorSums:
        plan, shape = self.plan, self.block.shape
        sums = TensorSums.zeros(
            len(plan.snapshots), shape[1], shape[0] * shape[2] if plan.clock else None
        )
        before: _State | None = None
        w2: list[torch.Tensor] = []
        chords: list[torch.Tensor] = []
        for index, sources in enumerate(plan.snapshots):
            now = self._read(sources, index % 2)
            w2.append(now.norm2)
            if sums.clock is not None:
                sums.clock[index] = now.w.sum(1).view(-1).cpu().numpy()
            if before is not None:
                chords.append(self._chord(before, now))
                self.pair.append(self._pair(before, now, plan.gradients[index - 1]))
                if before.scale is not None or now.scale is not None:
                    sums.s_range[index - 1] = self._s_sums(before, now, self.pair[-1])
            before = now
        sums.w2[:] = torch.stack(w2).cpu().numpy()
        _fill(sums.snapshot, self.snapshot)
        _fill(sums.pair, self.pair)
        if chords:
            aa, bb, dd, da, ratio = torch.stack(chords).cpu().numpy().swapaxes(0, 1)
            sums.chord = ChordSums(aa, bb, dd, da, ratio)
        return sums

    def _read(self, sources: SnapshotSources, parity: int) -> _State:
        """Bring one snapshot's block in and take the sums that need no neighbour."""
        shape, space = self.block.shape, self.space
        out: dict[int, torch.Tensor] = {}
        scratch = space.scratch("scratch", shape)
        raw = space.raw(sources.weights, self.block)
        w = space.scratch(f"w{parity}", shape).copy_(raw.view(shape))
        bad = None
        if self.masked:
            bad = torch.isfinite(w).logical_not_()
            w.masked_fill_(bad, 0.0)
            out[SnapshotSum.NONFINITE] = bad.sum().to(torch.float64)
        norm2 = kernels.channel_norm2(w, scratch)
        rms = float((norm2.sum() / w.numel()).sqrt()) if w.device.type == "cpu" else 0.0
        out[SnapshotSum.ROUND2] = rounding_variance(raw, scratch, rms, bad)
        state = _State(w, norm2, bad, sources.weights.dtype == "float64")
        if sources.momentum is not None:
            v = self._finite(space.load(sources.momentum, self.block, f"v{parity}"))
            state.momentum = v
            out[SnapshotSum.WV] = _dot(w, v)
            out[SnapshotSum.V2] = _dot(v, v)
        if sources.adam is not None:
            adam = sources.adam
            first = self._finite(space.load(adam.first, self.block, f"u{parity}"))
            second = self._finite(space.load(adam.second, self.block, f"s{parity}"))
            u, scale, vhat = kernels.adam_direction(first, second, adam.bias1, adam.bias2, adam.eps)
            state.direction, state.scale = self._finite(u), self._finite(scale)
            out[SnapshotSum.WU] = _dot(w, u)
            out[SnapshotSum.U2] = _dot(u, u)
            out[SnapshotSum.VHAT] = vhat
        self.snapshot.append(out)
        return state

    def _finite(self, x: torch.Tensor) -> torch.Tensor:
        return x.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0) if self.masked else x

    def _chord(self, before: _State, now: _State) -> torch.Tensor:
        """|a|^2, |b|^2, |b - r a|^2, <b - r a, a>, r per channel as [5, channels]."""
        a, b, a2, b2 = before.w, now.w, before.norm2, now.norm2
        scratch = self.space.scratch("scratch", self.block.shape)
        difference = self.space.scratch("difference", self.block.shape)
        if before.bad is not None and now.bad is not None:
            bad = before.bad | now.bad
            a, b = a.masked_fill(bad, 0.0), b.masked_fill(bad, 0.0)
            a2, b2 = kernels.channel_norm2(a, scratch), kernels.channel_norm2(b, scratch)
        ratio = kernels.reference_ratio(a2, b2)
        kernels.residual(a, b, ratio, difference, before.wide or now.wide)
        return torch.stack(
            (
                a2,
                b2,
                kernels.channel_norm2(difference, scratch),
                kernels.channel_dot(difference, a, scratch),
                ratio,
            )
        )

    def _pair(
        self, before: _State, now: _State, rule: GradientRule | None
    ) -> dict[int, torch.Tensor]:
        if rule is None or before.momentum is None or now.momentum is None:
            return {}
        out = self.space.scratch("difference", self.block.shape)
        terms = rule.momentum, rule.dampening, rule.weight_decay
        g = kernels.gradient(before.w, before.momentum, now.momentum, terms, out)
        return {
            PairSum.GRAD2: _dot(g, g),
            PairSum.GRAD_W: _dot(g, before.w),
            PairSum.GRAD_V: _dot(g, before.momentum),
        }

    def _s_sums(
        self, before: _State, now: _State, out: dict[int, torch.Tensor]
    ) -> tuple[float, float]:
        """S-weighted sums (docs/theory.md) into `out`; returns the smallest and largest S."""
        s = self.space.scratch("difference", self.block.shape)
        if before.scale is None or now.scale is None:
            only = now.scale if before.scale is None else before.scale
            assert only is not None
            s.copy_(only)
        else:
            torch.mul(before.scale, now.scale, out=s).sqrt_()
        out[PairSum.S_SUM] = s.sum()
        weighted = self.space.scratch("scratch", self.block.shape)
        ends = (
            (before, PairSum.S_W2_FROM, PairSum.S_WU_FROM, PairSum.S_U2_FROM),
            (now, PairSum.S_W2_TO, PairSum.S_WU_TO, PairSum.S_U2_TO),
        )
        for end, w2, wu, u2 in ends:
            torch.mul(s, end.w, out=weighted)
            out[w2] = _dot(weighted, end.w)
            if end.direction is not None:
                out[wu] = _dot(weighted, end.direction)
                torch.mul(s, end.direction, out=weighted)
                out[u2] = _dot(weighted, end.direction)
        low, high = torch.aminmax(s)
        return float(low), float(high)


class _State:
    """One snapshot's block: weights, their norms and what the optimizer kept."""

    def __init__(
        self, w: torch.Tensor, norm2: torch.Tensor, bad: torch.Tensor | None, wide: bool
    ) -> None:
        self.w = w
        self.norm2 = norm2
        self.bad = bad
        self.wide = wide
        self.momentum: torch.Tensor | None = None
        self.direction: torch.Tensor | None = None
        self.scale: torch.Tensor | None = None


def _dot(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.dot(x.view(-1), y.view(-1))


def _fill(
    table: np.ndarray[tuple[int, ...], np.dtype[np.float64]], rows: list[dict[int, torch.Tensor]]
) -> None:
    """Bring all scalars of a block over in one transfer."""
    places = [(i, column) for i, row in enumerate(rows) for column in row]
    if places:
        values = torch.stack([row[column] for row in rows for column in row]).cpu().numpy()
        table[tuple(np.array(places).T)] = values
