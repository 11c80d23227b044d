"""One operator of an MXNet symbol as nodes of the graph; what is not here sees every scale.

Attributes are text: numbers and tuples are read by pattern, never evaluated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from smdlens.symmetry.keras_call import Builder, NotTranslated
from smdlens.symmetry.model_graph import Ref, Shape

_NUMBERS = re.compile(r"-?\d{1,12}")
_CALCULATION = re.compile(r"(?:_|elemwise_|broadcast_)?(?P<word>plus|add|minus|sub|mul|div)")
_SCALAR = re.compile(r"_(?P<word>plus|minus|mul|div)_scalar")
_WORDS = {"plus": "add", "add": "add", "minus": "sub", "sub": "sub", "mul": "mul", "div": "div"}
_ACTIVATIONS = {"relu": "relu", "sigmoid": "sigmoid", "tanh": "tanh"}
KEEP_SHAPE = frozenset({
    "Activation", "BatchNorm", "BlockGrad", "Cast", "GroupNorm", "InstanceNorm", "L2Normalization",
    "LRN", "LayerNorm", "LeakyReLU", "_copy", "abs", "cast", "clip", "erf", "exp", "hard_sigmoid",
    "log", "log_softmax", "negative", "reciprocal", "relu", "rsqrt", "sigmoid", "softsign", "sqrt",
    "square", "tanh",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class SymbolCall:
    """One node of a symbol: where its result goes, settings, and names of what it is given."""

    builder: Builder
    name: str
    op: str
    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]

    @property
    def shape(self) -> Shape:
        """Shape of the first input."""
        if not self.inputs:
            raise NotTranslated
        return self.builder.shapes[self.inputs[0]]

    def text(self, key: str, default: str = "") -> str:
        """A setting as it stands."""
        return str(self.attributes.get(key, default))

    def flag(self, key: str, default: bool = False) -> bool:
        """A setting that is yes or no."""
        return self.text(key, str(default)) in ("True", "1", "true")

    def numbers(self, key: str, default: list[int]) -> list[int]:
        """A tuple of integers, or one."""
        said = self.text(key)
        return list(map(int, _NUMBERS.findall(said))) if said not in ("", "None", "()") else default

    def number(self, key: str, default: float) -> float:
        """A number."""
        try:
            return float(self.text(key, str(default)))
        except ValueError as error:
            raise NotTranslated from error

    def ref(self, place: int) -> Ref | None:
        """An input by its place; None where there are fewer."""
        return Ref(self.inputs[place]) if place < len(self.inputs) else None

    def node(self, op: str, arguments: Mapping[str, Any], shape: Shape) -> str:
        """Add an operator."""
        return self.builder.node(self.name, op, arguments, shape)

    def alone(self, op: str, **more: Any) -> str:
        """An operator on the first input that keeps its shape."""
        return self.node(op, {"self": self.ref(0), **more}, self.shape)


def translated(call: SymbolCall) -> str:
    """Name of the result of a node; NotTranslated where it has no translation."""
    if (match := _SCALAR.fullmatch(call.op)) is not None:
        return call.alone(_WORDS[match["word"]], other=call.number("scalar", 0.0))
    if (match := _CALCULATION.fullmatch(call.op.lower())) is not None:
        return _calculation(call, _WORDS[match["word"]])
    translate = _OPERATORS.get(call.op)
    if translate is None:
        raise NotTranslated
    return translate(call)


def _calculation(call: SymbolCall, op: str) -> str:
    first, second = (call.builder.shapes[name] for name in call.inputs[:2])
    rank = max(len(first), len(second))
    wide = [(1,) * (rank - len(s)) + s for s in (first, second)]
    if any(a != b and 1 not in (a, b) for a, b in zip(*wide, strict=True)):
        raise NotTranslated
    shape = tuple(max(a, b) for a, b in zip(*wide, strict=True))
    return call.node(op, {"self": call.ref(0), "other": call.ref(1)}, shape)


def _windows(call: SymbolCall, kernel: list[int]) -> tuple[list[int], list[int]]:
    """Sizes after a sliding window, and its padding."""
    shape, space = call.shape, len(kernel)
    if len(shape) != space + 2 or call.text("layout", "NCHW")[:2] not in ("NC", "No"):
        raise NotTranslated
    stride = call.numbers("stride", [1] * space)
    pad, dilate = call.numbers("pad", [0] * space), call.numbers("dilate", [1] * space)
    found = []
    for n, k, s, p, d in zip(shape[2:], kernel, stride, pad, dilate, strict=True):
        room = n + 2 * p - d * (k - 1) - 1
        if room < 0 or s < 1:
            raise NotTranslated
        full = call.text("pooling_convention") == "full"
        found.append((-(-room // s) if full else room // s) + 1)
    return found, pad


def _convolution(call: SymbolCall) -> str:
    weight = call.builder.shapes[call.inputs[1]]
    groups = int(call.number("num_group", 1))
    if weight[1] * groups != call.shape[1]:
        raise NotTranslated
    sizes, pad = _windows(call, list(weight[2:]))
    arguments = {
        "input": call.ref(0), "weight": call.ref(1), "bias": call.ref(2), "padding": pad,
        "groups": groups,
    }  # fmt: skip
    return call.node("convolution", arguments, (call.shape[0], weight[0], *sizes))


def _dense(call: SymbolCall) -> str:
    weight = call.builder.shapes[call.inputs[1]]
    x, shape = call.inputs[0], call.shape
    if call.flag("flatten", True) and len(shape) > 2:
        shape = (shape[0], math.prod(shape[1:]))
        x = call.node("reshape", {"self": Ref(x)}, shape)
    if shape[-1] != weight[1]:
        raise NotTranslated
    arguments = {"input": Ref(x), "weight": call.ref(1), "bias": call.ref(2)}
    return call.node("linear", arguments, (*shape[:-1], weight[0]))


def _batch_norm(call: SymbolCall) -> str:
    if call.flag("use_global_stats") or call.numbers("axis", [1]) != [1]:
        raise NotTranslated
    arguments = {
        # A fixed scale is one, whatever the file holds.
        "input": call.ref(0), "weight": None if call.flag("fix_gamma", True) else call.ref(1),
        "bias": call.ref(2), "running_mean": call.ref(3), "running_var": call.ref(4),
    }  # fmt: skip
    return call.node("batch_norm", arguments, call.shape)


def _layer_norm(call: SymbolCall) -> str:
    if call.numbers("axis", [-1])[0] % len(call.shape) != len(call.shape) - 1:
        raise NotTranslated
    arguments = {
        "input": call.ref(0), "normalized_shape": [call.shape[-1]], "weight": call.ref(1),
        "bias": call.ref(2),
    }  # fmt: skip
    return call.node("layer_norm", arguments, call.shape)


def _activation(call: SymbolCall) -> str:
    kind = call.text("act_type") if call.op == "Activation" else call.op
    if kind not in _ACTIVATIONS:
        raise NotTranslated
    return call.alone(_ACTIVATIONS[kind])


def _leaky(call: SymbolCall) -> str:
    kind = call.text("act_type", "leaky")
    if kind == "prelu":
        return call.alone("prelu", weight=call.ref(1))
    if kind != "leaky":
        raise NotTranslated
    return call.alone("leaky_relu")


def _pool(call: SymbolCall) -> str:
    kind, space = call.text("pool_type", "max"), len(call.shape) - 2
    if kind not in ("max", "avg") or space < 1:
        raise NotTranslated
    if call.flag("global_pool"):
        shape = (*call.shape[:2], *(1 for _ in range(space)))
        op = "mean" if kind == "avg" else "amax"
        dims = list(range(2, space + 2))
        return call.node(op, {"self": call.ref(0), "dim": dims, "keepdim": True}, shape)
    sizes, pad = _windows(call, call.numbers("kernel", []))
    full = call.text("pooling_convention") == "full"
    arguments = {
        "self": call.ref(0), "padding": [1] * space if full else pad,
        "count_include_pad": call.flag("count_include_pad", True),
    }  # fmt: skip
    return call.node(f"{kind}_pool{space}d", arguments, (*call.shape[:2], *sizes))


def _reduction(call: SymbolCall) -> str:
    rank = len(call.shape)
    axes = sorted({a % rank for a in call.numbers("axis", list(range(rank)))})
    if call.flag("exclude"):
        axes = [a for a in range(rank) if a not in axes]
    keep = call.flag("keepdims")
    shape = tuple(1 if a in axes else n for a, n in enumerate(call.shape) if keep or a not in axes)
    op = {"mean": "mean", "sum": "sum", "max": "amax"}[call.op]
    return call.node(op, {"self": call.ref(0), "dim": axes, "keepdim": keep}, shape)


def _flatten(call: SymbolCall) -> str:
    shape = (call.shape[0], math.prod(call.shape[1:]))
    return call.node("reshape", {"self": call.ref(0)}, shape)


def _reshape(call: SymbolCall) -> str:
    said, own = call.numbers("shape", []), call.shape
    if call.flag("reverse") or any(n < -1 for n in said) or said.count(-1) > 1:
        raise NotTranslated
    sizes = [own[at] if n == 0 and at < len(own) else n for at, n in enumerate(said)]
    known = math.prod(n for n in sizes if n != -1)
    shape = tuple(math.prod(own) // max(known, 1) if n == -1 else n for n in sizes)
    if math.prod(shape) != math.prod(own):
        raise NotTranslated
    return call.node("reshape", {"self": call.ref(0)}, shape)


def _transpose(call: SymbolCall) -> str:
    order = call.numbers("axes", list(reversed(range(len(call.shape)))))
    if sorted(order) != list(range(len(call.shape))):
        raise NotTranslated
    shape = tuple(call.shape[axis] for axis in order)
    return call.node("permute", {"self": call.ref(0), "dims": order}, shape)


def _concat(call: SymbolCall) -> str:
    axis = int(call.number("dim", 1)) % len(call.shape)
    shapes = [call.builder.shapes[name] for name in call.inputs]
    if any((*s[:axis], *s[axis + 1 :]) != (*shapes[0][:axis], *shapes[0][axis + 1 :])
           for s in shapes):  # fmt: skip
        raise NotTranslated
    total = sum(s[axis] for s in shapes)
    shape = (*shapes[0][:axis], total, *shapes[0][axis + 1 :])
    return call.node("cat", {"tensors": [Ref(n) for n in call.inputs], "dim": axis}, shape)


def _sum_of_all(call: SymbolCall) -> str:
    result = call.inputs[0]
    for other in call.inputs[1:]:
        if call.builder.shapes[other] != call.shape:
            raise NotTranslated
        result = call.node("add", {"self": Ref(result), "other": Ref(other)}, call.shape)
    return result


def _clip(call: SymbolCall) -> str:
    low, high = call.number("a_min", 0.0), call.number("a_max", 0.0)
    return call.alone("clamp", min=low, max=high)


def _softmax(call: SymbolCall) -> str:
    axis = 1 if call.op == "SoftmaxOutput" else int(call.number("axis", -1))
    return call.alone("softmax", dim=axis)


def _embedding(call: SymbolCall) -> str:
    shape = (*call.shape, call.builder.shapes[call.inputs[1]][1])
    return call.node("embedding", {"weight": call.ref(1), "indices": call.ref(0)}, shape)


def _unchanged(call: SymbolCall) -> str:
    if not call.inputs:
        raise NotTranslated
    return call.inputs[0]


_OPERATORS: Mapping[str, Callable[[SymbolCall], str]] = {
    "Convolution": _convolution, "FullyConnected": _dense, "BatchNorm": _batch_norm,
    "LayerNorm": _layer_norm, "Activation": _activation, "relu": _activation,
    "sigmoid": _activation, "tanh": _activation, "LeakyReLU": _leaky, "Pooling": _pool,
    "mean": _reduction, "sum": _reduction, "max": _reduction, "Flatten": _flatten,
    "flatten": _flatten, "Reshape": _reshape, "reshape": _reshape, "transpose": _transpose,
    "Concat": _concat, "concat": _concat, "add_n": _sum_of_all, "ElementWiseSum": _sum_of_all,
    "clip": _clip, "softmax": _softmax, "SoftmaxOutput": _softmax,
    "log_softmax": _softmax, "Embedding": _embedding,
    "Dropout": _unchanged, "identity": _unchanged, "_copy": _unchanged, "Cast": _unchanged,
    "LinearRegressionOutput": _unchanged, "MAERegressionOutput": _unchanged,
}  # fmt: skip
