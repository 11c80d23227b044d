"""ONNX elementwise operators and reductions, with the shape of what they give."""

from __future__ import annotations

import numpy as np

from smdlens.symmetry.model_graph import Ref
from smdlens.symmetry.onnx_translation import Found, Translation, Translator, onnx

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


@onnx(*_UNARY)
def unary(t: Translator) -> Found:
    """One operand, its shape."""
    return [Translation(_UNARY[t.node.op], {"self": t.ref(0)}, (t.shape(0),))]


@onnx(*_BINARY)
def binary(t: Translator) -> Found:
    """Two operands, broadcast."""
    arguments = {"self": t.scalar_or_ref(0), "other": t.scalar_or_ref(1)}
    return [Translation(_BINARY[t.node.op], arguments, (t.broadcast(),))]


@onnx("Pow")
def power(t: Translator) -> Found:
    """A known exponent."""
    arguments = {"self": t.ref(0), "exponent": t.scalar_or_ref(1)}
    return [Translation("pow", arguments, (t.broadcast(),))]


@onnx("Sum", "Max", "Min")
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


@onnx("Where")
def where(t: Translator) -> Found:
    """Condition, one, other."""
    arguments = {"condition": t.ref(0), "self": t.scalar_or_ref(1), "other": t.scalar_or_ref(2)}
    return [Translation("where", arguments, (t.broadcast(),))]


@onnx("PRelu")
def prelu(t: Translator) -> Found:
    """A slope per channel."""
    return [Translation("prelu", {"self": t.ref(0), "weight": t.ref(1)}, (t.shape(0),))]


@onnx("Clip")
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


_REDUCTIONS = {
    "ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "amax", "ReduceMin": "amin",
    "ReduceL2": "linalg_vector_norm", "ReduceL1": "norm", "ReduceSumSquare": "sum",
}  # fmt: skip


@onnx(*_REDUCTIONS)
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


@onnx("ArgMax", "ArgMin")
def argmax(t: Translator) -> Found:
    """Place of an extremum."""
    x = t.shape(0)
    axis = t.integer("axis", 0) % len(x)
    keep = bool(t.integer("keepdims", 1))
    shape = tuple(1 if at == axis else n for at, n in enumerate(x) if keep or at != axis)
    return [Translation("argmax", {"self": t.ref(0), "dim": axis}, (shape,))]
