"""The nested state that torch.distributed.checkpoint flattened into dotted keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from smdlens.errors import SnapshotCorruptError

_DEEPEST = 32
_PLAIN = (str, int, float, bool, type(None))


def unflatten(
    values: Mapping[str, Any], paths: Mapping[str, tuple[str | int, ...]], subject: str
) -> dict[str, Any]:
    """Nested dicts and lists from flat keys.

    Args:
        values: Key -> value.
        paths: Key -> the path it stands for; a key without one stays as it is.
        subject: The metadata file, for errors.

    Raises:
        SnapshotCorruptError: A key is both a value and a folder, or lies too deep.
    """
    root: dict[Any, Any] = {}
    inner = {id(root)}
    for key, value in values.items():
        path = paths.get(key, (key,))
        if not 0 < len(path) <= _DEEPEST:
            raise SnapshotCorruptError("a key lies too deep", subject=subject, found=key[:100])
        place = root
        for part in path[:-1]:
            place = place.setdefault(part, {})
            if type(place) is not dict:
                raise _twice(subject, key)
            inner.add(id(place))
        if path[-1] in place:
            raise _twice(subject, key)
        place[path[-1]] = value
    # Values that are dicts themselves are leaves: only what was made here is turned into lists.
    result = {str(k): _lists(v, inner) for k, v in root.items()}
    return {k: _optimizer(v) for k, v in _apart(result).items()}


def _lists(value: Any, inner: set[int]) -> Any:
    if type(value) is not dict or id(value) not in inner:
        return value
    made = {k: _lists(v, inner) for k, v in value.items()}
    if made and all(type(k) is int for k in made) and sorted(made) == list(range(len(made))):
        return [made[i] for i in range(len(made))]
    return made


def _optimizer(value: Any) -> Any:
    """An optimizer state flattened by parameter, in the nested form; anything else as it is.

    With `flatten_optimizer_state_dict` the keys are `state.<name>.<slot>` and
    `param_groups.<name>.<setting>`; parameters with the same settings become one group.
    """
    if not isinstance(value, dict) or not value:
        return value
    if isinstance(value.get("state"), dict) and isinstance(value.get("param_groups"), list):
        return {**value, "state": _numbered(value["state"])}
    if not all(isinstance(k, str) and k.startswith(("state.", "param_groups.")) for k in value):
        return value
    state: dict[str, dict[str, Any]] = {}
    settings: dict[str, dict[str, Any]] = {}
    for key, item in value.items():
        kind, _, rest = key.partition(".")
        name, _, last = rest.rpartition(".")
        (state if kind == "state" else settings).setdefault(name, {})[last] = item
    groups: dict[Any, dict[str, Any]] = {}
    for name in settings or state:
        given = settings.get(name, {})
        same = tuple(sorted((k, _token(v)) for k, v in given.items()))
        groups.setdefault(same, {**given, "params": []})["params"].append(name)
    return {"state": state, "param_groups": list(groups.values())}


def _apart(root: dict[str, Any]) -> dict[str, Any]:
    """An optimizer state that was flattened into the weights' own level, on a level of its own."""
    inside = {
        key: value
        for key, value in root.items()
        if key.startswith(("state.", "param_groups."))
        and key.partition(".")[2].rpartition(".")[0] in root
    }
    if not inside or "optimizer" in root:
        return root
    return {**{k: v for k, v in root.items() if k not in inside}, "optimizer": inside}


def _numbered(state: dict[Any, Any]) -> dict[Any, Any]:
    """State by parameter number, where the numbers became text on the way into a dotted key."""
    if all(isinstance(k, str) and k.isascii() and k.isdecimal() and len(k) < 10 for k in state):
        return {int(k): v for k, v in state.items()}
    return state


def _token(value: Any) -> str:
    """Equal for equal plain settings; anything else is like nothing but itself."""
    if type(value) in _PLAIN:
        return repr(value)
    if type(value) in (tuple, list) and all(type(v) in _PLAIN for v in value):
        return repr(tuple(value))
    return f"object {id(value)}"


def _twice(subject: str, key: str) -> SnapshotCorruptError:
    return SnapshotCorruptError(
        "a key names both a value and a group of values", subject=subject, found=key[:100]
    )
