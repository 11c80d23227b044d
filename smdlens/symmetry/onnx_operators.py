"""ONNX operator -> operators of our table, with the shape of what they give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smdlens.symmetry.model_graph import Ref, Shape
from smdlens.symmetry.onnx_fold import bounds, reshaped_to
from smdlens.symmetry.onnx_reader import OnnxNode


@dataclass(frozen=True, slots=True)
class Translation:
    """One operator of our table. `name` is set for steps on the way to the node's own output."""

    op: str
    arguments: dict[str, object]
    shapes: tuple[Shape, ...]
    name: str = ""
    listed: bool = False


class Translator:
    """What a translation sees of one node."""

    def __init__(
        self, node: OnnxNode, shapes: Mapping[str, Shape], known: Mapping[str, NDArray[np.generic]]
    ) -> None:
        self.node = node
        self.shapes = shapes
        self.known = known

    def has(self, at: int) -> bool:
        """Whether an optional input is there."""
        return at < len(self.node.inputs) and bool(self.node.inputs[at])

    def ref(self, at: int) -> Ref:
        """An input."""
        return Ref(self.node.inputs[at])

    def shape(self, at: int) -> Shape:
        """Shape of an input."""
        return self.shapes[self.node.inputs[at]]

    def scalar_or_ref(self, at: int) -> object:
        """An input; its number where it is one known element."""
        value = self.known.get(self.node.inputs[at])
        if value is not None and value.size == 1:
            return float(value.reshape(-1)[0])
        return self.ref(at)

    def numbers(self, at: int, attribute: str) -> list[int] | None:
        """Whole numbers from an input or, in older files, an attribute; None where left out."""
        given = self.node.attributes.get(attribute)
        if isinstance(given, list):
            return [int(item) for item in given]
        if not self.has(at):
            return None
        return [int(item) for item in self.known[self.node.inputs[at]].reshape(-1).tolist()]

    def integer(self, attribute: str, default: int) -> int:
        """A whole number."""
        value = self.node.attributes.get(attribute, default)
        return int(value) if isinstance(value, int | float) else default

    def integers(self, attribute: str) -> list[int]:
        """Whole numbers."""
        value = self.node.attributes.get(attribute)
        return [int(item) for item in value] if isinstance(value, list) else []

    def broadcast(self) -> Shape:
        """Shape of an elementwise operator."""
        return np.broadcast_shapes(*(self.shape(at) for at in range(len(self.node.inputs))))


Found = list[Translation] | None
OPERATORS: dict[str, Callable[[Translator], Found]] = {}


def _onnx(*names: str) -> Callable[[Callable[[Translator], Found]], Callable[[Translator], Found]]:
    def enter(function: Callable[[Translator], Found]) -> Callable[[Translator], Found]:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return enter


_UNARY = {
    "Identity": "clone", "Cast": "to", "CastLike": "to", "Relu": "relu", "LeakyRelu": "leaky_relu",
    "Neg": "neg", "Abs": "abs", "Sqrt": "sqrt", "Reciprocal": "reciprocal", "Sign": "sign",
    "Dropout": "dropout", "Sigmoid": "sigmoid", "Tanh": "tanh", "Erf": "erf", "Exp": "exp",
    "Log": "log", "Gelu": "gelu", "HardSwish": "hardswish", "HardSigmoid": "hardsigmoid",
    "Softplus": "softplus", "Elu": "elu", "Selu": "selu", "Celu": "celu", "Mish": "mish",
    "Swish": "silu", "Floor": "floor", "Ceil": "ceil", "Round": "round", "Sin": "sin", "Cos": "cos",
    "ThresholdedRelu": "threshold", "Not": "logical_not", "IsNaN": "isnan",
}  # fmt: skip
_BINARY = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Equal": "eq", "Less": "lt",
    "Greater": "gt", "LessOrEqual": "le", "GreaterOrEqual": "ge",
}  # fmt: skip


@_onnx(*_UNARY)
def unary(t: Translator) -> Found:
    """One operand, its shape."""
    return [Translation(_UNARY[t.node.op], {"self": t.ref(0)}, (t.shape(0),))]


@_onnx(*_BINARY)
def binary(t: Translator) -> Found:
    """Two operands, broadcast."""
    arguments = {"self": t.scalar_or_ref(0), "other": t.scalar_or_ref(1)}
    return [Translation(_BINARY[t.node.op], arguments, (t.broadcast(),))]


@_onnx("Pow")
def power(t: Translator) -> Found:
    """A known exponent."""
    arguments = {"self": t.ref(0), "exponent": t.scalar_or_ref(1)}
    return [Translation("pow", arguments, (t.broadcast(),))]


@_onnx("Sum", "Max", "Min")
def several(t: Translator) -> Found:
    """One, two or more operands."""
    op = {"Sum": "add", "Max": "maximum", "Min": "minimum"}[t.node.op]
    count = len(t.node.inputs)
    if count == 1:
        return [Translation("clone", {"self": t.ref(0)}, (t.shape(0),))]
    steps: list[Translation] = []
    left, shape = t.ref(0), t.shape(0)
    for at in range(1, count):
        shape = np.broadcast_shapes(shape, t.shape(at))
        name = "" if at == count - 1 else f"{t.node.outputs[0]}!{at}"
        steps.append(Translation(op, {"self": left, "other": t.ref(at)}, (shape,), name))
        left = Ref(name)
    return steps


@_onnx("Where")
def where(t: Translator) -> Found:
    """Condition, one, other."""
    arguments = {"condition": t.ref(0), "self": t.scalar_or_ref(1), "other": t.scalar_or_ref(2)}
    return [Translation("where", arguments, (t.broadcast(),))]


@_onnx("PRelu")
def prelu(t: Translator) -> Found:
    """A slope per channel."""
    return [Translation("prelu", {"self": t.ref(0), "weight": t.ref(1)}, (t.shape(0),))]


@_onnx("Clip")
def clip(t: Translator) -> Found:
    """Bounds from inputs or attributes; one that is not known is a bound all the same."""
    arguments: dict[str, object] = {"self": t.ref(0)}
    for at, name in ((1, "min"), (2, "max")):
        given = t.node.attributes.get(name)
        if given is not None:
            arguments[name] = given
        elif t.has(at):
            arguments[name] = t.scalar_or_ref(at)
    return [Translation("clamp", arguments, (t.shape(0),))]


@_onnx("BatchNormalization")
def batch_norm(t: Translator) -> Found:
    """Whatever its mode: training is what matters."""
    arguments: dict[str, object] = {
        "input": t.ref(0), "weight": t.ref(1), "bias": t.ref(2), "running_mean": t.ref(3),
        "running_var": t.ref(4),
    }  # fmt: skip
    return [Translation("batch_norm", arguments, (t.shape(0),))]


@_onnx("InstanceNormalization")
def instance_norm(t: Translator) -> Found:
    """Per sample and channel."""
    arguments: dict[str, object] = {"input": t.ref(0), "weight": t.ref(1), "bias": t.ref(2)}
    return [Translation("instance_norm", arguments, (t.shape(0),))]


@_onnx("LayerNormalization", "RMSNormalization")
def layer_norm(t: Translator) -> Found:
    """From an axis to the last."""
    shape = t.shape(0)
    axis = t.integer("axis", -1) % len(shape)
    arguments: dict[str, object] = {
        "input": t.ref(0), "normalized_shape": list(shape[axis:]), "weight": t.ref(1),
    }  # fmt: skip
    if t.has(2):
        arguments["bias"] = t.ref(2)
    op = "layer_norm" if t.node.op == "LayerNormalization" else "rms_norm"
    return [Translation(op, arguments, (shape,))]


@_onnx("GroupNormalization")
def group_norm(t: Translator) -> Found:
    """Scale and bias per channel; per group in the first version of the operator."""
    if t.shape(1)[0] != t.shape(0)[1]:
        return None
    arguments: dict[str, object] = {
        "input": t.ref(0), "num_groups": t.integer("num_groups", 1), "weight": t.ref(1),
        "bias": t.ref(2),
    }  # fmt: skip
    return [Translation("group_norm", arguments, (t.shape(0),))]


@_onnx("Softmax", "LogSoftmax")
def softmax(t: Translator) -> Found:
    """Over one axis."""
    op = "softmax" if t.node.op == "Softmax" else "log_softmax"
    return [Translation(op, {"self": t.ref(0), "dim": t.integer("axis", -1)}, (t.shape(0),))]


@_onnx("MatMul")
def matmul(t: Translator) -> Found:
    """With broadcast leading axes."""
    a, b = t.shape(0), t.shape(1)
    rows, columns = a[-2:-1], b[-1:] if len(b) > 1 else ()
    shape = (*np.broadcast_shapes(a[:-2], b[:-2]), *rows, *columns)
    return [Translation("matmul", {"self": t.ref(0), "other": t.ref(1)}, (shape,))]


@_onnx("Gemm")
def gemm(t: Translator) -> Found:
    """A B + C, each matrix transposed where the file says so."""
    steps: list[Translation] = []
    operands: list[Ref] = []
    shapes: list[Shape] = []
    for at, flag in ((0, "transA"), (1, "transB")):
        ref, shape = t.ref(at), t.shape(at)
        if t.integer(flag, 0):
            name = f"{t.node.outputs[0]}!{flag}"
            shape = shape[::-1]
            steps.append(Translation("t", {"self": ref}, (shape,), name))
            ref = Ref(name)
        operands.append(ref)
        shapes.append(shape)
    result = (shapes[0][0], shapes[1][1])
    product: dict[str, object] = {"self": operands[0], "other": operands[1]}
    if not t.has(2):
        return [*steps, Translation("matmul", product, (result,))]
    name = f"{t.node.outputs[0]}!product"
    return [
        *steps,
        Translation("matmul", product, (result,), name),
        Translation("add", {"self": Ref(name), "other": t.ref(2)}, (result,)),
    ]


@_onnx("Conv", "ConvTranspose")
def convolution(t: Translator) -> Found:
    """Any number of spatial axes."""
    x, w = t.shape(0), t.shape(1)
    space = len(w) - 2
    transposed = t.node.op == "ConvTranspose"
    groups = t.integer("group", 1)
    strides = t.integers("strides") or [1] * space
    dilations = t.integers("dilations") or [1] * space
    pads = t.integers("pads") or [0] * (2 * space)
    if t.node.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return None
    extra = t.integers("output_padding") or [0] * space
    sizes: list[int] = []
    for at in range(space):
        reach, pad = dilations[at] * (w[2 + at] - 1), pads[at] + pads[at + space]
        if transposed:
            sizes.append((x[2 + at] - 1) * strides[at] - pad + reach + 1 + extra[at])
        else:
            sizes.append((x[2 + at] + pad - reach - 1) // strides[at] + 1)
    channels = w[1] * groups if transposed else w[0]
    arguments: dict[str, object] = {
        "input": t.ref(0), "weight": t.ref(1), "padding": pads, "groups": groups,
        "transposed": transposed,
    }  # fmt: skip
    if t.has(2):
        arguments["bias"] = t.ref(2)
    return [Translation("convolution", arguments, ((x[0], channels, *sizes),))]


@_onnx("MaxPool", "AveragePool")
def pool(t: Translator) -> Found:
    """Windows over space."""
    x = t.shape(0)
    kernel = t.integers("kernel_shape")
    space = len(kernel)
    strides = t.integers("strides") or [1] * space
    pads = t.integers("pads") or [0] * (2 * space)
    dilations = t.integers("dilations") or [1] * space
    up = t.integer("ceil_mode", 0)
    if t.node.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return None
    sizes = []
    for at in range(space):
        free = x[2 + at] + pads[at] + pads[at + space] - dilations[at] * (kernel[at] - 1) - 1
        sizes.append((-(-free // strides[at]) if up else free // strides[at]) + 1)
    name = "max_pool" if t.node.op == "MaxPool" else "avg_pool"
    arguments: dict[str, object] = {
        "self": t.ref(0), "padding": pads,
        "count_include_pad": bool(t.integer("count_include_pad", 0)),
    }  # fmt: skip
    return [Translation(f"{name}{space}d", arguments, ((*x[:2], *sizes),))]


@_onnx("GlobalAveragePool", "GlobalMaxPool")
def global_pool(t: Translator) -> Found:
    """All of space."""
    x = t.shape(0)
    op = "mean" if "Average" in t.node.op else "amax"
    arguments: dict[str, object] = {
        "self": t.ref(0), "dim": list(range(2, len(x))), "keepdim": True,
    }  # fmt: skip
    return [Translation(op, arguments, ((*x[:2], *(1 for _ in x[2:])),))]


_REDUCTIONS = {
    "ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "amax", "ReduceMin": "amin",
    "ReduceL2": "linalg_vector_norm", "ReduceL1": "norm", "ReduceSumSquare": "sum",
}  # fmt: skip


@_onnx(*_REDUCTIONS)
def reduction(t: Translator) -> Found:
    """Over some axes, or all."""
    x = t.shape(0)
    axes = t.numbers(1, "axes")
    keep = bool(t.integer("keepdims", 1))
    if not axes:
        if t.integer("noop_with_empty_axes", 0):
            return [Translation("clone", {"self": t.ref(0)}, (x,))]
        axes = list(range(len(x)))
    axes = [axis % len(x) for axis in axes]
    shape = tuple(1 if at in axes else n for at, n in enumerate(x) if keep or at not in axes)
    source, steps = t.ref(0), []
    if t.node.op == "ReduceSumSquare":
        name = f"{t.node.outputs[0]}!square"
        steps.append(Translation("square", {"self": source}, (x,), name))
        source = Ref(name)
    arguments: dict[str, object] = {"self": source, "dim": axes, "keepdim": keep}
    return [*steps, Translation(_REDUCTIONS[t.node.op], arguments, (shape,))]


@_onnx("ArgMax", "ArgMin")
def argmax(t: Translator) -> Found:
    """Place of an extremum."""
    x = t.shape(0)
    axis = t.integer("axis", 0) % len(x)
    keep = bool(t.integer("keepdims", 1))
    shape = tuple(1 if at == axis else n for at, n in enumerate(x) if keep or at != axis)
    return [Translation("argmax", {"self": t.ref(0), "dim": axis}, (shape,))]


@_onnx("Reshape")
def reshape(t: Translator) -> Found:
    """To a known shape."""
    wanted = t.numbers(1, "shape")
    assert wanted is not None
    shape = reshaped_to(t.shape(0), wanted, zero_copies=not t.integer("allowzero", 0))
    return [Translation("view", {"self": t.ref(0)}, (shape,))]


@_onnx("Flatten")
def flatten(t: Translator) -> Found:
    """To two axes."""
    x = t.shape(0)
    axis = t.integer("axis", 1)
    axis = axis + len(x) if axis < 0 else axis
    shape = (int(np.prod(x[:axis], dtype=np.int64)), int(np.prod(x[axis:], dtype=np.int64)))
    return [Translation("view", {"self": t.ref(0)}, (shape,))]


@_onnx("Squeeze", "Unsqueeze")
def squeeze(t: Translator) -> Found:
    """Axes of length 1 come or go."""
    x = t.shape(0)
    axes = t.numbers(1, "axes")
    if t.node.op == "Unsqueeze":
        assert axes is not None
        rank = len(x) + len(axes)
        places = {axis % rank for axis in axes}
        rest = iter(x)
        shape = tuple(1 if at in places else next(rest) for at in range(rank))
    else:
        dropped = {a % len(x) for a in axes} if axes else {a for a, n in enumerate(x) if n == 1}
        shape = tuple(n for at, n in enumerate(x) if at not in dropped)
    return [Translation("view", {"self": t.ref(0)}, (shape,))]


@_onnx("Transpose")
def transpose(t: Translator) -> Found:
    """Axes in another order."""
    x = t.shape(0)
    order = t.integers("perm") or list(range(len(x)))[::-1]
    arguments: dict[str, object] = {"self": t.ref(0), "dims": order}
    return [Translation("permute", arguments, (tuple(x[at] for at in order),))]


@_onnx("Concat")
def concat(t: Translator) -> Found:
    """One after the other."""
    shapes = [t.shape(at) for at in range(len(t.node.inputs))]
    axis = t.integer("axis", 0) % len(shapes[0])
    length = sum(shape[axis] for shape in shapes)
    shape = (*shapes[0][:axis], length, *shapes[0][axis + 1 :])
    refs = [Ref(name) for name in t.node.inputs]
    return [Translation("cat", {"tensors": refs, "dim": axis}, (shape,))]


@_onnx("Split")
def split(t: Translator) -> Found:
    """Consecutive ranges."""
    x = t.shape(0)
    axis = t.integer("axis", 0) % len(x)
    count = len(t.node.outputs)
    lengths = t.numbers(1, "split")
    if lengths is None:
        step = -(-x[axis] // count)
        lengths = [min(step, x[axis] - step * at) for at in range(count)]
    shapes = tuple((*x[:axis], length, *x[axis + 1 :]) for length in lengths)
    arguments: dict[str, object] = {"self": t.ref(0), "dim": axis}
    return [Translation("split", arguments, shapes, listed=True)]


@_onnx("Slice")
def slice_(t: Translator) -> Found:
    """Ranges along some axes, one step per axis."""
    starts, ends = t.numbers(1, "starts"), t.numbers(2, "ends")
    assert starts is not None and ends is not None
    axes = t.numbers(3, "axes") or list(range(len(starts)))
    strides = t.numbers(4, "steps") or [1] * len(starts)
    source, shape = t.ref(0), t.shape(0)
    steps: list[Translation] = []
    for at, (axis, start, end, step) in enumerate(zip(axes, starts, ends, strides, strict=True)):
        axis %= len(shape)
        low, high, _ = bounds(start, end, step, shape[axis]).indices(shape[axis])
        if step < 1:
            return None
        length = len(range(low, high, step))
        shape = (*shape[:axis], length, *shape[axis + 1 :])
        name = "" if at == len(starts) - 1 else f"{t.node.outputs[0]}!{at}"
        arguments: dict[str, object] = {
            "self": source, "dim": axis, "start": low, "end": high, "step": step,
        }  # fmt: skip
        steps.append(Translation("slice", arguments, (shape,), name))
        source = Ref(name)
    return steps


@_onnx("Expand")
def expand(t: Translator) -> Found:
    """Repeated to a larger shape."""
    wanted = t.numbers(1, "shape")
    assert wanted is not None
    shape = np.broadcast_shapes(t.shape(0), tuple(wanted))
    return [Translation("expand", {"self": t.ref(0)}, (shape,))]


@_onnx("Tile")
def tile(t: Translator) -> Found:
    """The whole, several times."""
    times = t.numbers(1, "repeats")
    assert times is not None
    shape = tuple(n * k for n, k in zip(t.shape(0), times, strict=True))
    return [Translation("repeat", {"self": t.ref(0)}, (shape,))]


@_onnx("Gather")
def gather(t: Translator) -> Found:
    """Rows of an embedding, one known position, or whatever the data picks."""
    x, picked = t.shape(0), t.shape(1)
    axis = t.integer("axis", 0) % len(x)
    shape = (*x[:axis], *picked, *x[axis + 1 :])
    known = t.known.get(t.node.inputs[1])
    if known is not None and picked == ():
        arguments: dict[str, object] = {
            "self": t.ref(0), "dim": axis, "index": int(known.reshape(-1)[0]),
        }  # fmt: skip
        return [Translation("select", arguments, (shape,))]
    if axis == 0 and len(x) == 2:
        return [Translation("embedding", {"weight": t.ref(0), "indices": t.ref(1)}, (shape,))]
    return [Translation("index", {"self": t.ref(0), "indices": [t.ref(1)]}, (shape,))]


@_onnx("Pad")
def pad(t: Translator) -> Found:
    """At both ends; zeros unless the file says otherwise."""
    x = t.shape(0)
    widths = t.numbers(1, "pads")
    assert widths is not None
    rank = len(x)
    axes = t.numbers(3, "axes") or list(range(rank))
    low, high = [0] * rank, [0] * rank
    for at, axis in enumerate(axes):
        low[axis], high[axis] = widths[at], widths[at + len(axes)]
    shape = tuple(n + a + b for n, a, b in zip(x, low, high, strict=True))
    mode = t.node.attributes.get("mode", "constant")
    value: object = t.scalar_or_ref(2) if t.has(2) else 0.0
    pairs = [width for at in reversed(range(rank)) for width in (low[at], high[at])]
    while len(pairs) > 2 and pairs[-2:] == [0, 0]:
        pairs = pairs[:-2]
    arguments: dict[str, object] = {"self": t.ref(0), "pad": pairs, "mode": mode, "value": value}
    return [Translation("pad", arguments, (shape,))]


@_onnx("Einsum")
def einsum(t: Translator) -> Found:
    """Two operands; the shape from the letters."""
    equation = str(t.node.attributes["equation"]).replace(" ", "")
    inputs, _, output = equation.partition("->")
    if "." in equation or not output:
        return None
    sizes: dict[str, int] = {}
    for at, part in enumerate(inputs.split(",")):
        sizes.update(zip(part, t.shape(at), strict=True))
    refs = [Ref(name) for name in t.node.inputs]
    arguments: dict[str, object] = {"equation": equation, "tensors": refs}
    return [Translation("einsum", arguments, (tuple(sizes[c] for c in output),))]
