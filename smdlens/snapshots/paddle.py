"""PaddlePaddle's states in our terms: torch's names and axes, slots by weight.

Weights are a dict of name to array with a table of parameter names; the optimizer's slots carry
those names (`linear_0.w_0_velocity_0`). Linear layers are stored (input, output). Momentum is
torch's: v = m v + g. Arrays above a gigabyte may be cut into flat parts (protocols 2 and 3).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from smdlens.errors import SnapshotCorruptError
from smdlens.snapshots.foreign_names import torch_names
from smdlens.snapshots.records import TensorRef

NOTE = "Paddle: linear weights stored input, output are shown as output, input"
MASTERS = "float32 master weights of the optimizer"
TABLE = "StructuredToParameterName@@"
NAMES = "parameter_names"  # of what is read: a parameter's own name -> name of its tensor
_PARTS = "UnpackBigParamInfor@@"
_STATISTICS = ("._mean", "._variance")
_MASTER = re.compile(r"_fp32_master_\d{1,3}$")
_SLOT = re.compile(r"(?P<name>.+?)_(?P<slot>velocity|moment1|moment2|moment2_max)_\d{1,3}")
_SLOTS = {
    "velocity": "momentum_buffer", "moment1": "exp_avg", "moment2": "exp_avg_sq",
    "moment2_max": "max_exp_avg_sq",
}  # fmt: skip
# Buffers of optimizers whose rules are not ours.
_OTHERS = re.compile(
    r".+_(?:momentum|mean_square|mean_grad|inf_norm|moment|squared|linear|avg_squared_grad"
    r"|avg_squared_update|beta[12]_pow_acc)_\d{1,3}"
)
_LINEAR = re.compile(r"(?:.*/)?(?:column_parallel_|row_parallel_)?linear_\d+\.w_\d+")
_WEIGHTS_WORD = re.compile(r"(?:model_state|model|weights?|params)(?![a-z])")
_OPTIMIZER_WORDS = ("optimizer", "opt", "optim")


def looks_like_paddle(root: Any) -> bool:
    """Whether a dict, or one in it, is a state of Paddle's."""
    return isinstance(root, Mapping) and any(True for _ in _states(root))


def from_paddle(root: Mapping[Any, Any], beside: Mapping[Any, Any] | None) -> dict[str, Any]:
    """A checkpoint's content.

    Args:
        root: What the file of the weights holds.
        beside: What the file of the optimizer holds, where there is one.
    """
    result: dict[str, Any] = {"conversion": NOTE}
    state: Mapping[Any, Any] | None = beside
    trees: dict[str, Mapping[Any, Any]] = {}
    if any(key == "" for key, _ in _states(root)):
        trees[""] = root
    else:
        result |= {str(k): v for k, v in root.items() if not isinstance(v, Mapping)}
        for key, value in root.items():
            if isinstance(value, Mapping) and _is_optimizer(value):
                state = value
            elif isinstance(value, Mapping) and any(_tensor(v)[1] for v in value.values()):
                trees[str(key)] = value
            elif isinstance(value, Mapping):
                result[str(key)] = value
    names: dict[str, str] = {}
    masters = state.get("master_weights") if state is not None else None
    masters = masters if isinstance(masters, Mapping) else {}
    for key, tree in trees.items():
        weights, parameters = _weights(tree, masters)
        result[key] = weights
        names = names or parameters
    if names:
        result[NAMES] = names
    if masters:
        result["weights_source"] = MASTERS
    if state is not None:
        result |= _optimizer(state, names, next(iter(trees.values()), {}))
    return result


def joined_parts(root: Mapping[Any, Any], subject: str) -> dict[Any, Any]:
    """A dict in which arrays that were cut into flat parts are whole again.

    Raises:
        SnapshotCorruptError: A part is missing, or they do not make up the shape.
    """
    result = dict(root)
    table = result.pop(_PARTS, None)
    if not isinstance(table, Mapping):
        return result
    for name, info in table.items():
        shape = info.get("OriginShape") if isinstance(info, Mapping) else None
        listed = info.get("slices") if isinstance(info, Mapping) else None
        keys = listed if isinstance(listed, (list, tuple)) else ()
        parts = [result.pop(key, None) for key in keys if type(key) is str]
        refs = [part for part in parts if type(part) is TensorRef]
        sizes = tuple(shape) if isinstance(shape, (list, tuple)) else (-1,)
        good = all(type(n) is int and 0 <= n < 1 << 62 for n in sizes) and len(sizes) <= 64
        whole = bool(refs) and len(refs) == len(keys) and len({r.dtype for r in refs}) == 1
        if not good or not whole or math.prod(sizes) != sum(r.numel for r in refs):
            raise SnapshotCorruptError(
                f"the parts of array {str(name)[:100]!r} do not make up its shape",
                subject=subject,
                remedy="Copy the checkpoint again, or leave it out.",
            )
        extents = tuple(extent for ref in refs for extent in ref.extents)
        result[name] = TensorRef(str(name), sizes, refs[0].dtype, extents)
    return result


def optimizer_beside(path: Path) -> Path | None:
    """The .pdopt file that belongs to a file of weights, by the names Paddle's users give."""
    names = [f"{path.stem}.pdopt"]
    names += [_WEIGHTS_WORD.sub(word, path.stem, count=1) + ".pdopt" for word in _OPTIMIZER_WORDS]
    if not re.search(r"\d", path.stem):
        names += [f"{word}.pdopt" for word in _OPTIMIZER_WORDS]
    for name in names:
        if name != path.name and (path.parent / name).is_file():
            return path.parent / name
    return None


def _states(root: Mapping[Any, Any]) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """The root or the dicts in it that bear a mark of Paddle's: key and dict."""
    for key, value in (("", root), *root.items()):
        if isinstance(value, Mapping) and (
            TABLE in value
            or any(type(k) is str and k.endswith(_STATISTICS) for k in value)
            or any(type(v) is tuple and _tensor(v)[1] is not None for v in value.values())
        ):
            yield str(key), value


def _is_optimizer(value: Mapping[Any, Any]) -> bool:
    slots = any(type(k) is str and (_SLOT.fullmatch(k) or _OTHERS.fullmatch(k)) for k in value)
    return slots or "LR_Scheduler" in value or "master_weights" in value


def _tensor(value: Any) -> tuple[str, TensorRef | None]:
    """A parameter's own name and its tensor: (name, array), or the array alone."""
    if type(value) is TensorRef:
        return "", value
    if type(value) is tuple and len(value) == 2 and type(value[1]) is TensorRef:
        return (value[0] if type(value[0]) is str else ""), value[1]
    return "", None


def _weights(
    tree: Mapping[Any, Any], masters: Mapping[Any, Any]
) -> tuple[dict[str, TensorRef], dict[str, str]]:
    """Tensors by torch's names, and torch's name by the parameter's own."""
    table = tree.get(TABLE)
    table = table if isinstance(table, Mapping) else {}
    found: dict[tuple[str, ...], TensorRef] = {}
    own: dict[tuple[str, ...], str] = {}
    # Arrays that were cut stand last; the table keeps the order of the model.
    for key in dict.fromkeys([*(k for k in table if k in tree), *tree]):
        given, ref = _tensor(tree[key])
        if type(key) is not str or ref is None:
            continue
        path = tuple(key.split("."))
        named = table.get(key, given)
        own[path] = named if type(named) is str else ""
        if ref.dtype == "uint16":
            ref = replace(ref, dtype="bfloat16")  # NumPy has none: Paddle keeps the bits
        master = _tensor(masters.get(own[path]))[1] if own[path] else None
        found[path] = master if master is not None and master.shape == ref.shape else ref
    names = torch_names(found)
    weights = {names[p]: _oriented(own[p], p, ref, found) for p, ref in found.items()}
    return weights, {own[p]: names[p] for p in found if own[p]}


def _oriented(
    own: str, path: tuple[str, ...], ref: TensorRef, tree: Mapping[tuple[str, ...], TensorRef]
) -> TensorRef:
    """A linear weight with its output axis first, told by the parameter's own name or its bias."""
    if len(ref.shape) != 2 or ref.strides is not None or ref.numel == 0:
        return ref
    bias = tree.get((*path[:-1], "bias"))
    fits = bias is not None and bias.shape == (ref.shape[1],) != (ref.shape[0],)
    if _LINEAR.fullmatch(own) is None and (own or path[-1] != "weight" or not fits):
        return ref
    rows, columns = ref.shape
    return TensorRef(ref.name, (columns, rows), ref.dtype, ref.extents, (1, columns))


def is_linear(own: str) -> bool:
    """Whether a parameter's own name is that of a linear layer's weight, stored (input, output)."""
    return _LINEAR.fullmatch(own) is not None


def _optimizer(
    state: Mapping[Any, Any], names: Mapping[str, str], tree: Mapping[Any, Any]
) -> dict[str, Any]:
    """Slots by weight and the scheduler; group settings are not in Paddle's files."""
    slots: dict[str, dict[str, Any]] = {}
    for key, value in state.items():
        match = _SLOT.fullmatch(key) if type(key) is str else None
        ref = _tensor(value)[1]
        if match is None or ref is None:
            continue
        own = _MASTER.sub("", match["name"])
        name = names.get(own)
        if name is not None:
            path = tuple(name.split("."))
            slots.setdefault(name, {})[_SLOTS[match["slot"]]] = _oriented(own, path, ref, {})
    scheduler = state.get("LR_Scheduler")
    scheduler = scheduler if isinstance(scheduler, Mapping) else {}
    group: dict[str, Any] = {"params": list(slots)}
    if "last_lr" in scheduler:
        group["lr"] = scheduler["last_lr"]
    result: dict[str, Any] = {"optimizer": {"state": slots, "param_groups": [group]}}
    return result | ({"lr_scheduler": dict(scheduler)} if scheduler else {})
