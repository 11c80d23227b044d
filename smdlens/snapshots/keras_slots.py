"""Which of an optimizer's variables belongs to which weight, in Keras' files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from smdlens.snapshots.keras_config import KerasOptimizer
from smdlens.snapshots.keras_variables import KerasVariable
from smdlens.snapshots.records import TensorRef
from smdlens.snapshots.steps import natural_key

_COUNTERS = frozenset({"iteration", "iterations", "iter"})
_RATES = frozenset({"learning_rate", "_learning_rate", "lr"})
_NAMES = ("momentum", "velocity", "velocity_hat", "m", "v", "vhat")
_WRAPPER = "loss_scale_optimizer/"
_MOST_TRIES = 20_000


@dataclass(frozen=True, slots=True)
class Slot:
    """One buffer: the index of its weight, its own name, where it lies."""

    variable: int
    name: str
    tensor: TensorRef


@dataclass(frozen=True, slots=True)
class Found:
    """The optimizer's variables told apart.

    Attributes:
        kind: Class of the optimizer in lower case, "" where the file does not say.
        iteration: Its counter of updates.
        rate: Its learning rate.
        slots: Its buffers.
        note: Why there are none, where there should be some.
    """

    kind: str
    iteration: TensorRef | None
    rate: TensorRef | None
    slots: tuple[Slot, ...]
    note: str = ""


def by_name(named: Sequence[tuple[str, TensorRef]], variables: Sequence[KerasVariable]) -> Found:
    """From names: `SGD/m/conv1/kernel`, `Adam/conv1/kernel/m`, `sgd/conv1_kernel_momentum`."""
    known: dict[str, tuple[int, str]] = {}
    for index, variable in enumerate(variables):
        for saved in {variable.saved, "/".join(variable.path)}:
            for slot in _NAMES:
                known[f"{slot}/{saved}"] = known[f"{saved}/{slot}"] = index, slot
                known[f"{saved.replace('/', '_')}_{slot}"] = index, slot
    kind, iteration, rate = "", None, None
    slots = []
    for name, ref in named:
        if name.startswith(_WRAPPER):
            # Mixed precision: the outer optimizer's own counter and rate stay 0.
            if ref.shape == ():
                continue
            name = name.removeprefix(_WRAPPER)
        prefix, slash, rest = name.partition("/")
        last = rest if slash else prefix
        if slash and last != "":
            kind = kind or prefix.lower()
        if last in _COUNTERS:
            iteration = ref
        elif last in _RATES:
            rate = ref
        elif last in known:
            index, slot = known[last]
            slots.append(Slot(index, slot, ref))
    return Found(re.sub(r"_\d+$", "", kind), iteration, rate, tuple(slots))


def by_position(
    name: str,
    refs: Sequence[TensorRef],
    variables: Sequence[KerasVariable],
    optimizer: KerasOptimizer | None,
) -> Found:
    """From the order of numbered variables: counter, rate (if saved), then the buffers by weight.

    The weights' own order is that of the model's layers. Without a description of the model only
    the order within layers of one class is known; buffers are then matched by shape where that
    decides.
    """
    kind = optimizer.kind if optimizer is not None else re.sub(r"_\d+$", "", name.lower())
    rest = list(refs)
    iteration = rest.pop(0) if rest and _is_scalar(rest[0], "int") else None
    rate = rest.pop(0) if iteration is not None and rest and _is_scalar(rest[0], "float") else None
    trained = [index for index, variable in enumerate(variables) if variable.trained]
    for extra_copy in ("use_ema", "gradient_accumulation_steps"):
        if optimizer is not None and optimizer.config.get(extra_copy):
            rest = rest[len(trained) :]  # averages, sums of gradients: one per weight, first
    if not rest or not trained:
        return Found(kind, iteration, rate, ())
    each, extra = divmod(len(rest), len(trained))
    names = _slot_names(kind, each)
    if extra or not names:
        note = f"{len(rest)} buffers of {kind or 'an unknown optimizer'} for {len(trained)} weights"
        return Found(kind, iteration, rate, (), f"unmapped: {note}")
    # Buffers of one weight follow each other; AMSGrad's third comes after all of those.
    paired = min(each, 2)
    wanted = [rest[paired * i].shape for i in range(len(trained))]
    order = _order(variables, trained, wanted, described=optimizer is not None)
    if order is None:
        note = "the order of layers is not saved, and shapes do not decide"
        return Found(kind, iteration, rate, (), f"unmapped: {note}")
    slots = [
        Slot(index, names[k], rest[paired * place + k])
        for place, index in enumerate(order)
        for k in range(paired)
    ]
    if each == 3:
        slots += [
            Slot(index, names[2], rest[2 * len(order) + place]) for place, index in enumerate(order)
        ]
    return Found(kind, iteration, rate, tuple(slots))


def _slot_names(kind: str, each: int) -> tuple[str, ...]:
    if kind in ("adam", "adamw") and each in (2, 3):
        return ("momentum", "velocity", "velocity_hat")[:each]
    if kind in ("sgd", "lion") and each == 1:
        return ("momentum",)
    return ()


def _is_scalar(ref: TensorRef, kind: str) -> bool:
    return ref.shape == () and ref.dtype.startswith(kind)


def _order(
    variables: Sequence[KerasVariable],
    trained: Sequence[int],
    shapes: Sequence[tuple[int, ...]],
    *,
    described: bool,
) -> list[int] | None:
    """Indices of the weights in the order of `shapes`; None where it is not decided."""
    if described:
        good = all(variables[i].tensor.shape == s for i, s in zip(trained, shapes, strict=True))
        if good:
            return list(trained)
    layers: dict[tuple[str, ...], list[int]] = {}
    for index in trained:
        layers.setdefault(variables[index].path[:-1], []).append(index)
    queues: dict[str, list[list[int]]] = {}
    for members in layers.values():
        queues.setdefault(variables[members[0]].sequence, []).append(members)
    lines = [
        sorted(queue, key=lambda m: natural_key(variables[m[0]].saved)) for queue in queues.values()
    ]
    found = []
    for order in _interleavings(variables, lines, shapes):
        found.append(order)
        if len(found) > 1:
            return None
    return found[0] if found else None


def _interleavings(
    variables: Sequence[KerasVariable],
    lines: Sequence[Sequence[Sequence[int]]],
    shapes: Sequence[tuple[int, ...]],
) -> Iterator[list[int]]:
    """Orders of layers that keep each line's own order and give these shapes, found lazily."""
    tries = _MOST_TRIES
    pending: list[tuple[tuple[int, ...], tuple[int, ...]]] = [((0,) * len(lines), ())]
    while pending and tries:
        tries -= 1
        places, taken = pending.pop()
        if len(taken) == len(shapes):
            yield list(taken)
            continue
        for number, line in enumerate(lines):
            if places[number] == len(line):
                continue
            layer = line[places[number]]
            wanted = shapes[len(taken) : len(taken) + len(layer)]
            if [variables[i].tensor.shape for i in layer] == list(wanted):
                after = (*places[:number], places[number] + 1, *places[number + 1 :])
                pending.append((after, (*taken, *layer)))
    if pending:  # given up: say that it is not decided
        yield []
        yield []
