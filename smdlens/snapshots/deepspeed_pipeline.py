"""DeepSpeed's pipelines and experts: weights in a file per layer or expert, beside the others.

A pipeline keeps each layer's weights in layer_NN-model_states.pt under its own short names, and
what the optimizer holds in a file for every stage (mp_rank_NN is the stage where no tensor is
sliced). Experts lie one per file, under their full names with their number in the whole model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from smdlens.errors import SnapshotCorruptError, SnapshotUnsupportedError
from smdlens.snapshots.resolve import is_tensor

_LAYER = re.compile(r"layer_(?P<layer>\d{1,6})(?:-model_(?P<part>\d{1,4}))?-model_states\.pt")
_EXPERT = re.compile(
    r"(?:layer_(?P<layer>\d{1,6})_)?expert_(?P<expert>\d{1,6})_mp_rank_(?P<slice>\d{1,6})"
    r"_model_states\.pt"
)
_EXPERTS_OPTIMIZER = re.compile(r"expp_rank_\d{1,6}_mp_rank_0{1,6}_optim_states\.pt")
Load = Callable[[str], Mapping[Any, Any]]


def is_pipeline(names: frozenset[str]) -> bool:
    """Whether a folder has a file per layer."""
    return any(_LAYER.fullmatch(name) for name in names)


def layer_weights(names: frozenset[str], load: Load, subject: str) -> dict[str, Any]:
    """All weights of a pipeline as `LAYER.NAME`, in the order of the layers.

    Raises:
        SnapshotUnsupportedError: Layers cut into tensor-parallel slices.
        SnapshotCorruptError: A layer's file twice.
    """
    found: dict[int, str] = {}
    for name in sorted(names):
        match = _LAYER.fullmatch(name)
        if match is None:
            continue
        if int(match["part"] or 0) > 0:
            raise _sliced(subject, name)
        layer = int(match["layer"])
        if layer in found:
            raise SnapshotCorruptError(
                f"two files of layer {layer}", subject=subject, found=f"{found[layer]}, {name}"
            )
        found[layer] = name
    return {
        f"{layer}.{key}": value
        for layer in sorted(found)
        for key, value in load(found[layer]).items()
        if type(key) is str and is_tensor(value)
    }


def expert_weights(names: frozenset[str], load: Load, subject: str) -> dict[str, Any]:
    """The weights of all experts by their full names, in the order of layer and expert."""
    found = [(match, name) for name in names if (match := _EXPERT.fullmatch(name)) is not None]
    weights: dict[str, Any] = {}
    for match, name in sorted(found, key=lambda f: (int(f[0]["layer"] or 0), int(f[0]["expert"]))):
        if int(match["slice"]) > 0:
            raise _sliced(subject, name)
        tensors = {k: v for k, v in load(name).items() if type(k) is str and is_tensor(v)}
        if tensors.keys() & weights.keys():
            raise SnapshotCorruptError(
                "two experts with a tensor of one name", subject=subject, found=name
            )
        weights |= tensors
    return weights


def experts_optimizer(names: frozenset[str]) -> str | None:
    """The file of the optimizer of a model with experts, where a single rank holds them all."""
    found = [name for name in names if _EXPERTS_OPTIMIZER.fullmatch(name)]
    return found[0] if len(found) == 1 else None


def joined_optimizers(stages: Sequence[Any]) -> dict[str, Any] | None:
    """One optimizer from those of the stages: parameters numbered on, groups joined by place.

    Each stage numbers the parameters of its own layers, which follow those of the stage before.
    """
    if not all(
        isinstance(s, Mapping)
        and isinstance(s.get("state"), Mapping)
        and isinstance(s.get("param_groups"), (list, tuple))
        for s in stages
    ):
        return None
    state: dict[Any, Any] = {}
    groups: list[dict[str, Any]] = []
    base = 0
    for stage in stages:
        numbers = [0]
        for place, group in enumerate(stage["param_groups"]):
            given = group if isinstance(group, Mapping) else {}
            held = given.get("params")
            params = [p for p in held if type(p) is int] if isinstance(held, list) else []
            numbers += [p + 1 for p in params]
            if place == len(groups):
                groups.append({**given, "params": []})
            groups[place]["params"] += [base + p for p in params]
        state |= {base + k: v for k, v in stage["state"].items() if type(k) is int}
        base += max(numbers)
    return {"state": state, "param_groups": groups}


def _sliced(subject: str, name: str) -> SnapshotUnsupportedError:
    return SnapshotUnsupportedError(
        "the model is cut into tensor-parallel slices",
        subject=subject,
        expected="one slice of every layer",
        found=name,
        remedy="Merge the slices with DeepSpeed's own tools first.",
    )
