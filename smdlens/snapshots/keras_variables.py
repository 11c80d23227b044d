"""Weights and optimizer buffers of Keras' HDF5 files under the names of their layers.

Three layouts: `layer_names` with `weight_names` (.h5 of Keras 1 to 3), alone or beside
`optimizer_weights`; and a tree of `vars` numbered in each layer (.weights.h5, .keras).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from smdlens.containers.hdf5_file import Hdf5Dataset, Hdf5Group
from smdlens.containers.hdf5_types import TEXT
from smdlens.snapshots.hdf5_tensors import member, text_list
from smdlens.snapshots.keras_config import KerasLayer, snake_case
from smdlens.snapshots.records import TensorRef
from smdlens.snapshots.steps import natural_key

Shape = tuple[int, ...]
Locate = Callable[[str, Hdf5Dataset], TensorRef]
_SUFFIX = re.compile(r"_\d+$")
_STATISTICS = frozenset({"moving_mean", "moving_variance", "mean", "variance", "count", "state"})
_NUMBER = re.compile(r"\d{1,9}")
_OWN = "top_level_model_weights"
# Layers inside a layer of Keras, by their groups, in the order Keras builds them in.
_INNER = {"query_dense": 0, "key_dense": 1, "value_dense": 2, "output_dense": 3,
          "forward_layer": 0, "backward_layer": 1, "cell": 0, "layer": 0}  # fmt: skip


@dataclass(frozen=True, slots=True)
class KerasVariable:
    """A weight.

    Attributes:
        path: Names of models and layers, then the variable's ("conv1", "kernel").
        saved: Its name as the optimizer's variables quote it.
        tensor: Where it lies.
        trained: Whether it is a parameter rather than a statistic, and not frozen.
        sequence: Layers of one sequence come in the model's order.
        layer: Its layer's description, where the file has one.
        unit: The layer of the model it lies in: its variables follow each other, in order.
        placed: Whether the description gives the unit's place in the model.
    """

    path: tuple[str, ...]
    saved: str
    tensor: TensorRef
    trained: bool
    sequence: str
    layer: KerasLayer | None = None
    unit: tuple[str, ...] = ()
    placed: bool = False


def legacy_variables(
    weights: Hdf5Group, place: str, layers: Sequence[KerasLayer], locate: Locate
) -> list[KerasVariable]:
    """Variables of the layout with `layer_names`, in the model's order."""
    described = {layer.path[-1]: layer for layer in reversed(layers)}
    found = []
    # Weights that a model written as a class holds itself stand apart, first in its own order.
    for name in [_OWN, *(text_list(weights.attributes, "layer_names") or [])]:
        group = weights.members.get(name)
        if not isinstance(group, Hdf5Group):
            continue
        for saved in text_list(group.attributes, "weight_names") or []:
            dataset = member(group, *saved.split("/"))
            if not isinstance(dataset, Hdf5Dataset) or dataset.dtype == TEXT:
                continue
            parts = saved.removesuffix(":0").split("/")
            path = (name, *parts[parts.index(name) + 1 :]) if name in parts[:-1] else (name, *parts)
            path = tuple(parts) if name == _OWN else path
            layer = described.get(path[-2] if len(path) > 1 else "") or described.get(name)
            kind = snake_case(layer.kind) if layer is not None else ""
            own = path[-1]
            if kind.startswith("depthwise_conv") and own == "kernel":
                path = (*path[:-1], "depthwise_kernel")
            trained = own not in _STATISTICS and (layer is None or layer.trainable)
            tensor = locate(f"{place}{name}/{saved}", dataset)
            found.append(KerasVariable(path, saved.removesuffix(":0"), tensor, trained, "", layer))
    return found


def legacy_slots(group: Hdf5Group, place: str, locate: Locate) -> list[tuple[str, TensorRef]]:
    """Name and place of each of the optimizer's variables, in its own order."""
    found = []
    for saved in text_list(group.attributes, "weight_names") or []:
        dataset = member(group, *saved.split("/"))
        if isinstance(dataset, Hdf5Dataset) and dataset.dtype != TEXT:
            name = saved.removesuffix(":0")
            found.append((name, locate(f"{place}{saved}", dataset)))
    return found


def numbered_variables(
    root: Hdf5Group,
    layers: Sequence[KerasLayer],
    groups: Mapping[tuple[str, ...], KerasLayer],
    locate: Locate,
) -> list[KerasVariable]:
    """Variables of the layout with `vars`; in the model's order where `layers` gives it.

    Args:
        root: The file.
        layers: Layers of the described model, in order.
        groups: The same by the groups that are named by class.
        locate: Place of a dataset.
    """
    by_path = {layer.path: layer for layer in layers}
    found = []
    for keys, names, group in _with_vars(root, (), ()):
        if keys[:1] and keys[0] in ("optimizer", "metrics", "_metrics", "loss_tracker"):
            continue
        unit = keys
        while unit and unit[-1].lstrip("_") in _INNER:
            unit = unit[:-1]
        inside = len(keys) - len(unit)
        model_path = names[: len(names) - inside] if inside else names
        placed = by_path.get(model_path) or groups.get(unit)
        if placed is not None and placed.path != model_path:
            names = (*placed.path, *names[len(names) - inside :]) if inside else placed.path
        around = (by_path.get(names[:n]) for n in range(len(names), 0, -1))
        layer = placed or next((each for each in around if each is not None), None)
        datasets = [
            (number, dataset)
            for number, dataset in sorted(group.members.items(), key=lambda kv: natural_key(kv[0]))
            if isinstance(dataset, Hdf5Dataset) and dataset.dtype != TEXT
        ]
        hint = _kind_of(keys, names, [dataset.shape for _, dataset in datasets])
        own = variable_names(hint, len(datasets), layer)
        sequence = "/".join((*unit[:-1], _SUFFIX.sub("", unit[-1] if unit else "")))
        for (number, dataset), variable in zip(datasets, own, strict=True):
            where = "/".join((*keys, "vars", number))
            trained = variable not in _STATISTICS and not dataset.dtype.startswith(("int", "uint"))
            trained = trained and (layer is None or layer.trainable)
            path, tensor = (*names, variable), locate(where, dataset)
            found.append(
                KerasVariable(
                    path, where, tensor, trained, sequence, layer, unit, placed is not None
                )
            )
    if layers:
        order = {layer.path: index for index, layer in enumerate(layers)}
        last = len(layers)
        found.sort(key=lambda v: min((order.get(v.path[:n], last) for n in range(len(v.path))),
                                     default=last))  # fmt: skip
    return found


def numbered_slots(root: Hdf5Group, locate: Locate) -> tuple[str, list[TensorRef]]:
    """The optimizer's name ("" where the file does not say) and variables, in its own order."""
    holder: Hdf5Group | Hdf5Dataset | None = root.members.get("optimizer")
    while isinstance(holder, Hdf5Group) and "inner_optimizer" in holder.members:
        # Mixed precision wraps it: the outer one counts nothing and has a rate of 0.
        holder = holder.members["inner_optimizer"]
    group = member(holder, "vars") if isinstance(holder, Hdf5Group) else None
    if not isinstance(group, Hdf5Group):
        return "", []
    name = group.attributes.get("name")
    numbered = {
        int(number): dataset
        for number, dataset in group.members.items()
        if _NUMBER.fullmatch(number) and isinstance(dataset, Hdf5Dataset)
    }
    refs = [
        locate(f"optimizer/vars/{number}", dataset)
        for number, dataset in sorted(numbered.items(), key=lambda kv: kv[0])
    ]
    return name if isinstance(name, str) else "", refs


def variable_names(key: str, count: int, layer: KerasLayer | None) -> list[str]:
    """Names of the variables of a layer that is known by the name of its group and their number."""
    kind = _SUFFIX.sub("", key)
    names: tuple[str, ...] = ()
    if kind.startswith("depthwise_conv"):
        names = ("depthwise_kernel", "bias")
    elif kind.startswith("separable_conv"):
        names = ("depthwise_kernel", "pointwise_kernel", "bias")
    elif kind.startswith("conv") or kind in ("dense", "einsum_dense") or kind.endswith("_dense"):
        names = ("kernel", "bias")
    elif kind in ("batch_normalization", "sync_batch_normalization"):
        names = (*_affine(layer, count - 2), "moving_mean", "moving_variance")
    elif kind in ("layer_normalization", "group_normalization"):
        names = _affine(layer, count)
    elif kind == "rms_normalization":
        names = ("scale",)
    elif kind.endswith("embedding"):
        names = ("embeddings",)
    elif kind == "cell" or kind.endswith("_cell"):
        names = ("kernel", "recurrent_kernel", "bias")
    elif kind == "normalization":
        names = ("mean", "variance", "count")
    elif kind == "seed_generator":
        names = ("state",)
    return [names[i] if i < len(names) else str(i) for i in range(count)]


def _kind_of(keys: tuple[str, ...], names: tuple[str, ...], shapes: list[Shape]) -> str:
    """The kind of a layer: from the name of its group, its own name, or its variables' shapes.

    A model written as a class names groups by its attributes ("self.conv1"), not by their classes.
    """
    for text in (keys[-1:], names[-1:]):
        if text and variable_names(text[0], 1, None) != ["0"]:
            return text[0]
    first = shapes[0] if shapes else ()
    if len(shapes) in (1, 2) and all(shape == first[-1:] for shape in shapes[1:]):
        if len(first) > 2:
            return "conv"
        if len(first) == 2 and len(shapes) == 2:
            return "dense"
    if len(first) == 1 and len(shapes) in (2, 4) and set(shapes) == {first}:
        return "batch_normalization" if len(shapes) == 4 else "layer_normalization"
    return ""


def _affine(layer: KerasLayer | None, count: int) -> tuple[str, ...]:
    """Which of gamma and beta a normalisation has; one alone is not told apart without a config."""
    if count != 1:
        return ("gamma", "beta")[: max(count, 0)]
    if layer is None:
        return ("gamma_or_beta",)
    return ("gamma",) if layer.config.get("center") is False else ("beta",)


def _with_vars(
    group: Hdf5Group, keys: tuple[str, ...], names: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...], Hdf5Group]]:
    """(keys, names of layers, group of variables) of every layer, in natural order."""
    held = group.members.get("vars")
    if isinstance(held, Hdf5Group):
        name = held.attributes.get("name")
        if keys:
            names = (*names, name if isinstance(name, str) and name else keys[-1])
        yield keys, names, held
    inner = sorted(
        group.members.items(), key=lambda m: (_INNER.get(m[0].lstrip("_"), 0), natural_key(m[0]))
    )
    for key, child in inner:
        if key != "vars" and isinstance(child, Hdf5Group):
            yield from _with_vars(child, (*keys, key), names)
