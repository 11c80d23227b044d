"""Blocks through all snapshots, with only the previous and the current one in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from smdlens.motion.device import CPU_BLOCK
from smdlens.motion.geometry import geometry_of
from smdlens.motion.layout import Block
from smdlens.motion.panel import Panel
from smdlens.motion.plan import Task, TensorPlan
from smdlens.motion.sums import TaskSums, TensorSums, quiet
from smdlens.motion.workspace import Workspace

# Row sums of each kind and snapshot that a panel keeps for all its blocks. More would be wanted for
# few snapshots; but where panels are cut shows in the last bits, and a tensor's sums are to be the
# same bit by bit among however many snapshots it is measured.
_KEPT = 1 << 13


def run_task(task: Task, space: Workspace) -> TaskSums:
    """Measure a task's blocks and merge their sums.

    Weights that are NaN or infinite are left out of the sums of their own snapshot and of its two
    pairs, and counted. No snapshot's sums depend on any but its neighbours.
    """
    if task.plan.joined is not None:
        space = space.on_cpu()
    covered = task.covered
    with quiet():
        runs = _alike(task.plan, covered, space)
        total = _merged(task.plan, covered, ((run, _fitted(task.plan, run, space)) for run in runs))
    channel, clock = min(b.channel for b in covered), min(b.clock for b in covered)
    return TaskSums(channel, clock, total)


def _merged(
    plan: TensorPlan,
    covered: Sequence[Block],
    parts: Iterable[tuple[Sequence[Block], TensorSums]],
) -> TensorSums:
    """One after another, the sums of some of the blocks added up to those of all."""
    channel, clock = min(b.channel for b in covered), min(b.clock for b in covered)
    total: TensorSums | None = None
    for blocks, part in parts:
        if len(blocks) == len(covered):
            return part
        if total is None:
            channels = max(b.channel + b.channels for b in covered) - channel
            length = max(b.clock + b.shape[0] * b.shape[2] for b in covered) - clock
            size = length if plan.clock else None
            slots = part.sample.shape[1]
            total = TensorSums.zeros(len(plan.snapshots), channels, size, slots=slots)
        total.add(part, blocks[0].channel - channel, blocks[0].clock - clock)
    assert total is not None, "there is at least one block"
    return total


def _fitted(plan: TensorPlan, blocks: tuple[Block, ...], space: Workspace) -> TensorSums:
    """Sums over alike blocks; one that does not fit a GPU's memory is halved, or left to the CPU.

    Sums do not depend on where blocks are cut, so nothing else changes.
    """
    size = blocks[0].size
    if size <= space.most_elements:
        try:
            return Panel(plan, blocks, space).measure()
        except torch.OutOfMemoryError:
            space.give_way(size)
    if plan.gathered or (space.most_elements == 0 and size <= CPU_BLOCK):
        return Panel(plan, blocks, space.on_cpu()).measure()
    halves = [half for block in blocks for half in block.halves()]
    return _merged(plan, halves, (((half,), _fitted(plan, (half,), space)) for half in halves))


def _alike(
    plan: TensorPlan, covered: tuple[Block, ...], space: Workspace
) -> Iterator[tuple[Block, ...]]:
    """Runs of blocks of one shape, of the same channels or each of the next ones."""
    rows = geometry_of(covered[0], space.device).rows
    most = max(_KEPT // rows, 1)
    run: list[Block] = []
    for block in covered:
        if run and not (len(run) < most and not plan.clock and _continues(run, block)):
            yield tuple(run)
            run = []
        run.append(block)
    yield tuple(run)


def _continues(run: list[Block], block: Block) -> bool:
    first = run[0]
    shifts = {0, first.channels} if len(run) == 1 else {run[1].channel - first.channel}
    return block.stripes == first.stripes and block.channel - run[-1].channel in shifts
