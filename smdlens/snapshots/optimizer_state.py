"""A torch optimizer's state dict, with its buffers under the names of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from smdlens.containers.inert_values import Opaque, PickledTensor
from smdlens.snapshots.name_matching import Match, match_parameters
from smdlens.snapshots.records import GroupRecord, OptimizerRecord, TensorRef
from smdlens.snapshots.resolve import is_tensor, tensor_ref
from smdlens.snapshots.scalars import PlainConverter, ScalarReader
from smdlens.snapshots.weight_trees import RawTree, containers, optimizer_of
from smdlens.vocabulary import Slot

_SLOTS = {
    "momentum_buffer": Slot.MOMENTUM,
    "exp_avg": Slot.FIRST_MOMENT,
    "exp_avg_sq": Slot.SECOND_MOMENT,
    "max_exp_avg_sq": Slot.MAX_SECOND_MOMENT,
}


def find_optimizers(root: Any) -> list[tuple[str, Any, str]]:
    """(dotted key, state dict, class name or "") of every optimizer in a raw tree."""
    found = []
    for key, value in containers(root, stop=lambda value: optimizer_of(value) is not None):
        held = optimizer_of(value)
        if held is not None:
            name = value.name if type(value) is Opaque else held.get("class_name")
            found.append((key, held, name if isinstance(name, str) else ""))
    return found


def match_optimizer(value: Mapping[str, Any], tree: RawTree, ordered: bool) -> Match:
    """Find the names of an optimizer's parameters in a weight tree."""
    groups = value["param_groups"]
    indices: list[list[Any]] = []
    names: list[list[str] | None] = []
    for group in groups:
        params = group.get("params") if isinstance(group, Mapping) else None
        params = list(params) if isinstance(params, (list, tuple)) else []
        # Anything else cannot be a key of the state; hashing it may even be an attack.
        params = [p if type(p) in (int, str, PickledTensor) else object() for p in params]
        given = group.get("param_names") if isinstance(group, Mapping) else None
        if params and all(isinstance(p, str) for p in params):
            given = params
        valid = (
            isinstance(given, (list, tuple))
            and len(given) == len(params)
            and all(isinstance(n, str) for n in given)
        )
        indices.append(params)
        names.append(list(given) if valid and given is not None else None)
    shapes = {index: _shape(state) for index, state in value["state"].items()}
    return match_parameters(indices, names, shapes, tree, ordered)


def _shape(state: Any) -> tuple[int, ...] | None:
    if isinstance(state, Mapping):
        for slot in _SLOTS:
            if is_tensor(state.get(slot)):
                shape: tuple[int, ...] = state[slot].shape
                return shape
    return None


def optimizer_record(
    key: str,
    value: Mapping[str, Any],
    class_name: str,
    match: Match,
    numbers: ScalarReader,
    plain: PlainConverter,
) -> OptimizerRecord:
    """Build the record of one optimizer whose parameters have been matched."""
    groups = []
    for index, group in enumerate(value["param_groups"]):
        raw = group if isinstance(group, Mapping) else {}
        values = {
            k: _value(plain.convert(v))
            for k, v in raw.items()
            if isinstance(k, str) and k not in ("params", "param_names")
        }
        groups.append(
            GroupRecord(index, values, match.group_names[index], match.group_counts[index])
        )
    slots: dict[str, dict[str, TensorRef]] = {}
    updates: dict[str, int] = {}
    for parameter, state in value["state"].items():
        name = match.names.get(parameter)
        if name is None or not isinstance(state, Mapping):
            continue
        found = {
            slot.value: tensor_ref(f"{key}.state.{parameter}.{ours}", state[ours])
            for ours, slot in _SLOTS.items()
            if is_tensor(state.get(ours))
        }
        if found:
            slots[name] = found
        count = updates_of(state, numbers)
        if count is not None:
            updates[name] = count
    return OptimizerRecord(key, tuple(groups), slots, updates, class_name or None, match.note)


def updates_of(state: Any, numbers: ScalarReader) -> int | None:
    """Adam's `step` in one parameter's state."""
    if not isinstance(state, Mapping):
        return None
    step = numbers.number(state.get("step"))
    if step is None or isinstance(step, bool) or not 0 <= step < 1e15 or step != int(step):
        return None
    return int(step)


def most_updates(value: Mapping[str, Any], numbers: ScalarReader) -> int | None:
    """The largest `step` over all parameters of an optimizer: Adam's count of updates."""
    counts = [c for s in value["state"].values() if (c := updates_of(s, numbers)) is not None]
    return max(counts, default=None)


def _value(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
