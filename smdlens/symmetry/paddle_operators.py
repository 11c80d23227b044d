"""PaddlePaddle's operators in our terms."""

from __future__ import annotations

import math

import numpy as np

from smdlens.symmetry import tape_layers as layers
from smdlens.symmetry.keras_call import NotTranslated
from smdlens.symmetry.model_graph import Ref
from smdlens.symmetry.paddle_call import PirCall, Result, operator
from smdlens.symmetry.tape import Operand, broadcast, place

_PLAIN = {
    "relu": "relu", "leaky_relu": "leaky_relu", "abs": "abs", "sqrt": "sqrt", "rsqrt": "rsqrt",
    "square": "square", "reciprocal": "reciprocal", "sign": "sign", "relu6": "relu6",
    "sigmoid": "sigmoid", "tanh": "tanh", "gelu": "gelu", "silu": "silu", "swish": "silu",
    "hardswish": "hardswish", "hardsigmoid": "hardsigmoid", "elu": "elu", "celu": "celu",
    "selu": "selu", "softplus": "softplus", "mish": "mish", "exp": "exp", "log": "log",
    "erf": "erf", "sin": "sin", "cos": "cos", "floor": "floor", "ceil": "ceil", "round": "round",
}  # fmt: skip
_BINARY = {
    "add": "add", "subtract": "sub", "multiply": "mul", "divide": "div", "maximum": "maximum",
    "minimum": "minimum", "equal": "eq", "not_equal": "ne", "less_than": "lt", "less_equal": "le",
    "greater_than": "gt", "greater_equal": "ge",
}  # fmt: skip
_REDUCE = {"mean": "mean", "sum": "sum", "max": "amax", "min": "amin"}


def _padding(
    call: PirCall, sizes: tuple[int, ...], kernel: list[int], stride: list[int], dilation: list[int]
) -> list[tuple[int, int]]:
    kind = call.attributes.get("padding_algorithm", "EXPLICIT")
    if kind == "VALID":
        return [(0, 0)] * len(kernel)
    if kind == "SAME":
        return layers.same_padding(sizes, kernel, stride, dilation)
    given = call.listing("paddings", [0] * len(kernel))
    if len(given) == len(kernel):
        return [(n, n) for n in given]
    if len(given) == 2 * len(kernel):
        return list(zip(given[::2], given[1::2], strict=True))
    raise NotTranslated


@operator("conv2d", "conv3d", "depthwise_conv2d")
def convolution(call: PirCall) -> Result:
    """Kernels are (out, in / groups, space...)."""
    x, kernel = layers.image_in(call), call.shape(1)
    own, space = call.tape.shape(x), len(kernel) - 2
    stride, dilation = (call.listing(name, [1] * space) for name in ("strides", "dilations"))
    padding = _padding(call, own[2:], list(kernel[2:]), stride, dilation)
    groups = call.integer("groups", 1)
    made = layers.convolution(call.tape, x, call[1], None, stride, padding, dilation, groups)
    return layers.image_out(call, made)


@operator("conv2d_transpose", "depthwise_conv2d_transpose")
def transposed(call: PirCall) -> Result:
    """Kernels are (in, out / groups, space...)."""
    x, kernel = layers.image_in(call), call.shape(1)
    own, space = call.tape.shape(x), len(kernel) - 2
    stride, dilation = (call.listing(name, [1] * space) for name in ("strides", "dilations"))
    padding = _padding(call, own[2:], list(kernel[2:]), stride, dilation)
    extra = call.listing("output_padding") or [0] * space
    sizes = [
        (n - 1) * s - low - high + d * (k - 1) + 1 + e
        for n, k, s, d, (low, high), e in zip(
            own[2:], kernel[2:], stride, dilation, padding, extra, strict=True
        )
    ]
    groups = call.integer("groups", 1)
    made = layers.transposed_convolution(call.tape, x, call[1], None, sizes, groups)
    return layers.image_out(call, made)


@operator("batch_norm", "sync_batch_norm")
def batch_norm(call: PirCall) -> Result:
    """(x, mean, variance, scale, shift): by the batch, or by statistics that the trainer moves."""
    gain, shift, constants = call.optional(3), call.optional(4), call.tape.constants
    frozen = any(isinstance(value, str) and value in call.untrained for value in (gain, shift))
    moved = all(
        isinstance(value, str) and value in constants and constants[value].name
        for value in (call[1], call[2])
    )
    if call.flag("is_test") and (frozen or not moved):
        raise NotTranslated  # constants, which keep no scale
    x = layers.image_in(call)
    made = layers.normalised(call.tape, "batch_norm", x, gain, shift, call[1], call[2])
    return layers.image_out(call, made)


@operator("layer_norm")
def layer_norm(call: PirCall) -> Result:
    """From an axis to the last; gain and shift are flat."""
    own = call.shape(0)
    sizes = own[place(call.integer("begin_norm_axis", 1), len(own)) :]
    vectors = [call.optional(1), call.optional(2)]
    gain, shift = (None if v is None else call.tape.view(v, sizes) for v in vectors)
    return layers.normalised(
        call.tape, "layer_norm", call[0], gain, shift, normalized_shape=list(sizes)
    )


@operator("group_norm")
def group_norm(call: PirCall) -> Result:
    """Gain and shift per channel."""
    groups = call.integer("groups", 1)
    x = layers.image_in(call)
    made = layers.normalised(
        call.tape, "group_norm", x, call.optional(1), call.optional(2), num_groups=groups
    )
    return layers.image_out(call, made)


@operator("instance_norm")
def instance_norm(call: PirCall) -> Result:
    """Per sample and channel."""
    return layers.normalised(
        call.tape, "instance_norm", call[0], call.optional(1), call.optional(2)
    )


@operator("pool2d", "pool3d")
def pool(call: PirCall) -> Result:
    """Windows, or as many as the result has places."""
    x = layers.image_in(call)
    own = call.tape.shape(x)
    space = len(own) - 2
    kind = str(call.attributes.get("pooling_type", "max"))
    if kind not in ("avg", "max"):
        raise NotTranslated
    if call.flag("global_pooling"):
        kernel = list(own[2:])
        adaptive = [1] * space
    else:
        kernel = call.integers(1, "kernel_size")
        kernel = kernel * space if len(kernel) == 1 else kernel
        adaptive = kernel if call.flag("adaptive") else []
    if adaptive and set(adaptive) == {1}:
        op = "mean" if kind == "avg" else "amax"
        return layers.image_out(call, call.tape.reduce(op, x, range(2, space + 2), keep=True))
    if adaptive:
        op = f"adaptive_{kind}_pool{space}d"
        return layers.image_out(call, call.tape.node(op, {"self": Ref(x)}, (*own[:2], *adaptive)))
    stride = call.listing("strides", kernel)
    padding = _padding(call, own[2:], kernel, stride, [1] * space)
    counts = not call.flag("exclusive")
    made = layers.pool(
        call.tape, kind, x, kernel, stride, padding, counts_padding=counts,
        upward=call.flag("ceil_mode"),
    )  # fmt: skip
    return layers.image_out(call, made)


@operator("matmul", "bmm", "mv")
def matmul(call: PirCall) -> Result:
    """A product of matrices, each turned where the file says so."""
    operands: list[Operand] = []
    for at, name in enumerate(("transpose_x", "transpose_y")):
        value, rank = call[at], len(call.shape(at))
        if call.flag(name) and rank > 1:
            value = call.tape.permute(value, [*range(rank - 2), rank - 1, rank - 2])
        operands.append(value)
    return layers.matmul(call.tape, operands[0], operands[1])


@operator("einsum")
def einsum(call: PirCall) -> Result:
    """A contraction by letters."""
    equation = str(call.attributes.get("equation", ""))
    return layers.einsum(call.tape, equation, call.listed(0))


@operator(*_PLAIN)
def plain(call: PirCall) -> Result:
    """Element by element."""
    return call.tape.alone(_PLAIN[call.op], call[0])


@operator(*_BINARY)
def binary(call: PirCall) -> Result:
    """Element by element, of two values."""
    return call.tape.binary(_BINARY[call.op], call[0], call[1])


@operator("pow")
def power(call: PirCall) -> Result:
    """To a known power."""
    exponent = call.attributes.get("y")
    if not isinstance(exponent, int | float):
        raise NotTranslated
    return call.tape.alone("pow", call[0], exponent=float(exponent))


@operator("scale")
def scale(call: PirCall) -> Result:
    """A known number times a value, plus another."""
    factor, shift = call.number(1), float(call.attributes.get("bias", 0.0))
    first = shift if call.attributes.get("bias_after_scale", True) else shift * factor
    made = call.tape.binary("mul", call[0], np.asarray(factor))
    return call.tape.binary("add", made, np.asarray(first)) if first else made


@operator("clip")
def clip(call: PirCall) -> Result:
    """Between known bounds."""
    return call.tape.alone("clamp", call[0], min=call.number(1), max=call.number(2))


@operator("prelu")
def prelu(call: PirCall) -> Result:
    """With a trained slope."""
    return call.tape.alone("prelu", call[0], weight=Ref(call.tape.leaf(call[1])))


@operator("softmax", "log_softmax")
def softmax(call: PirCall) -> Result:
    """Over one axis."""
    log = call.op == "log_softmax"
    return layers.softmax(call.tape, call[0], call.integer("axis", -1), log=log)


@operator(*_REDUCE)
def reduction(call: PirCall) -> Result:
    """Over known axes, or all."""
    axes = call.integers(1, "axis") if len(call.inputs) > 1 else call.listing("axis")
    axes = axes or list(range(len(call.shape(0))))
    return call.tape.reduce(_REDUCE[call.op], call[0], axes, keep=call.flag("keepdim"))


@operator("where")
def where(call: PirCall) -> Result:
    """One or the other."""
    shape = broadcast(broadcast(call.shape(0), call.shape(1)), call.shape(2))
    condition = Ref(call.tape.leaf(call[0]))
    sides = {"self": call.tape.ref(call[1]), "other": call.tape.ref(call[2])}
    return call.tape.node("where", {"condition": condition, **sides}, shape)


@operator("embedding")
def embedding(call: PirCall) -> Result:
    """Rows picked by the data."""
    return layers.embedding(call.tape, call[1], call[0])


@operator("p_norm")
def norm(call: PirCall) -> Result:
    """The length along one axis."""
    if float(call.attributes.get("porder", 2.0)) == 0.0 or call.flag("asvector"):
        raise NotTranslated
    own, axis = call.shape(0), call.integer("axis", -1)
    axis, keep = place(axis, len(own)), call.flag("keepdim")
    shape = tuple(1 if at == axis else n for at, n in enumerate(own) if keep or at != axis)
    arguments = {"self": call.tape.ref(call[0]), "dim": [axis], "keepdim": keep, "ord": 2.0}
    return call.tape.node("linalg_vector_norm", arguments, shape)


@operator("nearest_interp", "bilinear_interp")
def resize(call: PirCall) -> Result:
    """An image of a size written in the file."""
    x = layers.image_in(call)
    own = call.tape.shape(x)
    sizes = [call.integer("out_h", -1), call.integer("out_w", -1)]
    factors = call.attributes.get("scale")
    if min(sizes) < 1 and isinstance(factors, list) and factors:
        factors = factors * 2 if len(factors) == 1 else factors
        sizes = [math.floor(n * float(f)) for n, f in zip(own[2:], factors, strict=True)]
    if len(own) != 4 or min(sizes) < 1:
        raise NotTranslated
    op = "upsample_nearest2d" if call.op == "nearest_interp" else "upsample_bilinear2d"
    return layers.image_out(call, call.tape.node(op, {"self": Ref(x)}, (*own[:2], *sizes)))
