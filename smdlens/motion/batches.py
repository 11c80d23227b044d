"""Plans cut into tasks of blocks, small tensors joined to one block, and tasks put into batches.

How a tensor is cut depends on itself alone, never on workers, other tensors or snapshots.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from smdlens.motion.layout import Block, Layout, Stripe
from smdlens.motion.plan import SMALL_TENSOR, SnapshotSources, Task, TensorPlan
from smdlens.snapshots.records import Extent, TensorRef

# Most tensors are one task: the sums of what is cut have to be handed over and merged.
TASK_BLOCKS = 64
TASK_BYTES = 8 << 20
# What a tensor costs beyond its bytes, however small it is, in bytes that are read and summed
# meanwhile: a batch of tiny ones is one of many rows.
TENSOR_BYTES = 512 << 10
# Weights of all snapshots in a block of small tensors: they are kept until its end (rounding.py).
JOINED_WEIGHTS = 1 << 24


def batches(plans: Sequence[TensorPlan], block_elements: int) -> Iterator[tuple[Task, ...]]:
    """Cut the plans into batches of tasks of similar cost, in order; one batch is one job.

    Args:
        plans: The tensors.
        block_elements: Elements of one block.
    """
    pending: list[Task] = []
    size = 0
    for task in _tasks(plans, block_elements):
        pending.append(task)
        size += task.nbytes + TENSOR_BYTES * len(task.tensors)
        if size >= TASK_BYTES:
            yield tuple(pending)
            pending, size = [], 0
    if pending:
        yield tuple(pending)


def _tasks(plans: Sequence[TensorPlan], block_elements: int) -> Iterator[Task]:
    for indices in _neighbours(plans, block_elements):
        plan = plans[indices[0]]
        if _is_joined(plan):
            plan = join([plans[index] for index in indices])
        covered = plan.blocks(block_elements)
        while some := tuple(islice(covered, TASK_BLOCKS)):
            yield Task(indices, plan, some)


def _neighbours(plans: Sequence[TensorPlan], block_elements: int) -> Iterator[tuple[int, ...]]:
    """Runs of small tensors that can be measured as one block; every other one on its own."""
    run: list[int] = []
    size, kind = 0, None
    for index, plan in enumerate(plans):
        its_kind = _kind(plan) if _is_joined(plan) else None
        most = min(block_elements, JOINED_WEIGHTS // len(plan.snapshots))
        if run and (its_kind is None or its_kind != kind or size + plan.numel > most):
            yield tuple(run)
            run, size = [], 0
        if its_kind is None:
            yield (index,)
            continue
        run.append(index)
        size, kind = size + plan.numel, its_kind
    if run:
        yield tuple(run)


def _is_joined(plan: TensorPlan) -> bool:
    """Whether a tensor is measured in a block with others; in the same way if there are none.

    Which neighbours are left to measure depends on what the cache knows, and no bit may.
    """
    alone = plan.clock or plan.gathered or plan.layout.outer != 1
    return plan.numel <= SMALL_TENSOR and not alone


def _kind(plan: TensorPlan) -> object:
    """What tensors that are measured as one block have in common."""
    formats = tuple(
        (
            snapshot.adam and (snapshot.adam.bias1, snapshot.adam.bias2, snapshot.adam.eps),
            snapshot.momentum is None,
            *((source.dtype, source.scale) for source in snapshot.sources()),
        )
        for snapshot in plan.snapshots
    )
    return formats, plan.gradients


def join(plans: Sequence[TensorPlan]) -> TensorPlan:
    """Small tensors of one kind as one block of one plan."""
    stripes: list[Stripe] = []
    owners: list[int] = []
    start = channel = 0
    for plan in plans:
        _, channels, inner = plan.layout.outer, plan.layout.count, plan.layout.inner
        owners.append(channel)
        if stripes and stripes[-1].shape[2] == inner:
            last = stripes.pop()
            stripes.append(Stripe(last.start, (1, last.shape[1] + channels, inner)))
        else:
            stripes.append(Stripe(start, (1, channels, inner)))
        start, channel = start + plan.numel, channel + channels
    return replace(
        plans[0],
        layout=Layout(1, channel, 1),
        snapshots=tuple(
            _joined([plan.snapshots[k] for plan in plans]) for k in range(len(plans[0].snapshots))
        ),
        joined=Block(0, start, tuple(stripes), owners=tuple(owners)),
    )


def _joined(parts: Sequence[SnapshotSources]) -> SnapshotSources:
    first = parts[0]
    return SnapshotSources(
        _source([p.weights for p in parts]),
        first.momentum and _source([p.momentum for p in parts if p.momentum]),
        first.adam
        and replace(
            first.adam,
            first=_source([p.adam.first for p in parts if p.adam]),
            second=_source([p.adam.second for p in parts if p.adam]),
        ),
    )


def _source(parts: Sequence[TensorRef]) -> TensorRef:
    """Sources one after another; ranges that meet in the file become one."""
    extents: list[Extent] = []
    for extent in (extent for part in parts for extent in part.extents):
        last = extents[-1] if extents else None
        if last and _meet(last, extent):
            extents[-1] = Extent(last.path, last.offset, last.nbytes + extent.nbytes)
        else:
            extents.append(extent)
    return replace(parts[0], extents=tuple(extents))


def _meet(first: Extent, second: Extent) -> bool:
    packed = first.packed is not None or second.packed is not None
    return not packed and first.path == second.path and first.offset + first.nbytes == second.offset
