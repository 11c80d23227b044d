"""Flax and optax states in our terms: torch's names, output axis first, slots by weight.

Nothing is converted but names and the order of axes, which a tensor's strides express: a kernel is
stored spatial..., in, out and is shown as out, in, spatial... optax's `trace` is torch's momentum
buffer (v = m v + g), `mu` and `nu` are Adam's moments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from smdlens.errors import SnapshotCorruptError
from smdlens.snapshots.foreign_names import output_first, torch_names
from smdlens.snapshots.resolve import is_tensor

_DEEPEST = 32
_SLOTS = {"trace": "momentum_buffer", "mu": "exp_avg", "nu": "exp_avg_sq"}
_SETTINGS = {
    "learning_rate": "lr", "momentum": "momentum", "weight_decay": "weight_decay", "eps": "eps",
    "b1": "beta1", "b2": "beta2",
}  # fmt: skip
NOTE = "names and axes shown as torch has them (kernel: out, in, spatial); optax trace is momentum"


def nested(flat: Mapping[str, Any], subject: str) -> dict[str, Any]:
    """Keys with slashes as nested dicts.

    Raises:
        SnapshotCorruptError: A key is both a value and a folder, or lies too deep.
    """
    root: dict[str, Any] = {}
    for key, value in flat.items():
        place: Any = root
        *folders, last = key.split("/")
        if len(folders) > _DEEPEST:
            raise SnapshotCorruptError("a key lies too deep", subject=subject, found=key[:100])
        for part in folders:
            place = place.setdefault(part, {})
            if type(place) is not dict:
                break
        if type(place) is not dict or last in place:
            raise SnapshotCorruptError(
                "a key names both an array and a folder", subject=subject, found=key[:100]
            )
        place[last] = value
    return root


def looks_like_flax(root: Any) -> bool:
    """Whether a tree has weights as Flax keeps them: `params` with a kernel, scale or embedding."""
    params = _params(root)
    if params is None:
        return False
    last = {name[-1] for name, _ in _leaves(params, ())}
    return bool(last & {"kernel", "scale", "embedding"})


def from_flax(root: Mapping[str, Any]) -> dict[str, Any]:
    """A train state or bare variables in our terms; everything else stays beside them."""
    params = _params(root)
    assert params is not None, "asked before looks_like_flax"
    statistics = root.get("batch_stats")
    if not isinstance(statistics, Mapping) and isinstance(root.get("params"), Mapping):
        statistics = root["params"].get("batch_stats")
    weights = dict(_named(params))
    if isinstance(statistics, Mapping):
        weights |= dict(_named(statistics))
    taken = ("params", "batch_stats", "opt_state")
    result: dict[str, Any] = {k: v for k, v in root.items() if k not in taken}
    result["params"] = weights
    result["conversion"] = NOTE
    optimizer = _optimizer(root.get("opt_state"), [name for name, _ in _named(params)])
    if optimizer is not None:
        result["optimizer"] = optimizer
    return result


def _params(root: Any) -> Mapping[str, Any] | None:
    """`params`, or `params.params` where the whole variables were kept under that name."""
    params = root.get("params") if isinstance(root, Mapping) else None
    if isinstance(params, Mapping) and isinstance(params.get("params"), Mapping):
        params = params["params"]
    return params if isinstance(params, Mapping) else None


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if is_tensor(value):
        if path:
            yield path, value
    elif isinstance(value, Mapping) and len(path) < _DEEPEST:
        for key, item in value.items():
            if type(key) is str:
                yield from _leaves(item, (*path, key))


def _named(tree: Any) -> Iterator[tuple[str, Any]]:
    leaves = dict(_leaves(tree, ()))
    for path, name in torch_names(leaves).items():
        yield name, output_first(path, leaves[path])


def _optimizer(state: Any, names: list[str]) -> dict[str, Any] | None:
    """The state of optax, wherever in its chain a tree of slots or a counter lies."""
    known = frozenset(names)
    slots: dict[str, dict[str, Any]] = {}
    settings: dict[str, Any] = {}
    counters: list[Any] = []
    for key, value in _walk(state, 0):
        if key in _SLOTS and isinstance(value, Mapping):
            for name, ref in _named(value):
                if name in known:
                    slots.setdefault(name, {})[_SLOTS[key]] = ref
        elif key == "hyperparams" and isinstance(value, Mapping):
            settings |= {_SETTINGS[k]: v for k, v in value.items() if k in _SETTINGS}
        elif key == "count":
            counters.append(value)
    if not slots and not settings:
        return None
    for held in slots.values():
        if counters and "exp_avg" in held:
            held["step"] = counters[0]
    beta1, beta2 = settings.pop("beta1", None), settings.pop("beta2", None)
    if beta1 is not None and beta2 is not None:
        settings["betas"] = (beta1, beta2)
    found = {"state": slots, "param_groups": [{**settings, "params": names}]}
    if slots and all(set(held) == {"momentum_buffer"} for held in slots.values()):
        return {**found, "class_name": "sgd"}
    return found


def _walk(value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """Every named part of a state, outermost first; the trees of slots are not entered."""
    if not isinstance(value, Mapping) or depth > _DEEPEST:
        return
    for key, item in value.items():
        if type(key) is str:
            yield key, item
            if key not in _SLOTS:
                yield from _walk(item, depth + 1)
