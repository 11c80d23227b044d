"""A Keras checkpoint in our terms: weights under torch's names, slots by weight, groups by decay.

Adam's moments are the same numbers everywhere. Keras' SGD keeps v = m v - lr g where torch keeps
v = m v + g: divided by -lr one is the other as long as the learning rate stays as it is, and the
last update was lr times the buffer in either case. Keras takes `weight_decay` off the weights
(decoupled); an L2 regulariser of factor c adds 2 c w to the gradient (coupled).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from smdlens.snapshots.foreign_names import output_first, torch_names
from smdlens.snapshots.keras_config import KerasOptimizer, l2_of
from smdlens.snapshots.keras_slots import Slot, by_name, by_position
from smdlens.snapshots.keras_variables import KerasVariable
from smdlens.snapshots.records import TensorRef

NOTE = "names and axes shown as torch has them (kernel: out, in, spatial)"
SCALED = "the momentum of Keras' SGD, v = m v - lr g, is shown divided by -lr, as torch keeps it"
NO_RATE = "the momentum of Keras' SGD holds a learning rate the file does not give: left out"
NO_DECAY = "an L1 regulariser, or L2 beside decoupled weight decay: decay not given"
EXCLUDED = "Keras does not save exclude_from_weight_decay: every weight is taken as decayed"
_MOMENTS = {"m": "exp_avg", "momentum": "exp_avg", "v": "exp_avg_sq", "velocity": "exp_avg_sq",
            "vhat": "max_exp_avg_sq", "velocity_hat": "max_exp_avg_sq"}  # fmt: skip
_ADAM = frozenset({"adam", "adamw"})
Number = Callable[[TensorRef], float | None]


def keras_root(
    variables: Sequence[KerasVariable],
    slots: Sequence[tuple[str, TensorRef]] | tuple[str, Sequence[TensorRef]],
    optimizer: KerasOptimizer | None,
    number: Number,
) -> dict[str, Any]:
    """A checkpoint's content as nested plain trees.

    Args:
        variables: The weights.
        slots: The optimizer's variables: (name, tensor) each, or its name and tensors by number.
        optimizer: Its settings, where the file has them.
        number: Reads a scalar.
    """
    if isinstance(slots, tuple):
        found = by_position(slots[0], slots[1], variables, optimizer)
    else:
        found = by_name(slots, variables, optimizer)
    names = torch_names(v.path for v in variables)
    root: dict[str, Any] = {}
    notes = [NOTE]
    iteration = number(found.iteration) if found.iteration is not None else None
    if iteration is not None:
        root["iteration"] = int(iteration)
    rate = number(found.rate) if found.rate is not None else None
    kind = optimizer.kind if optimizer is not None else found.kind
    if rate is None and optimizer is not None:
        rate = optimizer.rate(None if iteration is None else int(iteration))
    state = _state(found.slots, variables, names, kind, rate, notes)
    for held in state.values():
        if "exp_avg" in held and iteration is not None:
            held["step"] = int(iteration)
    root["model"] = {
        names[v.path]: replace(output_first(v.path, v.tensor), name=v.tensor.name)
        for v in variables
    }
    if not any(v.layer for v in variables):
        # Without a description groups stand by class, which says nothing about the model's order.
        root["model"] = dict(sorted(root["model"].items()))
    if found.note:
        notes.append(found.note)
    if kind or state:
        groups = _groups(variables, names, kind, optimizer, rate, notes)
        root["optimizer"] = {"state": state, "param_groups": groups}
        if optimizer is None or optimizer.kind not in ("sgd", *_ADAM):
            root["optimizer"]["class_name"] = kind
    root["conversion"] = "; ".join(dict.fromkeys(notes))
    return root


def _state(
    slots: Sequence[Slot],
    variables: Sequence[KerasVariable],
    names: Mapping[tuple[str, ...], str],
    kind: str,
    rate: float | None,
    notes: list[str],
) -> dict[str, dict[str, Any]]:
    state: dict[str, dict[str, Any]] = {}
    for slot in slots:
        variable = variables[slot.variable]
        if slot.tensor.shape != variable.tensor.shape:
            continue
        ref = output_first(variable.path, slot.tensor)
        held = state.setdefault(names[variable.path], {})
        if kind == "sgd" and slot.name in ("momentum", "m"):
            if not rate:
                notes.append(NO_RATE)
                continue
            held["momentum_buffer"] = replace(ref, scale=-1.0 / rate)
            notes.append(SCALED)
        elif kind in (*_ADAM, "lion"):
            held[_MOMENTS[slot.name]] = ref
    return {name: held for name, held in state.items() if held}


def _groups(
    variables: Sequence[KerasVariable],
    names: Mapping[tuple[str, ...], str],
    kind: str,
    optimizer: KerasOptimizer | None,
    rate: float | None,
    notes: list[str],
) -> list[dict[str, Any]]:
    """Parameters by their weight decay, with the settings as torch names them."""
    common: dict[str, Any] = {} if rate is None else {"lr": rate}
    trained = [v for v in variables if v.trained]
    if optimizer is None:
        return [{**common, "params": [names[v.path] for v in trained]}]
    said = optimizer.config.get("weight_decay")
    decay = optimizer.number("weight_decay") if said is not None else 0.0
    if kind == "sgd":
        nesterov = optimizer.config.get("nesterov") is True
        common |= {"momentum": optimizer.number("momentum") or 0.0, "dampening": 0.0}
        common |= {"nesterov": nesterov}
    else:
        betas = optimizer.number("beta_1"), optimizer.number("beta_2")
        common |= {"betas": betas} if None not in betas else {}
        eps = optimizer.number("epsilon")
        if kind in _ADAM:
            common |= {"amsgrad": optimizer.config.get("amsgrad") is True}
            common |= {"eps": eps} if eps is not None else {}
    notes += [EXCLUDED] if decay else []
    if kind in ("sgd", *_ADAM):
        common["decoupled_weight_decay"] = bool(decay)
    groups: dict[float | None, list[str]] = {}
    for v in trained:
        if v.layer is None:  # a model written as a class: its regularisers are not described
            own = decay or None
        else:
            l2 = l2_of(v.layer, v.path[-1])
            own = None if l2 is None or decay is None or (l2 and decay) else decay + 2.0 * l2
            notes += [NO_DECAY] if own is None else []
        groups.setdefault(own, []).append(names[v.path])
    return [
        {**common, **({} if own is None else {"weight_decay": own}), "params": params}
        for own, params in groups.items()
    ]
