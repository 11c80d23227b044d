"""What MLX saves, in our terms: OHWI kernels shown as OIHW, the optimizer's state by weight.

MLX writes plain safetensors, .npz and GGUF files of flattened trees. Its SGD keeps v = m v + g as
torch does; Adam's moments are `m` and `v`. `step` and `learning_rate` lie beside them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smdlens.containers.files import open_regular
from smdlens.snapshots.records import DTYPE_BYTES, TensorRef

NOTE = "MLX: kernels stored output, spatial, input are shown as output, input, spatial"
_WEIGHT = re.compile(r"(?:(?P<parent>.*)\.)?weight(?:\.[mv])?")
_SLOT = re.compile(r"(?P<name>.+)\.(?P<slot>[mv])")
_STATES = re.compile(r"(?:states\.\d{1,4}\.)?")
_WEIGHTS_WORD = re.compile(r"(?:model|weights?|checkpoint|ckpt|net|params)(?![a-z])")
_SAMPLE = 1024
_OPTIMIZER_WORDS = ("optimizer", "optim", "opt", "optimizer_state")


def written_by_mlx(header: Mapping[str, Any]) -> bool:
    """Whether a safetensors header is MLX's: it writes metadata of null, or names its format."""
    if "__metadata__" not in header:
        return False
    metadata = header["__metadata__"]
    return metadata is None or (isinstance(metadata, dict) and metadata.get("format") == "mlx")


def input_second(name: str, ref: TensorRef) -> TensorRef:
    """A kernel of a convolution (or its slot) with axes output, input, spatial."""
    n = len(ref.shape)
    match = _WEIGHT.fullmatch(name)
    # Three axes are a 1-d convolution or the linear layers of several experts.
    kernel = match is not None and (n in (4, 5) or (n == 3 and "conv" in (match["parent"] or "")))
    if not kernel or ref.strides is not None or ref.numel == 0:
        return ref
    order = (0, n - 1, *range(1, n - 1))
    dense = [math.prod(ref.shape[axis + 1 :]) for axis in range(n)]
    shape = tuple(ref.shape[axis] for axis in order)
    return TensorRef(ref.name, shape, ref.dtype, ref.extents, tuple(dense[a] for a in order))


def from_mlx(tensors: Mapping[str, TensorRef]) -> dict[str, Any]:
    """A flattened tree: weights under the key "", and the optimizer where it is in the file."""
    prefix = _optimizer_prefix(tensors)
    inside = {k for k in tensors if prefix is not None and k.startswith(prefix)}
    if prefix == "":
        # Weights and state flattened into one level: slots are told by their suffix.
        inside = {k for k in tensors if _is_counter(k, tensors[k]) or _is_slot(k, tensors)}
    if is_optimizer_state(tensors):
        inside = set(tensors)
    # MLX keeps no order of the model: sorted names are seen for what they are.
    weights = {k: input_second(k, tensors[k]) for k in sorted(tensors) if k not in inside}
    root: dict[str, Any] = {"": weights, "conversion": NOTE}
    if prefix is not None:
        root |= with_state({k.removeprefix(prefix): tensors[k] for k in tensors if k in inside})
    return root


def with_state(state: Mapping[str, TensorRef]) -> dict[str, Any]:
    """The entries that a flattened optimizer state adds to a checkpoint's content."""
    counter = next((v for k, v in state.items() if k == "step" or k.endswith(".step")), None)
    return {"optimizer": optimizer_state(state), "step": counter}


def optimizer_state(state: Mapping[str, TensorRef]) -> dict[str, Any]:
    """Torch's form of an optimizer's flattened state; groups are those of a MultiOptimizer."""
    slots: dict[str, dict[str, Any]] = {}
    groups: dict[str, dict[str, Any]] = {}
    for key, ref in state.items():
        match = _STATES.match(key)
        place = match.group() if match is not None else ""
        group = groups.setdefault(place, {"params": []})
        rest = key.removeprefix(place)
        found = _SLOT.fullmatch(rest)
        if rest == "learning_rate":
            group["lr"] = ref
        elif rest == "step":
            group["step"] = ref
        elif found is not None:
            held = slots.setdefault(found["name"], {})
            if not held:
                group["params"].append(found["name"])
            held[found["slot"]] = input_second(rest, ref)
    named: dict[str, dict[str, Any]] = {}
    # RMSprop and Adagrad keep their mean of squares under the same name as SGD its momentum.
    signed = any("m" not in held and _has_negative(held["v"]) for held in slots.values())
    for group in groups.values():
        step = group.pop("step", None)
        for name in group["params"]:
            held = slots[name]
            if "m" in held:
                named[name] = {"exp_avg": held["m"], "step": step}
                named[name] |= {"exp_avg_sq": held["v"]} if "v" in held else {}
            elif signed:
                named[name] = {"momentum_buffer": held["v"]}
    kept = [g for g in groups.values() if g["params"]]
    return {"state": named, "param_groups": kept or list(groups.values())}


def optimizer_beside(path: Path) -> Path | None:
    """The file of the optimizer that belongs to one of weights, by the names MLX's users give."""
    names = [_WEIGHTS_WORD.sub(word, path.name, count=1) for word in _OPTIMIZER_WORDS]
    if not re.search(r"\d", path.stem):
        names += [word + path.suffix for word in _OPTIMIZER_WORDS]
    for name in names:
        if name != path.name and (path.parent / name).is_file():
            return path.parent / name
    return None


def is_optimizer_state(tensors: Mapping[str, TensorRef]) -> bool:
    """Whether tensors are the flattened state of an optimizer and nothing else."""
    return _optimizer_prefix(tensors) == "" and all(
        _is_counter(k, v) or _SLOT.fullmatch(k) for k, v in tensors.items()
    )


def _optimizer_prefix(tensors: Mapping[str, TensorRef]) -> str | None:
    for name, value in tensors.items():
        if name.endswith("learning_rate") and _is_counter(name, value):
            prefix = re.sub(r"states\.\d{1,4}\.$", "", name.removesuffix("learning_rate"))
            if prefix + "step" in tensors or prefix + "states.0.step" in tensors:
                return prefix
    return None


def _is_counter(name: str, value: TensorRef) -> bool:
    return name.endswith(("learning_rate", "step")) and value.shape in ((), (1,))


def _is_slot(name: str, tensors: Mapping[str, TensorRef]) -> bool:
    match = _SLOT.fullmatch(name)
    return match is not None and match["name"] in tensors


def _has_negative(ref: TensorRef) -> bool:
    """Whether one of the first elements is negative: momentum is, a mean of squares never."""
    if not ref.extents or not ref.dtype.startswith(("float", "bfloat")):
        return False
    width = DTYPE_BYTES[ref.dtype]
    place = ref.extents[0]
    with open_regular(place.path) as file:
        data = file.read(place.offset, min(place.nbytes, _SAMPLE * width))
    return any(byte & 0x80 for byte in data[width - 1 :: width])
