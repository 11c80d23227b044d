"""Which mapping inside a checkpoint holds the weights that the optimizer trains."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from smdlens.containers.inert_values import Opaque
from smdlens.errors import InputError
from smdlens.snapshots.records import DTYPE_BYTES, MEASURED_DTYPES, TensorRef, WeightTree
from smdlens.snapshots.resolve import is_tensor, tensor_ref

_DEPTH = 3
_MOST_CHILDREN = 1_000
# The usual containers, most specific first; only used to decide between equals.
_KEYS = (
    "state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params",
    "student", "generator",
)  # fmt: skip
_AVERAGED = re.compile(r"(?:^|[^a-z])(?:ema|swa|averaged?|avg|shadow|polyak)(?:[^a-z]|$)")
_BUFFER_SUFFIXES = ("running_mean", "running_var", "num_batches_tracked", "n_averaged")
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


@dataclass(frozen=True, slots=True)
class RawTree:
    """A mapping with tensors in it: its dotted key and the tensors, under canonical names.

    Attributes:
        key: Dotted path inside the file.
        tensors: Canonical name -> tensor, in file order.
        original: Canonical name -> name in the file.
        averaged: Whether the tree is an average of weights (EMA, SWA) rather than weights.
    """

    key: str
    tensors: Mapping[str, Any]
    original: Mapping[str, str]
    averaged: bool

    def elements(self) -> int:
        """Number of floating-point elements."""
        total = 0
        for value in self.tensors.values():
            if value.dtype in MEASURED_DTYPES:
                size = 1
                for n in value.shape:
                    size *= n
                total += size
        return total

    def resolve(self) -> WeightTree:
        """The tree with every tensor's bytes located and checked."""
        tensors: dict[str, TensorRef] = {}
        for name, value in self.tensors.items():
            if value.dtype in DTYPE_BYTES:
                tensors[name] = tensor_ref(self.original[name], value)
        return WeightTree(self.key, tensors, self.averaged)


def is_averaged_name(text: str) -> bool:
    """Whether a key or file name speaks of averaged weights (ema, swa, polyak ...)."""
    return _AVERAGED.search(text.lower()) is not None


def is_buffer(name: str) -> bool:
    """Whether a tensor is a statistic of a normalisation layer rather than a parameter."""
    return name.rpartition(".")[2] in _BUFFER_SUFFIXES


def optimizer_of(value: Any) -> Mapping[str, Any] | None:
    """The torch optimizer's state dict that a value is, or holds as a pickled optimizer."""
    held = value.state if type(value) is Opaque else value
    if (
        isinstance(held, Mapping)
        and isinstance(held.get("param_groups"), (list, tuple))
        and isinstance(held.get("state"), Mapping)
    ):
        return held
    return None


def children(value: Any) -> Iterator[tuple[str, Any]]:
    """Named parts of a dict, list or foreign object, a bounded number of them."""
    if type(value) is Opaque:
        value = value.state if type(value.state) is dict else value.entries
    if isinstance(value, Mapping):
        for count, (key, item) in enumerate(value.items()):
            if count >= _MOST_CHILDREN:
                return
            if isinstance(key, (str, int)):
                yield str(key), item
    elif type(value) in (list, tuple):
        for index, item in enumerate(value[:_MOST_CHILDREN]):
            yield str(index), item


def containers(
    root: Any, depth: int = _DEPTH, *, stop: Callable[[Any], bool]
) -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every dict, list and foreign object, nearest first, each once.

    Args:
        root: Where to start; its own key is empty.
        depth: Levels below the root.
        stop: Whether to leave out what is inside a value.
    """
    queue: deque[tuple[str, Any, int]] = deque([("", root, 0)])
    # Shared and cyclic structures would otherwise be walked once per path to them.
    seen = {id(root)}
    while queue:
        key, value, level = queue.popleft()
        yield key, value
        if level == depth or stop(value):
            continue
        for name, item in children(value):
            nested = isinstance(item, (Mapping, list, tuple)) or type(item) is Opaque
            if nested and id(item) not in seen:
                seen.add(id(item))
                queue.append((f"{key}.{name}" if key and name else key or name, item, level + 1))


def find_trees(root: Any) -> list[RawTree]:
    """Every mapping with floating-point tensors down to three levels, optimizers left out."""
    found: list[RawTree] = []
    for key, value in containers(root, stop=_ends_search):
        if optimizer_of(value) is not None:
            continue
        if type(value) is Opaque:
            tensors = module_tensors(value)
        elif isinstance(value, Mapping):
            tensors = {k: v for k, v in value.items() if isinstance(k, str) and is_tensor(v)}
        else:
            continue
        if any(v.dtype in MEASURED_DTYPES and v.shape for v in tensors.values()):
            found.append(_tree(key, tensors))
    if any(_last(tree.key) == "student" for tree in found):
        # Self-distillation: the teacher is a moving average of the student.
        found = [replace(t, averaged=True) if _last(t.key) == "teacher" else t for t in found]
    return found


def _ends_search(value: Any) -> bool:
    return optimizer_of(value) is not None or (type(value) is Opaque and is_module(value))


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _tree(key: str, tensors: Mapping[str, Any]) -> RawTree:
    averaged = is_averaged_name(key) or "n_averaged" in tensors
    names = canonical_names(list(tensors))
    return RawTree(
        key,
        {names[name]: value for name, value in tensors.items()},
        {canonical: name for name, canonical in names.items()},
        averaged,
    )


def is_module(value: Opaque) -> bool:
    """Whether a foreign object is a pickled or scripted `nn.Module`."""
    return type(value.state) is dict and (
        "_modules" in value.state or value.module.startswith("__torch__")
    )


def module_tensors(root: Opaque) -> dict[str, Any]:
    """Parameters and buffers of a module, by their dotted names, in the module's order."""
    result: dict[str, Any] = {}
    pending: list[tuple[str, Any]] = [("", root)]
    seen: set[int] = set()
    while pending:
        prefix, value = pending.pop()
        if is_tensor(value):
            result[prefix] = value
            continue
        if type(value) is not Opaque or not is_module(value) or id(value) in seen:
            continue
        seen.add(id(value))
        state = value.state
        if "_modules" in state:
            places = [state.get("_parameters"), _saved_buffers(state), state["_modules"]]
        else:  # TorchScript keeps all of them as attributes
            places = [state]
        inner = [item for place in places for item in children(place)]
        pending += [(f"{prefix}.{n}" if prefix else n, item) for n, item in reversed(inner)]
    return result


def _saved_buffers(state: Mapping[Any, Any]) -> Any:
    """Buffers that `state_dict()` would hold: those that are not registered as temporary."""
    buffers, left_out = state.get("_buffers"), state.get("_non_persistent_buffers_set")
    if not isinstance(buffers, Mapping) or type(left_out) is not set:
        return buffers
    return {name: value for name, value in buffers.items() if name not in left_out}


def canonical_names(names: list[str]) -> dict[str, str]:
    """Name in the file -> name without the prefixes of wrappers.

    Stripped are `_orig_mod.` (torch.compile), `_fsdp_wrapped_module.` and
    `_checkpoint_wrapped_module.` anywhere, and `module.` (DataParallel, AveragedModel) where
    every name has it. Nothing is stripped where two names would become one.
    """
    stripped = {name: _unwrap(name) for name in names}
    while True:
        inner = [s for s in stripped.values() if s != "n_averaged"]
        if not inner or not all(s.startswith("module.") for s in inner):
            break
        stripped = {name: s.removeprefix("module.") for name, s in stripped.items()}
    if len(set(stripped.values())) != len(names) or "" in stripped.values():
        return {name: name for name in names}
    return stripped


def _unwrap(name: str) -> str:
    if "_orig_mod" not in name and "_wrapped_module" not in name:
        return name
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def select_tree(trees: list[RawTree], key: str | None, subject: str) -> RawTree | None:
    """The tree the user names; None where they name none.

    Raises:
        InputError: No tree has that key.
    """
    if key is None:
        return None
    for tree in trees:
        if tree.key == key:
            return tree
    raise InputError(
        f"--weights {key}: no such weight tree",
        subject=subject,
        expected="one of " + ", ".join(repr(t.key) for t in trees[:20]) if trees else None,
    )


def preference(tree: RawTree) -> tuple[int, int, int]:
    """Sort key between trees that fit the optimizer equally well; smaller is better."""
    name = _last(tree.key)
    rank = _KEYS.index(name) if name in _KEYS else len(_KEYS)
    return (-tree.elements(), rank, tree.key.count("."))
