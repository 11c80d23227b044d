"""What is to be read and summed, as picklable records: paths, extents, dtypes, channel maps.

A plan is nothing else, so threads, processes or a cluster's `map` run it and the merge is the same.
How a tensor is cut into tasks depends on its size alone, never on the number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from smdlens.motion.layout import Block, Layout, blocks
from smdlens.snapshots.records import DTYPE_BYTES, Extent

TASK_BLOCKS = 64
TASK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """Elements on disk in storage order, to be multiplied by `scale`.

    `shape` and `strides` are given only where a gather is needed.
    """

    extents: tuple[Extent, ...]
    dtype: str
    shape: tuple[int, ...] = ()
    strides: tuple[int, ...] | None = None
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class AdamSource:
    """Adam's moments and what turns them into u = mhat / (sqrt(vhat) + eps).

    Attributes:
        bias1: 1 - beta1^t.
        bias2: 1 - beta2^t.
    """

    first: Source
    second: Source
    bias1: float
    bias2: float
    eps: float


@dataclass(frozen=True, slots=True)
class SnapshotSources:
    """One tensor in one snapshot: weights and the optimizer's buffers."""

    weights: Source
    momentum: Source | None = None
    adam: AdamSource | None = None

    def sources(self) -> Iterator[Source]:
        """Everything that is read."""
        yield self.weights
        if self.momentum is not None:
            yield self.momentum
        if self.adam is not None:
            yield self.adam.first
            yield self.adam.second


@dataclass(frozen=True, slots=True)
class GradientRule:
    """g = (v_b - momentum * v_a) / (1 - dampening) - weight_decay * w_a for one update a -> b."""

    momentum: float
    dampening: float
    weight_decay: float


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """One tensor through all snapshots.

    Attributes:
        name: Canonical name, for messages.
        layout: Element to channel.
        clock: Whether the sum over the channel axis is wanted.
        snapshots: Where the bytes lie, in order of the snapshots.
        gradients: Per pair of neighbours, the rule that gives g; None where it is not known.
        gathered: Whether some source has to be gathered as a whole.
    """

    name: str
    layout: Layout
    clock: bool
    snapshots: tuple[SnapshotSources, ...]
    gradients: tuple[GradientRule | None, ...]
    gathered: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes that are read."""
        return sum(
            self.layout.numel * DTYPE_BYTES[source.dtype]
            for snapshot in self.snapshots
            for source in snapshot.sources()
        )

    def window(self, first: int, last: int) -> TensorPlan:
        """The same for snapshots first..last, cut into the same blocks."""
        return replace(
            self,
            snapshots=self.snapshots[first : last + 1],
            gradients=self.gradients[first:last],
        )

    def taken(self, indices: tuple[int, ...]) -> TensorPlan:
        """The same for some snapshots, which are no neighbours."""
        return replace(
            self, snapshots=tuple(self.snapshots[index] for index in indices), gradients=()
        )


@dataclass(frozen=True, slots=True)
class Task:
    """A run of blocks of one tensor."""

    tensor: int
    plan: TensorPlan
    first: int
    last: int
    block_elements: int

    @property
    def nbytes(self) -> int:
        """Bytes that are read."""
        elements = sum(block.high - block.low for block in self.blocks())
        return self.plan.nbytes // self.plan.layout.numel * elements

    def blocks(self) -> Iterator[Block]:
        """The task's blocks in storage order."""
        return islice(blocks(self.plan.layout, self.block_elements), self.first, self.last)


def batches(plans: list[TensorPlan], block_elements: int) -> Iterator[tuple[Task, ...]]:
    """Cut the plans into batches of tasks of similar cost, in order; one batch is one job.

    Args:
        plans: The tensors.
        block_elements: Elements of one block.
    """
    pending: list[Task] = []
    size = 0
    for index, plan in enumerate(plans):
        # A gathered tensor comes as a whole, so cutting it would only read it again and again.
        elements = plan.layout.numel if plan.gathered else block_elements
        count = sum(1 for _ in blocks(plan.layout, elements))
        for first in range(0, count, TASK_BLOCKS):
            last = min(first + TASK_BLOCKS, count)
            pending.append(Task(index, plan, first, last, elements))
            size += pending[-1].nbytes
            if size >= TASK_BYTES:
                yield tuple(pending)
                pending, size = [], 0
    if pending:
        yield tuple(pending)
