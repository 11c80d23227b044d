"""Flax and optax states in our terms: torch's names, output axis first, slots by weight.

Nothing is converted but names and the order of axes, which a tensor's strides express: a kernel is
stored spatial..., in, out and is shown as out, in, spatial... optax's `trace` is torch's momentum
buffer (v = m v + g), `mu` and `nu` are Adam's moments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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
# Where an optimizer's state lies, first the usual name.
OPTIMIZER_STATES = ("opt_state", "optimizer_state", "optimizer", "opt", "optim")
# What `inject_hyperparams` keeps of optax's own functions; none of them leaves anything out.
_KINDS = {
    frozenset({"learning_rate", "b1", "b2", "eps", "eps_root", "weight_decay"}): "adamw",
    frozenset({"learning_rate", "b1", "b2", "eps", "eps_root"}): "adam",
    frozenset({"learning_rate", "b1", "b2", "weight_decay"}): "lion",
    frozenset({"learning_rate", "momentum"}): "sgd",
    frozenset({"learning_rate"}): "sgd",
}
NOT_SAVED = (
    "optax saves no kind, weight decay or Nesterov's momentum but where inject_hyperparams keeps "
    "them: give --optimizer, --weight-decay and --nesterov"
)
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
    place = next((key for key in OPTIMIZER_STATES if isinstance(root.get(key), Mapping)), "")
    taken = ("params", "batch_stats", place)
    result: dict[str, Any] = {k: v for k, v in root.items() if k not in taken}
    result["params"] = weights
    result["conversion"] = NOTE
    optimizer = _optimizer(root.get(place), [name for name, _ in _named(params)])
    if optimizer is not None:
        result["optimizer"] = optimizer
        if not all("weight_decay" in group for group in optimizer["param_groups"]):
            result["conversion"] += f"; {NOT_SAVED}"
    elif place:
        result[place] = root[place]
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
    # Haiku calls a kernel w; it is stored as Flax' are.
    leaves = {
        (*path[:-1], "kernel") if path[-1] == "w" and len(ref.shape) > 1 else path: ref
        for path, ref in _leaves(tree, ())
    }
    for path, name in torch_names(leaves).items():
        yield name, output_first(path, leaves[path])


@dataclass(slots=True)
class _Injected:
    """A part of a state that keeps its own settings, or all of a state that keeps none.

    Attributes:
        hyper: The settings, by optax's names.
        whole: Whether it is all of the state.
        names: Weights that have a buffer in it.
    """

    hyper: Mapping[str, Any]
    whole: bool
    names: dict[str, None] = field(default_factory=dict)


def _optimizer(state: Any, names: list[str]) -> dict[str, Any] | None:
    """The state of optax, wherever in its chain a tree of slots or a counter lies."""
    known = frozenset(names)
    slots: dict[str, dict[str, Any]] = {}
    counters: list[Any] = []
    rest = _Injected({}, True)
    parts: list[_Injected] = []
    for key, value, part in _walk(state, 0, rest, parts):
        if key in _SLOTS and isinstance(value, Mapping):
            for name, ref in _named(value):
                if name in known:
                    slots.setdefault(name, {})[_SLOTS[key]] = ref
                    part.names[name] = None
        elif key == "count":
            counters.append(value)
    if not slots and not parts:
        return None
    for held in slots.values():
        if counters and "exp_avg" in held:
            held["step"] = counters[0]
    kind = _kind(parts)
    if not kind and slots and all(set(held) == {"momentum_buffer"} for held in slots.values()):
        kind = "sgd"
    found = {"state": slots, "param_groups": _groups(parts, rest, names, kind)}
    return {**found, "class_name": kind} if kind else found


def _kind(parts: list[_Injected]) -> str:
    """The optimizer by the names of its settings, where one keeps all of the state's."""
    if len(parts) != 1 or not parts[0].whole:
        return ""
    return _KINDS.get(frozenset(parts[0].hyper), "")


def _groups(
    parts: list[_Injected], rest: _Injected, names: list[str], kind: str
) -> list[dict[str, Any]]:
    """A group for each part with settings of its own; a lone one covers all weights."""
    if len(parts) < 2:
        settings = _settings(parts[0].hyper) if parts else {}
        if kind == "adamw":
            settings["decoupled_weight_decay"] = True
        return [{**settings, "params": names}]
    taken = {name for part in (*parts, rest) for name in part.names}
    left = [name for name in names if name not in taken]
    bare = [part for part in parts if not part.names]
    groups = [{**_settings(part.hyper), "params": [*part.names]} for part in parts if part.names]
    if len(bare) == 1 and not rest.names:  # plain SGD has no buffers: what no other part takes
        return [*groups, {**_settings(bare[0].hyper), "params": left}]
    return [*groups, {"params": [*rest.names, *left]}] if rest.names or left else groups


def _settings(hyper: Mapping[str, Any]) -> dict[str, Any]:
    settings = {_SETTINGS[k]: v for k, v in hyper.items() if k in _SETTINGS}
    beta1, beta2 = settings.pop("beta1", None), settings.pop("beta2", None)
    if beta1 is not None and beta2 is not None:
        settings["betas"] = (beta1, beta2)
    return settings


def _walk(
    value: Any, depth: int, part: _Injected, parts: list[_Injected]
) -> Iterator[tuple[str, Any, _Injected]]:
    """Every named part of a state, outermost first; the trees of slots are not entered."""
    if not isinstance(value, Mapping) or depth > _DEEPEST:
        return
    hyper = value.get("hyperparams")
    if isinstance(hyper, Mapping):
        part = _Injected(hyper, depth == 0)
        parts.append(part)
    for key, item in value.items():
        if type(key) is str and key != "hyperparams":
            yield key, item, part
            if key not in _SLOTS:
                yield from _walk(item, depth + 1, part, parts)
