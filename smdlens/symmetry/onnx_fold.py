"""Evaluates what an ONNX graph computes from shapes and small constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smdlens.symmetry.model_graph import Shape
from smdlens.symmetry.onnx_reader import OnnxNode, OnnxTensor

Array = NDArray[Any]
_LARGEST = 1 << 16  # elements of a folded constant
_DTYPES: dict[int, type[np.generic]] = {
    1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16, 11: np.float64,
}  # fmt: skip
_ELEMENTWISE: dict[str, Callable[..., Array]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Pow": np.power, "Equal": np.equal,
    "Less": np.less, "Greater": np.greater, "And": np.logical_and, "Or": np.logical_or,
    "Not": np.logical_not, "Max": np.maximum, "Min": np.minimum, "Neg": np.negative,
    "Sqrt": np.sqrt, "Where": np.where, "Floor": np.floor, "Ceil": np.ceil, "Abs": np.abs,
    "LessOrEqual": np.less_equal, "GreaterOrEqual": np.greater_equal, "Exp": np.exp,
    "Log": np.log, "Reciprocal": np.reciprocal, "Mod": np.mod,
}  # fmt: skip


def folded(node: OnnxNode, known: Mapping[str, Array], shapes: Mapping[str, Shape]) -> Array | None:
    """The value of a node's only output, None where it depends on weights or inputs."""
    if node.op == "Constant":
        return _constant(node)
    if node.op == "Shape" and node.inputs[0] in shapes:
        shape = np.asarray(shapes[node.inputs[0]], dtype=np.int64)
        end = node.attributes.get("end")
        return shape[_attribute(node, "start", 0) : end if isinstance(end, int) else None]
    if node.op == "Size" and node.inputs[0] in shapes:
        return np.asarray(np.prod(shapes[node.inputs[0]]), dtype=np.int64)
    if node.op == "CastLike":
        return known.get(node.inputs[0])
    if len(node.outputs) != 1 or not node.inputs:
        return None
    if any(name and name not in known for name in node.inputs):
        return None
    try:
        result = _evaluated(node, [known[name] for name in node.inputs if name])
    except (ValueError, TypeError, IndexError, ZeroDivisionError):
        return None
    return result if result is not None and result.size <= _LARGEST else None


def _attribute(node: OnnxNode, name: str, default: int) -> int:
    value = node.attributes.get(name, default)
    return value if isinstance(value, int) else default


def _constant(node: OnnxNode) -> Array | None:
    for name, value in node.attributes.items():
        if isinstance(value, OnnxTensor):
            if value.value is None and value.is_zero and np.prod(value.dims) <= _LARGEST:
                return np.zeros(value.dims, np.float32)
            return value.value
        if name in ("value_int", "value_ints"):
            return np.asarray(value, dtype=np.int64)
        if name in ("value_float", "value_floats"):
            return np.asarray(value, dtype=np.float32)
    return None


def _evaluated(node: OnnxNode, values: list[Array]) -> Array | None:
    first = values[0]
    if node.op in _ELEMENTWISE:
        with np.errstate(all="ignore"):
            return np.asarray(_ELEMENTWISE[node.op](*values))
    if node.op == "Div":
        with np.errstate(all="ignore"):
            whole = np.issubdtype(first.dtype, np.integer)
            quotient = np.floor_divide if whole else np.divide
            return np.asarray(quotient(first, values[1]))
    if node.op in ("Identity", "Dropout"):
        return first
    if node.op == "Cast":
        kind = _DTYPES.get(_attribute(node, "to", 0))
        return None if kind is None else first.astype(kind)
    if node.op == "Gather":
        return np.asarray(np.take(first, values[1].astype(np.int64), _attribute(node, "axis", 0)))
    if node.op == "Concat":
        return np.concatenate(values, axis=_attribute(node, "axis", 0))
    if node.op == "Reshape":
        return first.reshape(reshaped_to(first.shape, values[1].tolist()))
    if node.op in ("Unsqueeze", "Squeeze"):
        axes = _axes(node, values)
        if node.op == "Unsqueeze":
            return np.expand_dims(first, tuple(axes or [0]))
        return np.squeeze(first, tuple(axes) if axes else None)
    if node.op == "Expand":
        return np.broadcast_to(first, np.broadcast_shapes(first.shape, tuple(values[1].tolist())))
    if node.op == "ConstantOfShape":
        fill = node.attributes.get("value")
        number = fill.value if isinstance(fill, OnnxTensor) and fill.value is not None else None
        shape = tuple(first.tolist())
        if np.prod(shape, dtype=np.int64) > _LARGEST:
            return None
        if number is None:
            return np.zeros(shape, np.float32)
        return np.full(shape, number.reshape(-1)[0])
    if node.op == "Range":
        return np.arange(first.item(), values[1].item(), values[2].item())
    if node.op == "Transpose":
        order = node.attributes.get("perm")
        return first.transpose(order if isinstance(order, list) else None)
    if node.op == "Slice":
        return _sliced(values)
    if node.op in ("ReduceProd", "ReduceSum"):
        keep = bool(_attribute(node, "keepdims", 1))
        over = tuple(_axes(node, values)) or None
        if node.op == "ReduceProd":
            return np.asarray(np.prod(first, axis=over, keepdims=keep))
        return np.asarray(np.sum(first, axis=over, keepdims=keep))
    return None


def _axes(node: OnnxNode, values: list[Array]) -> list[int]:
    given = node.attributes.get("axes")
    if isinstance(given, list):
        return given
    return [int(axis) for axis in values[1].reshape(-1).tolist()] if len(values) > 1 else []


def _sliced(values: list[Array]) -> Array:
    data, starts, ends = values[0], values[1].tolist(), values[2].tolist()
    axes = values[3].tolist() if len(values) > 3 else range(len(starts))
    steps = values[4].tolist() if len(values) > 4 else [1] * len(starts)
    index: list[slice] = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        index[axis] = bounds(start, end, step, data.shape[axis])
    return data[tuple(index)]


def bounds(start: int, end: int, step: int, length: int) -> slice:
    """ONNX's slice of an axis: ends may lie far outside, also in front of a backward step."""
    if step < 0 and end < -length:
        return slice(start, None, step)
    return slice(start, end, step)


def reshaped_to(shape: Shape, wanted: list[int], *, zero_copies: bool = True) -> Shape:
    """The shape that Reshape gives: 0 copies an axis, -1 takes what is left."""
    sizes = [
        shape[at] if size == 0 and zero_copies and at < len(shape) else int(size)
        for at, size in enumerate(wanted)
    ]
    if -1 in sizes:
        rest = int(np.prod([size for size in sizes if size != -1], dtype=np.int64))
        sizes[sizes.index(-1)] = int(np.prod(shape, dtype=np.int64)) // max(rest, 1)
    return tuple(sizes)
