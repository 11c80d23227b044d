"""Weights and optimizer slots by name, from the files that DeepSpeed's ranks saved under ZeRO."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from smdlens.containers.inert_values import Opaque
from smdlens.errors import SnapshotCorruptError
from smdlens.snapshots.records import TensorRef
from smdlens.snapshots.resolve import is_tensor
from smdlens.snapshots.zero_partitions import Flat, Shapes, consecutive, flat, spread

_NOT_SETTINGS = ("params", "param_names")


@dataclass(slots=True)
class ZeroState:
    """What the ranks' optimizer files hold together.

    Attributes:
        masters: Parameter name -> float32 weights of the optimizer.
        state: Parameter name -> slot -> tensor or number, slots as torch names them.
        param_groups: Settings, with the names of the group's parameters under `params`.
    """

    masters: dict[str, TensorRef] = field(default_factory=dict)
    state: dict[str, dict[str, Any]] = field(default_factory=dict)
    param_groups: list[dict[str, Any]] = field(default_factory=list)

    def add(self, other: ZeroState) -> None:
        """Take in what another stage of a pipeline holds; groups are joined by their place."""
        self.masters |= other.masters
        self.state |= other.state
        for place, group in enumerate(other.param_groups):
            if place < len(self.param_groups):
                self.param_groups[place]["params"] += group["params"]
            else:
                self.param_groups.append(group)


def zero_stage(state: Mapping[Any, Any]) -> int:
    """The stage a rank's optimizer state says it is of; 0 where it does not."""
    value = state.get("zero_stage")
    if type(value) is Opaque and len(value.args) == 1:  # an enum member is its class and value
        value = value.args[0]
    return value if type(value) is int else 0


def partitioned_state(
    ranks: Sequence[Mapping[Any, Any]], groups: Sequence[Shapes], subject: str
) -> ZeroState:
    """Stages 1 and 2.

    Args:
        ranks: Each rank's `optimizer_state_dict`, in order.
        groups: Parameter shapes per group.
        subject: The folder, for errors.
    """
    result = ZeroState()
    weights = [_list(r.get("single_partition_of_fp32_groups"), subject) for r in ranks]
    if any(len(parts) != len(groups) for parts in weights):
        raise _corrupt(subject, "another number of groups than the model's file says")
    bases = [r.get("base_optimizer_state") for r in ranks]
    for number, shapes in enumerate(groups):
        parts = [p[number] for p in weights]
        result.masters |= consecutive(flat(f"group {number}", parts, subject), shapes, subject)
        held = [_group_state(base, number) for base in bases]
        buffers = _slots([[h] for h in held], subject)
        joined = {slot: _join(f, subject) for slot, f in buffers.items()}
        _place(
            result,
            shapes,
            {slot: dict(consecutive(b, shapes, subject)) for slot, b in joined.items()},
            held[0],
        )
    _add_groups(result, bases[0], groups)
    return result


def spread_state(
    ranks: Sequence[Mapping[Any, Any]], groups: Sequence[Shapes], subject: str
) -> ZeroState:
    """Stage 3; arguments as `partitioned_state`."""
    result = ZeroState()
    shapes = {name: shape for group in groups for name, shape in group.items()}
    weights = [_list(r.get("fp32_flat_groups"), subject) for r in ranks]
    buffers = [flat("fp32_flat_groups", parts, subject) for parts in weights]
    result.masters |= spread(buffers, shapes, subject)
    bases = [r.get("optimizer_state_dict") for r in ranks]
    held = [
        [_group_state(b, n) for n in range(len(w))] for b, w in zip(bases, weights, strict=True)
    ]
    placed = {
        slot: dict(spread(by_rank, shapes, subject))
        for slot, by_rank in _slots(held, subject).items()
    }
    _place(result, shapes, placed, held[0][0] if held[0] else {})
    _add_groups(result, bases[0], groups)
    return result


def fragments(
    ranks: Sequence[Mapping[Any, Any]], shapes: Shapes, subject: str
) -> Iterator[tuple[str, TensorRef]]:
    """Frozen parameters of stage 3: every rank's fragment, one behind the other."""
    for name, shape in shapes.items():
        parts = [r.get(name) for r in ranks]
        yield from consecutive(flat(name, parts, subject), {name: shape}, subject)


def _group_state(base: Any, number: int) -> Mapping[Any, Any]:
    """State of one flat group: under `state`, or in older files in a list of groups."""
    if isinstance(base, Mapping):
        states = base.get("state")
        found = states.get(number) if isinstance(states, Mapping) else None
    elif isinstance(base, (list, tuple)):
        found = base[number] if number < len(base) else None
    else:
        found = None
    return found if isinstance(found, Mapping) else {}


def _slots(held: Sequence[Sequence[Mapping[Any, Any]]], subject: str) -> dict[str, list[Flat]]:
    """Slot -> one buffer per rank, from each rank's states in order."""
    first = held[0][0] if held and held[0] else {}
    names = [
        k for k, v in first.items() if type(k) is str and is_tensor(v) and v.shape not in ((), (1,))
    ]
    return {
        slot: [flat(slot, [state.get(slot) for state in states], subject) for states in held]
        for slot in names
    }


def _join(buffers: Sequence[Flat], subject: str) -> Flat:
    if any(b.dtype != buffers[0].dtype for b in buffers):
        raise _corrupt(subject, "a buffer of several dtypes")
    extents = tuple(extent for b in buffers for extent in b.extents)
    return Flat(buffers[0].dtype, sum(b.numel for b in buffers), extents)


def _place(
    result: ZeroState,
    shapes: Shapes,
    placed: Mapping[str, Mapping[str, TensorRef]],
    shared: Mapping[Any, Any],
) -> None:
    counters = {k: v for k, v in shared.items() if k == "step"}
    for name in shapes:
        slots: dict[str, Any] = {slot: refs[name] for slot, refs in placed.items()}
        if slots or counters:
            result.state[name] = {**counters, **slots}


def _add_groups(result: ZeroState, base: Any, groups: Sequence[Shapes]) -> None:
    settings = base.get("param_groups") if isinstance(base, Mapping) else None
    if not isinstance(settings, (list, tuple)) or len(settings) != len(groups):
        settings = [{}] * len(groups)
    for group, shapes in zip(settings, groups, strict=True):
        given = group if isinstance(group, Mapping) else {}
        kept = {k: v for k, v in given.items() if k not in _NOT_SETTINGS}
        result.param_groups.append({**kept, "params": list(shapes)})


def _list(value: Any, subject: str) -> list[Any]:
    if not isinstance(value, (list, tuple)) or not value:
        raise _corrupt(subject, "no flat buffers of weights")
    return list(value)


def _corrupt(subject: str, found: str) -> SnapshotCorruptError:
    return SnapshotCorruptError(
        "the ranks' optimizer files contradict each other or DeepSpeed's layout",
        subject=subject,
        found=found,
        remedy="Copy the checkpoint again, or leave it out.",
    )
