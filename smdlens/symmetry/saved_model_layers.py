"""TensorFlow's layers and arithmetic in our terms."""

from __future__ import annotations

from smdlens.symmetry import tape_layers as layers
from smdlens.symmetry.keras_call import NotTranslated
from smdlens.symmetry.model_graph import Ref
from smdlens.symmetry.saved_model_call import Result, TfCall, operator
from smdlens.symmetry.tape import Operand, broadcast

_PLAIN = {
    "Relu": "relu", "LeakyRelu": "leaky_relu", "Abs": "abs", "Neg": "neg", "Sqrt": "sqrt",
    "Rsqrt": "rsqrt", "Square": "square", "Reciprocal": "reciprocal", "Inv": "reciprocal",
    "Sign": "sign", "Relu6": "relu6", "Sigmoid": "sigmoid", "Tanh": "tanh", "Elu": "elu",
    "Selu": "selu", "Softplus": "softplus", "Softsign": "softsign", "Erf": "erf", "Erfc": "erfc",
    "Exp": "exp", "Expm1": "expm1", "Log": "log", "Log1p": "log1p", "Sin": "sin", "Cos": "cos",
    "Floor": "floor", "Ceil": "ceil", "Round": "round", "Rint": "round",
}  # fmt: skip
_BINARY = {
    "Add": "add", "AddV2": "add", "Sub": "sub", "Mul": "mul", "RealDiv": "div", "Div": "div",
    "Maximum": "maximum", "Minimum": "minimum",
}  # fmt: skip
_COMPARE = {
    "Equal": "eq", "NotEqual": "ne", "Less": "lt", "LessEqual": "le", "Greater": "gt",
    "GreaterEqual": "ge",
}  # fmt: skip
_REDUCE = {"Mean": "mean", "Sum": "sum", "Max": "amax", "Min": "amin"}


def _padding(
    call: TfCall, sizes: tuple[int, ...], kernel: list[int], stride: list[int], dilation: list[int]
) -> list[tuple[int, int]]:
    said = call.node.text("padding")
    if said == "VALID":
        return [(0, 0)] * len(kernel)
    if said == "SAME":
        return layers.same_padding(sizes, kernel, stride, dilation)
    given = call.node.integers("explicit_paddings")
    if said != "EXPLICIT" or len(given) != 2 * (len(kernel) + 2):
        raise NotTranslated
    pairs = list(zip(given[::2], given[1::2], strict=True))
    return pairs[2:] if call.channels_first else pairs[1:-1]


@operator("Conv2D", "Conv3D", "DepthwiseConv2dNative")
def convolution(call: TfCall) -> Result:
    """Kernels are (space..., in, out), or (space..., in, multiplier) by channel."""
    x, tape = layers.image_in(call), call.tape
    own, kernel = tape.shape(x), call.shape(1)
    space = len(kernel) - 2
    if len(own) != space + 2:
        raise NotTranslated
    stride, dilation = call.spatial("strides", space), call.spatial("dilations", space)
    sizes = list(kernel[:space])
    axes = list(range(space))
    if call.node.op == "DepthwiseConv2dNative":
        turned = tape.permute(call[1], [space, space + 1, *axes])
        weight = tape.view(turned, (kernel[-2] * kernel[-1], 1, *sizes))
        groups = own[1]
    else:
        weight = tape.permute(call[1], [space + 1, space, *axes])
        if not kernel[-2] or own[1] % kernel[-2]:
            raise NotTranslated
        groups = own[1] // kernel[-2]
    padding = _padding(call, own[2:], sizes, stride, dilation)
    made = layers.convolution(tape, x, weight, None, stride, padding, dilation, groups)
    return layers.image_out(call, made)


@operator("Conv2DBackpropInput", "Conv3DBackpropInputV2")
def transposed(call: TfCall) -> Result:
    """The gradient of a convolution as a layer: (sizes, kernel, image)."""
    sizes, kernel = call.integers(0), call.shape(1)
    space = len(kernel) - 2
    x = call.tape.leaf(call[2])
    x = x if call.channels_first else layers.channels_second(call.tape, x)
    weight = call.tape.permute(call[1], [space + 1, space, *range(space)])
    inner = sizes[2:] if call.channels_first else sizes[1:-1]
    made = layers.transposed_convolution(call.tape, x, weight, None, inner, 1)
    return layers.image_out(call, made)


@operator("MaxPool", "AvgPool", "MaxPool3D", "AvgPool3D")
def pool(call: TfCall) -> Result:
    """Windows; a mean never counts padding."""
    x = layers.image_in(call)
    own = call.tape.shape(x)
    space = len(own) - 2
    kernel, stride = call.spatial("ksize", space), call.spatial("strides", space)
    padding = _padding(call, own[2:], kernel, stride, [1] * space)
    kind = "avg" if call.node.op.startswith("Avg") else "max"
    return layers.image_out(call, layers.pool(call.tape, kind, x, kernel, stride, padding))


@operator("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
def batch_norm(call: TfCall) -> Result:
    """By the batch's statistics, or by running ones that the trainer moves."""
    x, tape = layers.image_in(call), call.tape
    scale, offset = call[1], call[2]
    mean: Operand | None = None
    variance: Operand | None = None
    if not call.node.flag("is_training", True):
        mean, variance = call[3], call[4]
        moved = all(
            isinstance(value, str) and value in tape.constants and tape.constants[value].name
            for value in (mean, variance)
        )
        if not moved or any(value in call.untrained for value in (scale, offset)):
            raise NotTranslated  # frozen: constants, which keep no scale
    made = layers.normalised(tape, "batch_norm", x, scale, offset, mean, variance)
    vector = tape.shape(scale)
    extra: list[Operand] = [tape.unknown("batch_norm_statistics", [x], vector) for _ in range(5)]
    return [layers.image_out(call, made), *extra]


@operator("BiasAdd", "BiasAddV1")
def bias(call: TfCall) -> Result:
    """A vector along the channels."""
    own, vector = call.shape(0), call[1]
    if call.channels_first and len(own) > 2:
        vector = call.tape.view(vector, (call.shape(1)[0], *(1 for _ in own[2:])))
    return call.tape.binary("add", call[0], vector)


@operator("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
def matmul(call: TfCall) -> Result:
    """A product of matrices, each turned where the file says so."""
    operands: list[Operand] = []
    for at, flags in enumerate((("transpose_a", "adj_x"), ("transpose_b", "adj_y"))):
        value = call[at]
        if any(call.node.flag(flag) for flag in flags):
            rank = len(call.shape(at))
            value = call.tape.permute(value, [*range(rank - 2), rank - 1, rank - 2])
        operands.append(value)
    return layers.matmul(call.tape, operands[0], operands[1])


@operator("Einsum")
def einsum(call: TfCall) -> Result:
    """A contraction by letters."""
    return layers.einsum(call.tape, call.node.text("equation"), list(call.inputs))


@operator(*_PLAIN)
def plain(call: TfCall) -> Result:
    """Element by element."""
    return call.tape.alone(_PLAIN[call.node.op], call[0])


@operator(*_BINARY)
def binary(call: TfCall) -> Result:
    """Element by element, of two values."""
    return call.tape.binary(_BINARY[call.node.op], call[0], call[1])


@operator(*_COMPARE)
def compare(call: TfCall) -> Result:
    """A comparison."""
    return call.tape.binary(_COMPARE[call.node.op], call[0], call[1])


@operator("Pow")
def power(call: TfCall) -> Result:
    """To a known power."""
    exponent = call.known(1)
    if exponent.size != 1:
        raise NotTranslated
    return call.tape.alone("pow", call[0], exponent=float(exponent.reshape(-1)[0]))


@operator("DivNoNan", "MulNoNan")
def guarded(call: TfCall) -> Result:
    """A quotient or product that is zero where the second is."""
    op = "div" if call.node.op == "DivNoNan" else "mul"
    return call.tape.binary(op, call[0], call[1])


@operator("SquaredDifference")
def squared_difference(call: TfCall) -> Result:
    """(a - b)^2; a mean whose gradient is stopped, as tf.nn.moments has it, has none anyway."""
    a, b = call[0], call[1]
    if isinstance(b, str):
        source = call.tape.stopped.get(b)
        if source is not None and call.tape.mean_of(source) == a:
            b = source
    return call.tape.alone("square", call.tape.binary("sub", a, b))


@operator("Softmax", "LogSoftmax")
def softmax(call: TfCall) -> Result:
    """Over the last axis."""
    return layers.softmax(call.tape, call[0], -1, log=call.node.op == "LogSoftmax")


@operator(*_REDUCE)
def reduction(call: TfCall) -> Result:
    """Over known axes."""
    axes = call.integers(1)
    keep = call.node.flag("keep_dims")
    return call.tape.reduce(_REDUCE[call.node.op], call[0], axes, keep=keep)


@operator("AddN", "AccumulateNV2")
def sum_of_all(call: TfCall) -> Result:
    """A sum of several."""
    whole = call[0]
    for other in call.inputs[1:]:
        whole = call.tape.binary("add", whole, other)
    return whole


@operator("ClipByValue")
def clip(call: TfCall) -> Result:
    """Between known bounds."""
    low, high = call.known(1), call.known(2)
    if low.size != 1 or high.size != 1:
        raise NotTranslated
    bounds = {"min": float(low.reshape(-1)[0]), "max": float(high.reshape(-1)[0])}
    return call.tape.alone("clamp", call[0], **bounds)


@operator("Select", "SelectV2")
def where(call: TfCall) -> Result:
    """One or the other."""
    tape = call.tape
    shape = broadcast(broadcast(call.shape(0), call.shape(1)), call.shape(2))
    condition = Ref(tape.leaf(call[0]))
    arguments = {"condition": condition, "self": tape.ref(call[1]), "other": tape.ref(call[2])}
    return tape.node("where", arguments, shape)


@operator("ArgMax", "ArgMin")
def place_of_extremum(call: TfCall) -> Result:
    """Where the largest element lies."""
    (axis,) = call.integers(1)
    own = call.shape(0)
    axis %= max(len(own), 1)
    shape = tuple(n for at, n in enumerate(own) if at != axis)
    return call.tape.node("argmax", {"self": call.tape.ref(call[0]), "dim": axis}, shape)
