"""Keras layers that move, join or bend values and hold few or no weights of their own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from smdlens.symmetry.keras_call import LayerCall, NotTranslated
from smdlens.symmetry.keras_layers import layer, product_of
from smdlens.symmetry.model_graph import Shape

_KEEP_SHAPE = frozenset({
    "PReLU", "ELU", "ThresholdedReLU", "ReLU", "LeakyReLU", "Softmax", "Activation", "Masking",
    "GaussianNoise", "AlphaDropout", "UnitNormalization", "Normalization", "Rescaling",
    "BatchNormalization", "LayerNormalization", "GroupNormalization", "SpectralNormalization",
    "RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom", "RandomContrast",
    "RandomBrightness", "LayerScale",
})  # fmt: skip


def known_shape(call: LayerCall) -> Shape | None:
    """Shape of what a layer without a translation gives, where its class says it."""
    if len(call.inputs) != 1:
        return None
    shape, units = call.shape(call.first), call.setting("units")
    if call.kind in _KEEP_SHAPE:
        return shape
    if call.kind in ("LSTM", "GRU", "SimpleRNN") and isinstance(units, int) and len(shape) == 3:
        if call.setting("return_state"):
            return None
        return (*shape[:2], units) if call.setting("return_sequences") else (shape[0], units)
    return None


@layer("Activation")
def activation(call: LayerCall) -> str:
    """By name."""
    return call.activated(call.first)


@layer("ReLU")
def relu(call: LayerCall) -> str:
    """Homogeneous without an upper bound or a threshold."""
    if call.setting("max_value") is not None or call.setting("threshold", 0.0) != 0.0:
        raise NotTranslated
    return call.activated(call.first, "relu")


@layer("LeakyReLU")
def leaky_relu(call: LayerCall) -> str:
    """Whatever its slope."""
    return call.activated(call.first, "leaky_relu")


@layer("Softmax")
def softmax(call: LayerCall) -> str:
    """Over one axis."""
    axis = call.setting("axis", -1)
    if not isinstance(axis, int):
        raise NotTranslated
    arguments = {"self": call.ref(call.first), "dim": axis}
    return call.node("softmax", arguments, call.shape(call.first))


@layer("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "GaussianDropout",
       "Identity", "ActivityRegularization")  # fmt: skip
def unchanged(call: LayerCall) -> str:
    """What multiplies by a number that does not depend on the weights, or does nothing."""
    return call.first


@layer("Flatten")
def flatten(call: LayerCall) -> str:
    """Everything behind the batch, channels last."""
    x, shape = call.first, call.shape(call.first)
    if call.channels_first and len(shape) > 2:
        x = call.permuted(x, [0, *range(2, len(shape)), 1])
    return call.reshaped(x, (shape[0], product_of(shape)))


@layer("Reshape")
def reshape(call: LayerCall) -> str:
    """To a shape that may leave one size open."""
    shape, target = call.shape(call.first), call.setting("target_shape")
    if not isinstance(target, list | tuple) or not all(isinstance(n, int) for n in target):
        raise NotTranslated
    known = math.prod(n for n in target if n != -1)
    sizes = tuple(product_of(shape) // max(known, 1) if n == -1 else n for n in target)
    return call.reshaped(call.first, (shape[0], *sizes))


@layer("Permute")
def permute(call: LayerCall) -> str:
    """Axes behind the batch, counted from one."""
    dims = call.setting("dims")
    rank = len(call.shape(call.first))
    if not isinstance(dims, list | tuple) or sorted(dims) != list(range(1, rank)):
        raise NotTranslated
    return call.permuted(call.first, [0, *dims])


@layer("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D")
def zero_padding(call: LayerCall) -> str:
    """Zeros around the image."""
    shape = call.shape(call.first)
    space = len(shape) - 2
    widths = _pairs(call.setting("padding", 1), space)
    first = 2 if call.channels_first else 1
    sizes = list(shape)
    pads = [0, 0] * len(shape)
    for at, (low, high) in enumerate(widths):
        sizes[first + at] += low + high
        place = 2 * (len(shape) - 1 - first - at)
        pads[place : place + 2] = [low, high]
    arguments = {"self": call.ref(call.first), "pad": pads, "value": 0.0}
    return call.node("constant_pad_nd", arguments, tuple(sizes))


@layer("Cropping1D", "Cropping2D", "Cropping3D")
def cropping(call: LayerCall) -> str:
    """The inside of the image."""
    x, shape = call.first, list(call.shape(call.first))
    first = 2 if call.channels_first else 1
    for at, (low, high) in enumerate(_pairs(call.setting("cropping", 1), len(shape) - 2)):
        axis = first + at
        end = shape[axis] - high
        if low or high:
            shape[axis] = end - low
            arguments = {"self": call.ref(x), "dim": axis, "start": low, "end": end}
            x = call.node("slice", arguments, tuple(shape))
    return x


def _pairs(value: Any, count: int) -> list[tuple[int, int]]:
    if isinstance(value, int):
        items: list[Any] = [(value, value)] * count
    elif count == 1 and isinstance(value, list | tuple) and all(isinstance(v, int) for v in value):
        items = [tuple(value)] if len(value) == 2 else [(value[0], value[0])]
    else:
        items = [(v, v) if isinstance(v, int) else v for v in value]
    good = len(items) == count and all(
        isinstance(i, list | tuple) and len(i) == 2 and all(isinstance(n, int) for n in i)
        for i in items
    )
    if not good:
        raise NotTranslated
    return [(int(low), int(high)) for low, high in items]


@layer("UpSampling1D", "UpSampling2D", "UpSampling3D")
def upsampling(call: LayerCall) -> str:
    """Copies, or averages of neighbours."""
    x = call.channels_second()
    shape = call.shape(x)
    space = len(shape) - 2
    size = call.setting("size", 2)
    times = [size] * space if isinstance(size, int) else list(size)
    if len(times) != space or not 1 <= space <= 3:
        raise NotTranslated
    sizes = tuple(n * t for n, t in zip(shape[2:], times, strict=True))
    op = f"upsample_nearest{space}d"
    return call.channels_back(call.node(op, {"input": call.ref(x)}, (*shape[:2], *sizes)))


@layer("Add", "Subtract", "Multiply", "Maximum", "Minimum", "Average")
def merge(call: LayerCall) -> str:
    """Element by element, in order."""
    if len(call.inputs) < 2:
        raise NotTranslated
    ops = {"Add": "add", "Subtract": "sub", "Multiply": "mul", "Maximum": "maximum",
           "Minimum": "minimum", "Average": "add"}  # fmt: skip
    result = call.inputs[0]
    for other in call.inputs[1:]:
        shape = tuple(np.broadcast_shapes(call.shape(result), call.shape(other)))
        arguments = {"self": call.ref(result), "other": call.ref(other)}
        result = call.node(ops[call.kind], arguments, shape)
    if call.kind == "Average":
        share = {"self": call.ref(result), "other": 1.0 / len(call.inputs)}
        result = call.node("mul", share, call.shape(result))
    return result


@layer("Concatenate")
def concatenate(call: LayerCall) -> str:
    """Along one axis."""
    axis = call.setting("axis", -1)
    shapes = [call.shape(name) for name in call.inputs]
    if not isinstance(axis, int) or not shapes or len({len(s) for s in shapes}) != 1:
        raise NotTranslated
    axis %= len(shapes[0])
    whole = list(shapes[0])
    whole[axis] = sum(s[axis] for s in shapes)
    arguments = {"tensors": [call.ref(name) for name in call.inputs], "dim": axis}
    return call.node("cat", arguments, tuple(whole))


@layer("MultiHeadAttention")
def attention(call: LayerCall) -> str:
    """Query and value (and key) on one sequence axis; self-attention where they are the same."""
    if not 1 < len(call.inputs) < 4 or call.setting("attention_axes") not in (None, [1], (1,)):
        raise NotTranslated
    query, value = call.inputs[:2]
    key = call.inputs[2] if len(call.inputs) == 3 else value
    heads = [_head(call, x, name) for x, name in
             ((query, "query"), (key, "key"), (value, "value"))]  # fmt: skip
    names = ("query", "key", "value")
    arguments = {name: call.ref(x) for name, x in zip(names, heads, strict=True)}
    batch, count, length, size = call.shape(heads[0])
    size = call.shape(heads[2])[3]
    seen = call.node("scaled_dot_product_attention", arguments, (batch, count, length, size))
    flat = call.reshaped(call.permuted(seen, [0, 2, 1, 3]), (batch, length, count * size))
    weight = call.needed("weight", "attention_output")
    own = call.shape(weight)
    if own[1:] != (count, size):
        raise NotTranslated
    matrix = call.reshaped(weight, (own[0], count * size))
    arguments = {"input": call.ref(flat), "weight": call.ref(matrix)}
    bias = call.parameter("bias", "attention_output")
    return call.node("linear", {**arguments, "bias": bias}, (batch, length, own[0]))


def _head(call: LayerCall, x: str, name: str) -> str:
    """(batch, length, features) -> (batch, heads, length, size of a head)."""
    weight = call.needed("weight", name)
    count, size, features = call.shape(weight)
    batch, length, given = call.shape(x)
    if given != features:
        raise NotTranslated
    arguments: dict[str, Any] = {
        "input": call.ref(x), "weight": call.ref(call.reshaped(weight, (count * size, features))),
    }  # fmt: skip
    bias = call.parameter("bias", name)
    if bias is not None:
        arguments["bias"] = call.ref(call.reshaped(bias.name, (count * size,)))
    flat = call.node("linear", arguments, (batch, length, count * size))
    return call.permuted(call.reshaped(flat, (batch, length, count, size)), [0, 2, 1, 3])
