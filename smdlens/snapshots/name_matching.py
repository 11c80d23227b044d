"""Which weight each index of an optimizer means: by name, else by order and shape.

torch numbers parameters group by group; within a group they keep the order of the model. An index
sequence is embedded into the model's order as early and as late as the shapes of its buffers allow;
where both agree, the name is decided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from smdlens.containers.inert_values import PickledTensor
from smdlens.snapshots.decay_rules import split_by_rule
from smdlens.snapshots.records import MEASURED_DTYPES
from smdlens.snapshots.weight_trees import RawTree, canonical_names, is_buffer

Shape = tuple[int, ...]
_COMMON_PREFIXES = ("model.", "net.", "network.", "module.", "backbone.")


@dataclass(frozen=True, slots=True)
class Match:
    """Parameters of an optimizer in a weight tree.

    Attributes:
        names: Optimizer index -> canonical name, for those that are decided.
        group_names: Per group, its names; None where not all of them are decided.
        group_counts: Per group, its number of parameters.
        note: How the names were found.
        quality: Fraction of the optimizer's parameters that may belong to this tree: 1 where
            every shape and name fits, 0 where something contradicts.
    """

    names: Mapping[Hashable, str]
    group_names: tuple[tuple[str, ...] | None, ...]
    group_counts: tuple[int, ...]
    note: str
    quality: float


def parameters_of(tree: RawTree) -> dict[str, Shape]:
    """Candidate parameters in file order: floating point, no statistics, tied weights once."""
    result: dict[str, Shape] = {}
    seen: set[Hashable] = set()
    for name, value in tree.tensors.items():
        if value.dtype not in MEASURED_DTYPES or is_buffer(name):
            continue
        place = _place(value)
        if place not in seen or place is None:
            seen.add(place)
            result[name] = value.shape
    return result


def _place(value: object) -> Hashable:
    if isinstance(value, PickledTensor):
        storage = value.storage
        return (storage.key, storage.path, value.offset, value.shape, value.strides)
    return None


def match_parameters(
    indices: Sequence[Sequence[Hashable]],
    given: Sequence[Sequence[str] | None],
    shapes: Mapping[Hashable, Shape | None],
    tree: RawTree,
    ordered: bool,
) -> Match:
    """Match optimizer indices to the tree's names.

    Args:
        indices: Per group, the optimizer's own keys for its parameters.
        given: Per group, the names the optimizer itself carries, where it does.
        shapes: Shape of the buffers of each key, where there are any.
        tree: The weights.
        ordered: Whether the tree is in the model's order.
    """
    counts = tuple(len(group) for group in indices)
    if indices and all(names is not None for names in given):
        return _by_names(indices, [n for n in given if n is not None], tree, counts)
    parameters = parameters_of(tree)
    wanted = Counter(s for s in (shapes.get(i) for g in indices for i in g) if s is not None)
    available = Counter(parameters.values())
    total = sum(counts)
    if total > len(parameters) or any(n > available[s] for s, n in wanted.items()):
        note = "unmapped: number or shapes of its parameters do not fit these weights"
        return Match({}, (None,) * len(counts), counts, note, 0.0)
    quality = (sum(wanted.values()) + 1) / (total + 1) * total / max(len(parameters), 1)
    if not ordered:
        statistics = frozenset(n.rpartition(".")[0] for n in tree.tensors if is_buffer(n))
        return _by_shape_alone(indices, shapes, parameters, statistics, counts, quality)
    return _by_order(indices, shapes, parameters, counts, quality)


def _by_names(
    indices: Sequence[Sequence[Hashable]],
    given: Sequence[Sequence[str]],
    tree: RawTree,
    counts: tuple[int, ...],
) -> Match:
    flat = [name for names in given for name in names]
    canonical = canonical_names(list(dict.fromkeys(flat)))
    rename = _prefix_change([canonical[n] for n in flat], tree)
    names: dict[Hashable, str] = {}
    groups: list[tuple[str, ...] | None] = []
    for keys, texts in zip(indices, given, strict=True):
        found = [rename(canonical[text]) for text in texts]
        names |= {k: n for k, n in zip(keys, found, strict=True) if n in tree.tensors}
        groups.append(tuple(found) if all(n in tree.tensors for n in found) else None)
    quality = len(names) / len(flat) if flat else 0.0
    note = (
        "param_names"
        if len(names) == len(flat)
        else (f"param_names; {len(flat) - len(names)} of {len(flat)} are not among the weights")
    )
    return Match(names, tuple(groups), counts, note, quality)


class _Rename:
    """Adds one prefix to names and takes another away."""

    def __init__(self, add: str, remove: str) -> None:
        self._add = add
        self._remove = remove

    def __call__(self, name: str) -> str:
        return self._add + name.removeprefix(self._remove)


def _prefix_change(names: list[str], tree: RawTree) -> _Rename:
    """The prefix to add or take away so that most names are found in the tree."""
    best, most = _Rename("", ""), sum(n in tree.tensors for n in names)
    prefixes = dict.fromkeys(_COMMON_PREFIXES)
    for source in (next(iter(tree.tensors), ""), names[0] if names else ""):
        head, dot, _ = source.partition(".")
        if dot:
            prefixes[f"{head}."] = None
    if most == len(names):
        return best
    for prefix in prefixes:
        for change in (_Rename(prefix, ""), _Rename("", prefix)):
            found = sum(change(n) in tree.tensors for n in names)
            if found > most:
                best, most = change, found
    return best


def _by_order(
    indices: Sequence[Sequence[Hashable]],
    shapes: Mapping[Hashable, Shape | None],
    parameters: Mapping[str, Shape],
    counts: tuple[int, ...],
    quality: float,
) -> Match:
    names: dict[Hashable, str] = {}
    open_names = dict(parameters)
    pending = [list(group) for group in indices]
    contradicted = False
    while True:
        progress = False
        for group in pending:
            if not group:
                continue
            # A group that must take all that is left has only one way to do so; several groups
            # share what is left, and each decided one narrows the others.
            decided, fits = _embed(group, shapes, open_names)
            contradicted = contradicted or not fits
            for key, name in decided.items():
                names[key] = name
                progress = True
            if decided:
                group[:] = [key for key in group if key not in decided]
                for name in decided.values():
                    open_names.pop(name, None)
        if not progress:
            break
    total = sum(counts)
    if contradicted:
        return Match(
            {}, (None,) * len(counts), counts, "unmapped: shapes do not follow the order", 0.0
        )
    note = "order and shape"
    if len(names) < total:
        note = f"order and shape; unmapped: {total - len(names)} of {total} are ambiguous"
    return Match(names, _groups(indices, names), counts, note, quality)


def _embed(
    keys: Sequence[Hashable],
    shapes: Mapping[Hashable, Shape | None],
    parameters: Mapping[str, Shape],
) -> tuple[dict[Hashable, str], bool]:
    """Names that are the same in the earliest and the latest embedding, and whether one exists."""
    items = list(parameters.items())
    earliest = _greedy(keys, shapes, items)
    latest = _greedy(list(reversed(keys)), shapes, list(reversed(items)))
    if earliest is None or latest is None:
        return {}, False
    return {k: n for k, n in earliest.items() if latest[k] == n}, True


def _greedy(
    keys: Sequence[Hashable],
    shapes: Mapping[Hashable, Shape | None],
    items: Sequence[tuple[str, Shape]],
) -> dict[Hashable, str] | None:
    found: dict[Hashable, str] = {}
    at = 0
    for key in keys:
        shape = shapes.get(key)
        while at < len(items) and shape is not None and items[at][1] != shape:
            at += 1
        if at == len(items):
            return None
        found[key] = items[at][0]
        at += 1
    return found


def _by_shape_alone(
    indices: Sequence[Sequence[Hashable]],
    shapes: Mapping[Hashable, Shape | None],
    parameters: Mapping[str, Shape],
    statistics: frozenset[str],
    counts: tuple[int, ...],
    quality: float,
) -> Match:
    """Without an order: single shapes decide names, shapes of one group decide membership."""
    given = [[shapes.get(key) for key in group] for group in indices]
    if all(shape is not None for group in given for shape in group):
        wanted = [Counter(shape for shape in group if shape is not None) for group in given]
        split = split_by_rule(wanted, parameters, statistics)
        if split is not None:
            return _by_split(indices, shapes, parameters, split, counts, quality)
    by_shape: dict[Shape, list[str]] = {}
    for name, shape in parameters.items():
        by_shape.setdefault(shape, []).append(name)
    users: dict[Shape, list[tuple[int, Hashable]]] = {}
    known = True
    for number, group in enumerate(indices):
        for key in group:
            key_shape = shapes.get(key)
            if key_shape is None:
                known = False
            else:
                users.setdefault(key_shape, []).append((number, key))
    names: dict[Hashable, str] = {}
    members: list[list[str] | None] = [[] for _ in indices]
    for shape, using in users.items():
        owners = {number for number, _ in using}
        complete = len(using) == len(by_shape[shape])
        if known and complete and len(using) == 1:
            names[using[0][1]] = by_shape[shape][0]
        for number in owners:
            group_members = members[number]
            if complete and len(owners) == 1 and group_members is not None:
                group_members += by_shape[shape]
            else:
                members[number] = None
    total = sum(counts)
    note = (
        f"unmapped: the weights carry no order of parameters; {len(names)} of {total} have a "
        "shape of their own"
    )
    groups = tuple(tuple(m) if known and m is not None else None for m in members)
    return Match(names, groups, counts, note, quality)


def _by_split(
    indices: Sequence[Sequence[Hashable]],
    shapes: Mapping[Hashable, Shape | None],
    parameters: Mapping[str, Shape],
    split: tuple[tuple[str, ...], tuple[str, ...]],
    counts: tuple[int, ...],
    quality: float,
) -> Match:
    """Groups whose members a rule of weight decay tells: shapes single in a group decide names."""
    names: dict[Hashable, str] = {}
    for keys, members in zip(indices, split, strict=True):
        for key in keys:
            fitting = [name for name in members if parameters[name] == shapes.get(key)]
            if len(fitting) == 1:
                names[key] = fitting[0]
    total = sum(counts)
    note = "groups by the usual rule of weight decay, names by shape"
    if len(names) < total:
        note = f"unmapped: {total - len(names)} of {total} share their shape in a group; {note}"
    return Match(names, split, counts, note, quality)


def _groups(
    indices: Sequence[Sequence[Hashable]], names: Mapping[Hashable, str]
) -> tuple[tuple[str, ...] | None, ...]:
    return tuple(
        tuple(names[k] for k in group) if all(k in names for k in group) else None
        for group in indices
    )
