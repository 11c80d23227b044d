"""The tree of an Orbax checkpoint in our terms: nested names, then as Flax and optax states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from smdlens.errors import SnapshotCorruptError
from smdlens.snapshots.flax_tree import OPTIMIZER_STATES, from_flax, looks_like_flax
from smdlens.snapshots.records import TensorRef
from smdlens.snapshots.resolve import is_tensor

_DEEPEST = 32
# Names of items that hold a whole training state, first the usual ones.
_STATES = ("state", "train_state", "default", "items", "model_state")


def placed(
    tensors: Mapping[str, TensorRef], metadata: Any, together: Any, subject: str
) -> dict[str, Any]:
    """Arrays in the nested dicts they were saved from.

    Args:
        tensors: By the name they are stored under, keys joined with dots.
        metadata: Content of `_METADATA`, or None.
        together: Content of the file that holds arrays saved in one, or None.
        subject: The folder, for errors.

    Raises:
        SnapshotCorruptError: An array and a dict of one name.
    """
    paths = {".".join(path): path for path in _paths(metadata)}
    values: dict[str, Any] = dict(tensors)
    for path, value in _aggregated(together, ()):
        name = ".".join(path)
        if name not in values:
            values[name], paths[name] = value, path
    root: dict[str, Any] = {}
    for name, ref in values.items():
        path = paths.get(name) or tuple(name.split("."))
        place: Any = root
        for part in path[:-1]:
            place = place.setdefault(part, {}) if type(place) is dict else None
        if type(place) is not dict or path[-1] in place or len(path) > _DEEPEST:
            raise SnapshotCorruptError(
                "an array under a name that another has, or too deep",
                subject=subject,
                found=name[:200],
            )
        place[path[-1]] = ref
    return {key: _without_values(value) for key, value in root.items()}


def _aggregated(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Arrays and plain values with their paths; text that stands for an array elsewhere is not."""
    if len(path) > _DEEPEST:
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _aggregated(item, (*path, str(key)))
    elif type(value) is list:
        for number, item in enumerate(value):
            yield from _aggregated(item, (*path, str(number)))
    elif path and (is_tensor(value) or type(value) in (int, float)):
        yield path, value


def _paths(metadata: Any) -> Iterator[tuple[str, ...]]:
    tree = metadata.get("tree_metadata") if isinstance(metadata, Mapping) else None
    for entry in tree.values() if isinstance(tree, Mapping) else ():
        keys = entry.get("key_metadata") if isinstance(entry, Mapping) else None
        if isinstance(keys, list) and keys and all(isinstance(k, Mapping) for k in keys):
            yield tuple(str(k.get("key")) for k in keys)


def _without_values(root: Any) -> Any:
    """NNX keeps each variable under a key `value` of its own."""
    if type(root) is not dict:
        return root
    if list(root) == ["value"] and is_tensor(root["value"]):
        return root["value"]
    return {key: _without_values(value) for key, value in root.items()}


def checkpoint_root(items: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's content from its items ("" for a checkpoint of one tree)."""
    trees = {name: tree for name, tree in items.items() if _has_tensors(tree)}
    rest = {name: value for name, value in items.items() if name not in trees}
    if len(trees) == 1 and next(iter(trees)) in ("", *_STATES):
        (root,) = trees.values()
    else:
        root = dict(trees)
        for name in _STATES:
            if name in trees and not trees.keys() & trees[name].keys():
                root = {**root, **root.pop(name)}
                break
    return {**rest, **interpreted(root)}


def interpreted(root: dict[str, Any]) -> dict[str, Any]:
    """A tree of JAX arrays in our terms: a state of Flax, or weights under a usual name."""
    if looks_like_flax(root):
        return from_flax(root)
    for key, value in root.items():
        # {"model": {"params": ..., "opt_state": ...}, ...}
        if type(value) is dict and looks_like_flax(value):
            return from_flax({**{k: v for k, v in root.items() if k != key}, **value})
    for key in ("params", "model", "weights", "variables"):
        if type(root.get(key)) is dict and _has_tensors(root[key]):
            others = {k: v for k, v in root.items() if k != key}
            return from_flax({**others, "params": root[key]})
    whole = {
        k: v
        for k, v in root.items()
        if (type(v) is dict and k not in OPTIMIZER_STATES) or (is_tensor(v) and v.shape)
    }
    if _has_tensors(whole):
        others = {k: v for k, v in root.items() if k not in whole}
        return from_flax({**others, "params": whole})
    return root


def _has_tensors(value: Any, depth: int = 0) -> bool:
    if is_tensor(value):
        return True
    return (
        depth < _DEEPEST
        and isinstance(value, Mapping)
        and any(_has_tensors(item, depth + 1) for item in value.values())
    )
