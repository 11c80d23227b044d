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
_UNNAMED = re.compile(r"(?:Variable|m|v|vhat)(?:_\d{1,6})?")
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


def by_name(
    named: Sequence[tuple[str, TensorRef]],
    variables: Sequence[KerasVariable],
    optimizer: KerasOptimizer | None = None,
) -> Found:
    """From names: `SGD/m/conv1/kernel`, `Adam/conv1/kernel/m`, `sgd/conv1_kernel_momentum`.

    The scopes in front may be missing or several. Where none of the buffers has a name of its own
    (`training/SGD/Variable_1`, as Keras before 2.3 saves them) their order and shapes decide.
    """
    known = _known_names(variables)
    kind, iteration, rate = "", None, None
    slots = []
    unnamed: list[TensorRef] = []
    for name, ref in named:
        if name.startswith(_WRAPPER):
            # Mixed precision: the outer optimizer's own counter and rate stay 0.
            if ref.shape == ():
                continue
            name = name.removeprefix(_WRAPPER)
        parts = name.split("/")
        places = {p for n in range(len(parts)) if (p := known.get("/".join(parts[n:])))}
        if parts[-1] in _COUNTERS:
            iteration = ref
        elif parts[-1] in _RATES:
            rate = ref
        elif len(places) == 1:
            index, slot = places.pop()
            slots.append(Slot(index, slot, ref))
        elif _UNNAMED.fullmatch(parts[-1]):
            unnamed.append(ref)
        scopes = [p for p in parts[:-1] if p.lower() not in ("training", *_NAMES)]
        kind = kind or (optimizer_kind(scopes[0]) if scopes and iteration is ref else "")
    kind = optimizer.kind if optimizer is not None else kind
    if not slots and unnamed:
        return _unnamed_slots(kind, iteration, rate, unnamed, variables)
    return Found(kind, iteration, rate, tuple(slots))


def optimizer_kind(name: str) -> str:
    """The class of an optimizer from the name of its scope: `Adam`, `adam_w_1`."""
    return re.sub(r"_\d+$", "", name.lower()).replace("_", "")


def _known_names(variables: Sequence[KerasVariable]) -> dict[str, tuple[int, str] | None]:
    """Weight and slot by the names a buffer may have; None where two weights share one."""
    known: dict[str, tuple[int, str] | None] = {}
    for index, variable in enumerate(variables):
        for saved in {variable.saved, "/".join(variable.path)}:
            for slot in _NAMES:
                flat = f"{saved.replace('/', '_')}_{slot}"
                for name in {f"{slot}/{saved}", f"{saved}/{slot}", flat}:
                    same = known.get(name, (index, slot)) == (index, slot)
                    known[name] = (index, slot) if same else None
    return known


def _unnamed_slots(
    kind: str,
    iteration: TensorRef | None,
    rate: TensorRef | None,
    refs: Sequence[TensorRef],
    variables: Sequence[KerasVariable],
) -> Found:
    """All first moments, then all second ones: by layers, or as Keras 1 did by sorted names."""
    trained = [index for index, variable in enumerate(variables) if variable.trained]
    names = _slot_names(kind, len(refs) // len(trained) if trained else 0)
    orders = [trained, sorted(trained, key=lambda index: variables[index].saved + ":0")]
    fitting = [
        order
        for order in orders
        if len(refs) == len(names) * len(order) and all(
            refs[block * len(order) + place].shape == variables[index].tensor.shape
            for block in range(min(len(names), 2))
            for place, index in enumerate(order)
        )
    ]  # fmt: skip
    if not names or not fitting or fitting[0] != fitting[-1]:
        note = f"{len(refs)} buffers without names, whose order and shapes do not decide"
        return Found(kind, iteration, rate, (), f"unmapped: {note}")
    slots = [
        Slot(index, name, refs[block * len(trained) + place])
        for block, name in enumerate(names)
        for place, index in enumerate(fitting[0])
    ]
    return Found(kind, iteration, rate, tuple(slots))


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
    kind = optimizer.kind if optimizer is not None else optimizer_kind(name)
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
    order = _order(variables, trained, wanted)
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
) -> list[int] | None:
    """Indices of the weights in the order of `shapes`; None where it is not decided."""
    if all(variables[index].placed for index in trained):
        good = all(variables[i].tensor.shape == s for i, s in zip(trained, shapes, strict=True))
        return list(trained) if good else None
    layers: dict[tuple[str, ...], list[int]] = {}
    for index in trained:
        layers.setdefault(variables[index].unit, []).append(index)
    queues: dict[str, list[list[int]]] = {}
    for members in layers.values():
        queues.setdefault(variables[members[0]].sequence, []).append(members)
    lines = [
        sorted(queue, key=lambda m: natural_key("/".join(variables[m[0]].unit)))
        for queue in queues.values()
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
