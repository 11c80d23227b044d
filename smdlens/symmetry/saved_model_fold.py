"""What a TensorFlow program computes from shapes and small constants."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from smdlens.symmetry.keras_call import NotTranslated
from smdlens.symmetry.saved_model_call import FOLDS, MOST_KNOWN, TfCall
from smdlens.symmetry.tape import Known

_NUMPY: Mapping[str, Callable[..., Any]] = {
    "Add": np.add, "AddV2": np.add, "Sub": np.subtract, "Mul": np.multiply, "Neg": np.negative,
    "FloorDiv": np.floor_divide, "FloorMod": np.mod, "Maximum": np.maximum, "Minimum": np.minimum,
    "Equal": np.equal, "NotEqual": np.not_equal, "Less": np.less, "LessEqual": np.less_equal,
    "Greater": np.greater, "GreaterEqual": np.greater_equal, "LogicalAnd": np.logical_and,
    "LogicalOr": np.logical_or, "LogicalNot": np.logical_not, "Sqrt": np.sqrt, "Square": np.square,
    "RealDiv": np.divide, "Pow": np.power, "Exp": np.exp, "Log": np.log, "Abs": np.abs,
    "Reciprocal": np.reciprocal, "Floor": np.floor, "Ceil": np.ceil, "SelectV2": np.where,
    "OnesLike": np.ones_like, "ZerosLike": np.zeros_like,
}  # fmt: skip
_TYPES = {1: np.float32, 2: np.float64, 3: np.int32, 9: np.int64, 10: np.bool_, 19: np.float16}


def _elementwise(call: TfCall) -> Any:
    return _NUMPY[call.node.op](*_all(call))


def _all(call: TfCall) -> list[Known]:
    return [call.known(at) for at in range(len(call.inputs))]


def _over(call: TfCall, function: Callable[..., Any]) -> Any:
    return function(
        call.known(0), axis=tuple(call.integers(1)), keepdims=call.node.flag("keep_dims")
    )


def _filled(call: TfCall) -> Any:
    shape = call.integers(0)
    if math.prod(shape) > MOST_KNOWN:
        raise NotTranslated
    return np.full(shape, call.known(1).reshape(-1)[0])


def _range(call: TfCall) -> Any:
    start, end, step = (call.known(at).item() for at in range(3))
    if not step or abs((end - start) / step) > MOST_KNOWN:
        raise NotTranslated
    return np.arange(start, end, step, dtype=call.known(0).dtype)


def _cast(call: TfCall) -> Any:
    kind = _TYPES.get(call.node.integer("DstT", 0))
    if kind is None:
        raise NotTranslated
    return call.known(0).astype(kind)


FOLDS.update(dict.fromkeys(_NUMPY, _elementwise))
FOLDS.update({
    "Identity": lambda call: call.known(0),
    "StopGradient": lambda call: call.known(0),
    "Cast": _cast,
    "Fill": _filled,
    "Range": _range,
    "Prod": lambda call: _over(call, np.prod),
    "Sum": lambda call: _over(call, np.sum),
    "Max": lambda call: _over(call, np.max),
    "Min": lambda call: _over(call, np.min),
    "All": lambda call: _over(call, np.all),
    "Any": lambda call: _over(call, np.any),
    "Reshape": lambda call: call.known(0).reshape(call.integers(1)),
    "ExpandDims": lambda call: np.expand_dims(call.known(0), call.integers(1)[0]),
    "Squeeze": lambda call: np.squeeze(
        call.known(0), tuple(call.node.integers("squeeze_dims")) or None
    ),
    "Transpose": lambda call: call.known(0).transpose(call.integers(1)),
    "ConcatV2": lambda call: np.concatenate(_all(call)[:-1], int(_all(call)[-1].item())),
    "Pack": lambda call: np.stack(_all(call), call.node.integer("axis", 0)),
    "GatherV2": lambda call: np.take(call.known(0), call.known(1), call.integers(2)[0]),
    "StridedSlice": lambda call: call.known(0)[tuple(index_of(call))],
})  # fmt: skip


def index_of(call: TfCall) -> list[Any]:
    """A strided slice as Python writes it."""
    begin, end, stride = (call.integers(at) for at in (1, 2, 3))
    names = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
    masks = {name: call.node.integer(name, 0) for name in names}
    if not len(begin) == len(end) == len(stride):
        raise NotTranslated
    index: list[Any] = []
    for at, (low, high, step) in enumerate(zip(begin, end, stride, strict=True)):
        bit = 1 << at
        if masks["ellipsis_mask"] & bit:
            index.append(Ellipsis)
        elif masks["new_axis_mask"] & bit:
            index.append(None)
        elif masks["shrink_axis_mask"] & bit:
            index.append(low)
        else:
            first = None if masks["begin_mask"] & bit else low
            last = None if masks["end_mask"] & bit else high
            index.append(slice(first, last, step))
    return index
