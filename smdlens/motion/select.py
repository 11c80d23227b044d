"""Which tensors are measured, and where their bytes and their optimizer's buffers lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from smdlens.containers.collector import collector_paused
from smdlens.hyper.records import HyperParameters
from smdlens.motion.lag_sample import MOST_ROWS
from smdlens.motion.layout import layout_of, storage_order
from smdlens.motion.optimizer import adam_moments, gradient_rule
from smdlens.motion.plan import AdamSource, SnapshotSources, TensorPlan
from smdlens.snapshots.records import MEASURED_DTYPES, Extent, Snapshot, SnapshotSeries, TensorRef
from smdlens.symmetry.records import ScaleGroups, TensorSymmetry
from smdlens.vocabulary import INVARIANT_ROLES, Role, Slot

# Tensors on a sphere, alone or with others, whatever their dimensions.
ON_A_SPHERE = INVARIANT_ROLES | {Role.JOINTLY_SCALE_INVARIANT}


@dataclass(frozen=True, slots=True)
class Selected:
    """A tensor to measure and its answer from the graph.

    Attributes:
        symmetry: The answer.
        plan: Where its bytes lie.
        sampled: Whether a few of its weights are kept for angles at long lags.
    """

    symmetry: TensorSymmetry
    plan: TensorPlan
    sampled: bool = False

    def part(self, first: int, last: int) -> Part:
        """The same through snapshots first..last."""
        if last - first + 1 == len(self.plan.snapshots):
            return Part(self, first)
        return Part(replace(self, plan=self.plan.window(first, last)), first)


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor through some of the run's snapshots, the first of them number `first`."""

    selected: Selected
    first: int


@collector_paused()
def select(
    series: SnapshotSeries, groups: ScaleGroups, hyper: HyperParameters
) -> tuple[Selected, ...]:
    """Plan every tensor that is measured, in file order.

    Measured are floating tensors of two or more dimensions, those on a sphere (alone or with
    others) of any, and clocks, as far as every snapshot has them in one shape.
    """
    measured = [s for s in groups.tensors.values() if _is_measured(s, series)]
    on_sphere = sum(symmetry.role in ON_A_SPHERE for symmetry in measured)
    sampled = on_sphere * len(series.snapshots) <= MOST_ROWS
    return tuple(
        Selected(s, _plan(s, series, hyper), sampled and s.role in ON_A_SPHERE) for s in measured
    )


def _is_measured(symmetry: TensorSymmetry, series: SnapshotSeries) -> bool:
    refs = [snapshot.tensors.get(symmetry.name) for snapshot in series.snapshots]
    if not refs or any(ref is None or ref.dtype not in MEASURED_DTYPES for ref in refs):
        return False
    shapes = {ref.shape for ref in refs if ref is not None}
    wanted = len(symmetry.shape) >= 2 or symmetry.clock or symmetry.role in ON_A_SPHERE
    return wanted and len(shapes) == 1 and all(shapes.pop())


def _plan(symmetry: TensorSymmetry, series: SnapshotSeries, hyper: HyperParameters) -> TensorPlan:
    name = symmetry.name
    shape = series.snapshots[0].tensors[name].shape
    slots = [_slots(snapshot, name, shape) for snapshot in series.snapshots]
    weights = [snapshot.tensors[name] for snapshot in series.snapshots]
    refs = [*weights, *(ref for slot in slots for ref in slot.values())]
    orders = {storage_order(ref.shape, ref.strides) for ref in refs}
    row_major = tuple(range(len(shape)))
    order = orders.pop() if len(orders) == 1 else None
    axis = _channel_axis(symmetry, shape)
    rows = _invariant_rows(symmetry) if order == row_major else None
    if rows is not None:
        shape = (sum(high - low for low, high in rows), *shape[1:])

    def source(ref: TensorRef) -> TensorRef:
        if order is None and storage_order(ref.shape, ref.strides) != row_major:
            return ref
        dense = ref if ref.strides is None else replace(ref, strides=None)
        return dense if rows is None else replace(dense, extents=_cut(ref, rows))

    sources = tuple(
        SnapshotSources(
            source(ref),
            source(slot[Slot.MOMENTUM]) if Slot.MOMENTUM in slot else None,
            _adam(series, index, name, slot, hyper, source),
        )
        for index, (ref, slot) in enumerate(zip(weights, slots, strict=True))
    )
    return TensorPlan(
        name=name,
        layout=layout_of(shape, order or row_major, axis),
        clock=symmetry.clock,
        snapshots=sources,
        gradients=tuple(
            gradient_rule(series, pair, name, hyper) for pair in range(len(weights) - 1)
        ),
        gathered=any(s.strides is not None for each in sources for s in each.sources()),
    )


def _slots(snapshot: Snapshot, name: str, shape: tuple[int, ...]) -> dict[str, TensorRef]:
    found = snapshot.optimizer.slots.get(name, {}) if snapshot.optimizer else {}
    return {
        slot: ref
        for slot, ref in found.items()
        if ref.shape == shape and ref.dtype in MEASURED_DTYPES
    }


def _adam(
    series: SnapshotSeries,
    index: int,
    name: str,
    slots: dict[str, TensorRef],
    hyper: HyperParameters,
    source: Callable[[TensorRef], TensorRef],
) -> AdamSource | None:
    moments = adam_moments(series, index, name, slots, hyper)
    if moments is None:
        return None
    return AdamSource(
        source(moments.first), source(moments.second), moments.bias1, moments.bias2, moments.eps
    )


def _channel_axis(symmetry: TensorSymmetry, shape: tuple[int, ...]) -> int | None:
    """The axis whose indices are kept apart; None where only the whole tensor is of interest."""
    if symmetry.clock and symmetry.role != Role.IRRELEVANT:
        return symmetry.axis or 0
    if symmetry.axis is None or not 0 <= symmetry.axis < len(shape):
        return None
    leaks = symmetry.norm is not None and symmetry.norm.running_var is not None
    return symmetry.axis if symmetry.groups > 1 or leaks else None


def _invariant_rows(symmetry: TensorSymmetry) -> list[tuple[int, int]] | None:
    """Rows of a fused tensor that live on a sphere; None for the whole tensor."""
    if symmetry.role != Role.PARTLY_SCALE_INVARIANT or symmetry.axis != 0:
        return None
    rows = [
        (part.index_from, part.index_to) for part in symmetry.parts if part.role in INVARIANT_ROLES
    ]
    return rows or None


def _cut(ref: TensorRef, rows: list[tuple[int, int]]) -> tuple[Extent, ...]:
    """The byte ranges of some rows of a row-major tensor."""
    row = ref.nbytes // ref.shape[0]
    pieces: list[Extent] = []
    for first, last in rows:
        start = 0
        for extent in ref.extents:
            low, high = max(first * row, start), min(last * row, start + extent.nbytes)
            if low < high:
                pieces.append(extent.part(low - start, high - start))
            start += extent.nbytes
    return tuple(pieces)
