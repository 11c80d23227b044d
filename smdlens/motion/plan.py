"""What is to be read and summed, as picklable records: paths, extents, dtypes, channel maps.

A plan is nothing else, so threads, processes or a cluster's `map` run it and the merge is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from smdlens.motion.layout import Block, Layout, blocks
from smdlens.snapshots.records import DTYPE_BYTES, Extent, TensorRef

# Elements of a tensor that costs more to start than to sum; such are measured several at once.
SMALL_TENSOR = 8192


@dataclass(frozen=True, slots=True)
class AdamSource:
    """Adam's moments and what turns them into u = mhat / (sqrt(vhat) + eps).

    Attributes:
        bias1: 1 - beta1^t.
        bias2: 1 - beta2^t.
    """

    first: TensorRef
    second: TensorRef
    bias1: float
    bias2: float
    eps: float


@dataclass(frozen=True, slots=True)
class SnapshotSources:
    """One tensor in one snapshot: weights and the optimizer's buffers.

    Elements lie in storage order, to be multiplied by their `scale`; strides are given only where a
    gather is needed, and shapes matter only there.
    """

    weights: TensorRef
    momentum: TensorRef | None = None
    adam: AdamSource | None = None

    def sources(self) -> Iterator[TensorRef]:
        """Everything that is read."""
        yield self.weights
        if self.momentum is not None:
            yield self.momentum
        if self.adam is not None:
            yield self.adam.first
            yield self.adam.second


@dataclass(frozen=True, slots=True)
class GradientRule:
    """g = (v_b - momentum v_a) / (1 - dampening) - weight_decay w_a; Adam: v its first moment."""

    momentum: float
    dampening: float
    weight_decay: float


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """One tensor through all snapshots, or several small ones as if they were one.

    Attributes:
        name: Canonical name, for messages; of several tensors, that of the first.
        layout: Element to channel; of several tensors, their channels one after another.
        clock: Whether the sum over the channel axis is wanted.
        snapshots: Where the bytes lie, in order of the snapshots.
        gradients: Per pair of neighbours, the rule that gives g; None where it is not known.
        gathered: Whether some source has to be gathered as a whole.
        joined: Of small tensors, all their elements as one block; else None.
    """

    name: str
    layout: Layout
    clock: bool
    snapshots: tuple[SnapshotSources, ...]
    gradients: tuple[GradientRule | None, ...]
    gathered: bool = False
    joined: Block | None = None

    @property
    def numel(self) -> int:
        """Number of elements."""
        return self.layout.numel if self.joined is None else self.joined.size

    @property
    def nbytes(self) -> int:
        """Bytes that are read."""
        return self.numel * self.element_bytes

    def extents(self) -> Iterator[Extent]:
        """Every range of a file that it is read from."""
        for snapshot in self.snapshots:
            for source in snapshot.sources():
                yield from source.extents

    @property
    def element_bytes(self) -> int:
        """Bytes that are read for one element, of all snapshots."""
        sources = (source for snapshot in self.snapshots for source in snapshot.sources())
        return sum(DTYPE_BYTES[source.dtype] for source in sources)

    def blocks(self, size: int) -> Iterator[Block]:
        """Blocks of at most `size` elements, in storage order; one where it cannot be cut."""
        if self.joined is not None:
            yield self.joined
        else:
            # Cutting what comes as a whole would only read it again and again.
            yield from blocks(self.layout, self.numel if self.gathered else size)

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
    """A run of blocks of one tensor, or several small tensors as one block.

    Attributes:
        tensors: Which of the plans that were cut.
        plan: Where their bytes lie.
        covered: The blocks, in storage order.
    """

    tensors: tuple[int, ...]
    plan: TensorPlan
    covered: tuple[Block, ...]

    @property
    def nbytes(self) -> int:
        """Bytes that are read."""
        return self._size * self.plan.element_bytes

    @property
    def is_whole(self) -> bool:
        """Whether nothing of its tensors is left to other tasks."""
        return self._size == self.plan.numel

    @property
    def _size(self) -> int:
        return sum(block.size for block in self.covered)
