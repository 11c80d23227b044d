"""The optimizer's states of MXNet: a pickle of arrays by number, and of the optimizer itself.

SGD keeps v = m v - lr g and steps by v: divided by minus the rate of the last update it is torch's
buffer as far as that update goes. Adam's mean and variance are torch's moments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from smdlens.containers.cursor import Cursor
from smdlens.containers.files import FileStamp, RegularFile, reading
from smdlens.containers.inert_values import InlineBytes, Opaque
from smdlens.containers.limits import Limits
from smdlens.containers.mxnet_arrays import read_array
from smdlens.containers.pickle_bytes import load_pickle_in_place
from smdlens.containers.window import FileWindow
from smdlens.snapshots.records import Extent, TensorRef

_ADAM = ("Adam", "AdamW", "LAMB", "Nadam", "FTML", "Adamax")
LEFT_OUT = "states left out: of another optimizer than SGD and Adam, or without its rate"
MOMENTUM = "momentum of MXNet's SGD (v = m v - lr g) divided by minus the last rate"


@dataclass(frozen=True, slots=True)
class MxnetStates:
    """What a file of states holds: arrays by number, class and attributes of the optimizer."""

    arrays: Mapping[int, tuple[TensorRef, ...]]
    kind: str
    settings: Mapping[str, Any]


def read_states(path: Path, limits: Limits) -> tuple[MxnetStates, dict[str, FileStamp]]:
    """Read a .states file; errors as those of pickles and of arrays."""
    with reading(path) as file:
        value = load_pickle_in_place(file, limits)
        optimizer: Any = None
        if type(value) is tuple and len(value) == 2:
            value, optimizer = value
        arrays: dict[int, tuple[TensorRef, ...]] = {}
        for number, held in value.items() if type(value) is dict else ():
            parts = held if type(held) in (tuple, list) else (held,)
            found = [_array(file, f"state {number}", part) for part in parts]
            if type(number) is int:
                arrays[number] = tuple(ref for ref in found if ref is not None)
    known = type(optimizer) is Opaque and type(optimizer.state) is dict
    settings = optimizer.state if known else {}
    kind = optimizer.name if known else ""
    return MxnetStates(arrays, kind, settings), {file.path: file.stamp}


def optimizer_of_states(
    states: MxnetStates, names: Mapping[str, str], tensors: Mapping[str, TensorRef]
) -> dict[str, Any]:
    """What the states add to a checkpoint's content: optimizer, step, notes.

    Args:
        states: The states.
        names: Name in the file of the weights -> torch's.
        tensors: The weights by torch's names.
    """
    result: dict[str, Any] = {}
    updates = states.settings.get("num_update")
    if type(updates) is int and updates > 0:
        result["step"] = updates
    by_number = _names_by_number(states, names, tensors)
    rate = _rate(states.settings)
    state: dict[Any, dict[str, Any]] = {}
    for number, arrays in states.arrays.items():
        slots = _slots(states, number, arrays, rate)
        if slots:
            state[by_number.get(number, number)] = slots
    if states.arrays and not state:
        result["conversion"] = LEFT_OUT
    elif any("momentum_buffer" in held for held in state.values()):
        result["conversion"] = MOMENTUM
    optimizer = Opaque("mxnet.optimizer", states.kind)
    numbers = list(states.arrays)
    groups = _groups(states, numbers, by_number, rate)
    optimizer.state = {"state": state, "param_groups": groups}
    result["optimizer"] = optimizer if states.kind else optimizer.state
    return result


def _array(file: RegularFile, name: str, value: Any) -> TensorRef | None:
    """An NDArray, whose state is its record of bytes."""
    held = value.state if type(value) is Opaque else None
    handle = held.get("handle") if type(held) is dict else None
    if type(handle) is not InlineBytes:
        return None
    window = FileWindow(file, handle.offset, handle.nbytes)
    array = read_array(Cursor(window, 0, handle.nbytes))
    if array is None:
        return None
    place = Extent(file.path, handle.offset + array.offset, array.nbytes)
    return TensorRef(name, array.shape, array.dtype, (place,) if array.nbytes else ())


def _names_by_number(
    states: MxnetStates, names: Mapping[str, str], tensors: Mapping[str, TensorRef]
) -> dict[int, str]:
    """Which weight a number means: as the optimizer says, else by the sorted full names.

    Gluon's trainer sorts all parameters by their full names, statistics included.
    """
    given = states.settings.get("idx2name")
    plain = {name.partition(":")[2] or name: ours for name, ours in names.items()}
    if type(given) is dict and given:
        return {n: plain[g] for n, g in given.items() if type(g) is str and g in plain}
    if any("." in name for name in plain):
        return {}
    found = dict(enumerate(plain[name] for name in sorted(plain)))
    fits = all(
        number in found and all(a.shape == tensors[found[number]].shape for a in arrays)
        for number, arrays in states.arrays.items()
    )
    return found if fits else {}


def _rate(settings: Mapping[str, Any]) -> float | None:
    """The rate of the last update; None in a warm-up, whose rate the scheduler does not keep."""
    scheduler = settings.get("lr_scheduler")
    held = scheduler.state if type(scheduler) is Opaque else None
    if type(held) is dict:
        warm, done = held.get("warmup_steps"), settings.get("num_update")
        if type(warm) is int and type(done) is int and done <= warm and warm > 0:
            return None
        rate = held.get("base_lr")
    else:
        rate = settings.get("lr")
    found = _number(rate)
    return found if found is not None and found > 0 else None


def _slots(
    states: MxnetStates, number: int, arrays: tuple[TensorRef, ...], rate: float | None
) -> dict[str, Any]:
    if len(arrays) == 2 and (states.kind in _ADAM or not states.kind):
        counts = states.settings.get("_index_update_count")
        count = counts.get(number) if type(counts) is dict else None
        return {"exp_avg": arrays[0], "exp_avg_sq": arrays[1], "step": count}
    if states.kind in ("SGD", "NAG") and arrays and rate is not None:
        factor = rate * _factor(states.settings.get("lr_mult"), number, states.settings)
        return {"momentum_buffer": replace(arrays[0], scale=-1.0 / factor)} if factor else {}
    return {}


def _groups(
    states: MxnetStates, numbers: list[int], names: Mapping[int, str], rate: float | None
) -> list[dict[str, Any]]:
    """Parameters with the same settings as one group."""
    settings = states.settings
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for number in numbers:
        values: dict[str, Any] = {}
        decay = _number(settings.get("wd"))
        if rate is not None:
            values["lr"] = rate * _factor(settings.get("lr_mult"), number, settings)
        if decay is not None:
            values["weight_decay"] = decay * _factor(settings.get("wd_mult"), number, settings)
        if type(settings.get("momentum")) in (int, float):
            values |= {"momentum": settings["momentum"], "dampening": 0.0}
            values["nesterov"] = states.kind == "NAG"
        if type(settings.get("beta1")) is float and type(settings.get("beta2")) is float:
            values["betas"] = (settings["beta1"], settings["beta2"])
        group = groups.setdefault(tuple(values.items()), {**values, "params": []})
        group["params"].append(names.get(number, number))
    return list(groups.values())


def _factor(table: Any, number: int, settings: Mapping[str, Any]) -> float:
    """A parameter's own multiple of the rate or decay, kept by number or by name."""
    if type(table) is not dict:
        return 1.0
    names = settings.get("idx2name")
    name = names.get(number) if type(names) is dict else None
    value = _number(table.get(number, table.get(name) if type(name) is str else None))
    return value if value is not None else 1.0


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) else None
