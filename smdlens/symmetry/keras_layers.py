"""One Keras layer as nodes of the graph: convolutions, dense layers, normalisation, pooling.

Keras keeps channels last; around an operator that wants them second the image is turned and turned
back. Weights have the names and axes under which the checkpoint's tensors are shown. What is not
here, or not in this form, gets the sound default: it sees every scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from smdlens.symmetry.keras_call import LayerCall, NotTranslated

Translator = Callable[[LayerCall], str]
LAYERS: dict[str, Translator] = {}


def layer(*kinds: str) -> Callable[[Translator], Translator]:
    """Enters a translation into the table under the names of classes."""

    def enter(function: Translator) -> Translator:
        for kind in kinds:
            LAYERS[kind] = function
        return function

    return enter


def spatial_axes(call: LayerCall, shape: tuple[int, ...]) -> int:
    """Number of spatial axes of an image."""
    if len(shape) < 3:
        raise NotTranslated
    return len(shape) - 2


def pair(value: Any, count: int) -> list[int]:
    """A setting given once or per axis."""
    items = [value] * count if isinstance(value, int) else value
    if not isinstance(items, list | tuple) or len(items) != count:
        raise NotTranslated
    if not all(isinstance(item, int) and item > 0 for item in items):
        raise NotTranslated
    return list(items)


def windows(call: LayerCall, sizes: tuple[int, ...], kernel: list[int], stride: list[int],
            dilation: list[int]) -> list[int]:  # fmt: skip
    """Sizes after a sliding window (Keras' "same", "causal" and "valid")."""
    if call.setting("padding", "valid") in ("same", "causal"):
        return [-(-n // s) for n, s in zip(sizes, stride, strict=True)]
    found = []
    for n, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
        reach = d * (k - 1) + 1
        if n < reach:
            raise NotTranslated
        found.append((n - reach) // s + 1)
    return found


@layer("Conv1D", "Conv2D", "Conv3D", "Convolution2D", "DepthwiseConv1D", "DepthwiseConv2D")
def convolution(call: LayerCall) -> str:
    """With any stride and dilation, grouped or by channel."""
    padding = call.setting("padding", "valid")
    if padding not in ("same", "causal", "valid"):
        raise NotTranslated
    x = call.channels_second()
    shape = call.shape(x)
    space = spatial_axes(call, shape)
    weight = call.needed("weight")
    kernel = list(call.shape(weight)[2:])
    groups = call.setting("groups", 1)
    if call.kind.startswith("Depthwise"):
        channels, multiplier = call.shape(weight)[:2]
        weight = call.reshaped(weight, (channels * multiplier, 1, *kernel))
        groups = channels
    stride, dilation = (pair(call.setting(name, 1), space) for name in ("strides", "dilation_rate"))
    own = call.shape(weight)
    if len(kernel) != space or not isinstance(groups, int) or own[1] * groups != shape[1]:
        raise NotTranslated
    sizes = windows(call, shape[2:], kernel, stride, dilation)
    result = call.node(
        "convolution",
        {"input": call.ref(x), "weight": call.ref(weight), "bias": call.parameter("bias"),
         "padding": "same" if padding == "causal" else padding, "groups": groups},
        (shape[0], own[0], *sizes),
    )  # fmt: skip
    return call.activated(call.channels_back(result))


@layer("SeparableConv1D", "SeparableConv2D")
def separable(call: LayerCall) -> str:
    """By channel, then 1x1."""
    x = call.channels_second()
    shape = call.shape(x)
    space = spatial_axes(call, shape)
    shown = call.parameter("depthwise_kernel")  # "weight" where files are read
    deep = call.needed("weight") if shown is None else shown.name
    point = call.needed("pointwise_kernel")
    channels, multiplier, *kernel = call.shape(deep)
    deep = call.reshaped(deep, (channels * multiplier, 1, *kernel))
    stride, dilation = (pair(call.setting(name, 1), space) for name in ("strides", "dilation_rate"))
    sizes = windows(call, shape[2:], kernel, stride, dilation)
    middle = call.node(
        "convolution",
        {"input": call.ref(x), "weight": call.ref(deep), "groups": channels,
         "padding": call.setting("padding", "valid")},
        (shape[0], channels * multiplier, *sizes),
    )  # fmt: skip
    result = call.node(
        "convolution",
        {"input": call.ref(middle), "weight": call.ref(point), "bias": call.parameter("bias"),
         "padding": "valid", "groups": 1},
        (shape[0], call.shape(point)[0], *sizes),
    )  # fmt: skip
    return call.activated(call.channels_back(result))


@layer("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def transposed(call: LayerCall) -> str:
    """The kernel as the checkpoint's tensor is shown: (in, out, spatial), as torch has it."""
    if call.setting("output_padding") is not None:
        raise NotTranslated
    x = call.channels_second()
    shape = call.shape(x)
    space = spatial_axes(call, shape)
    weight = call.needed("weight")
    own = call.shape(weight)
    stride, dilation = (pair(call.setting(name, 1), space) for name in ("strides", "dilation_rate"))
    if own[0] != shape[1] or set(dilation) != {1}:
        raise NotTranslated
    same = call.setting("padding", "valid") == "same"
    sizes = [
        n * s if same else n * s + max(k - s, 0)
        for n, s, k in zip(shape[2:], stride, own[2:], strict=True)
    ]
    # Either way the ends of the image see fewer inputs than its middle does.
    result = call.node(
        "convolution",
        {"input": call.ref(x), "weight": call.ref(weight), "bias": call.parameter("bias"),
         "padding": "same", "groups": 1, "transposed": True},
        (shape[0], own[1], *sizes),
    )  # fmt: skip
    return call.activated(call.channels_back(result))


@layer("Dense")
def dense(call: LayerCall) -> str:
    """On the last axis."""
    shape, weight = call.shape(call.first), call.needed("weight")
    if call.shape(weight)[1:] != shape[-1:]:
        raise NotTranslated
    arguments = {
        "input": call.ref(call.first), "weight": call.ref(weight), "bias": call.parameter("bias"),
    }  # fmt: skip
    return call.activated(call.node("linear", arguments, (*shape[:-1], call.shape(weight)[0])))


@layer("BatchNormalization", "SyncBatchNormalization")
def batch_norm(call: LayerCall) -> str:
    """One that is not trained uses its saved statistics, which are constants."""
    shape = call.shape(call.first)
    axis = call.setting("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if not isinstance(axis, int) or call.setting("renorm"):
        raise NotTranslated
    axis %= len(shape)
    if not call.trainable:
        return _constant_norm(call, axis)
    order = [0, axis, *(a for a in range(1, len(shape)) if a != axis)] if axis else None
    if order is None:
        raise NotTranslated
    x = call.permuted(call.first, order)
    result = call.node(
        "batch_norm",
        {"input": call.ref(x), "weight": call.parameter("weight"), "bias": call.parameter("bias"),
         "running_mean": call.constant("running_mean"),
         "running_var": call.constant("running_var")},
        call.shape(x),
    )  # fmt: skip
    return call.permuted(result, [order.index(a) for a in range(len(order))])


def _constant_norm(call: LayerCall, axis: int) -> str:
    shape = call.shape(call.first)
    result = call.first
    wide = tuple(n if a == axis else 1 for a, n in enumerate(shape))
    for op, name, leaf in (("mul", "running_var", False), ("add", "running_mean", False),
                           ("mul", "weight", True), ("add", "bias", True)):  # fmt: skip
        operand = call.parameter(name) if leaf else call.constant(name)
        if operand is not None:
            other = call.reshaped(operand.name, wide)
            arguments = {"self": call.ref(result), "other": call.ref(other)}
            result = call.node(op, arguments, shape)
    return result


@layer("LayerNormalization", "RMSNormalization")
def layer_norm(call: LayerCall) -> str:
    """Over the last axis."""
    shape, axis = call.shape(call.first), call.setting("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if not isinstance(axis, int) or axis % len(shape) != len(shape) - 1:
        raise NotTranslated
    rms = call.kind == "RMSNormalization" or call.setting("rms_scaling")
    arguments = {
        "input": call.ref(call.first), "normalized_shape": [shape[-1]],
        "weight": call.parameter("weight"), "bias": call.parameter("bias"),
    }  # fmt: skip
    return call.node("rms_norm" if rms else "layer_norm", arguments, shape)


@layer("GroupNormalization")
def group_norm(call: LayerCall) -> str:
    """Per sample and group of channels, on the last axis."""
    shape, groups = call.shape(call.first), call.setting("groups", 32)
    if call.setting("axis", -1) % len(shape) != len(shape) - 1 or not isinstance(groups, int):
        raise NotTranslated
    groups = shape[-1] if groups == -1 else groups
    if groups <= 0 or shape[-1] % groups:
        raise NotTranslated
    order = [0, len(shape) - 1, *range(1, len(shape) - 1)]
    x = call.permuted(call.first, order)
    result = call.node(
        "group_norm",
        {"input": call.ref(x), "num_groups": groups, "weight": call.parameter("weight"),
         "bias": call.parameter("bias")},
        call.shape(x),
    )  # fmt: skip
    return call.permuted(result, [order.index(a) for a in range(len(order))])


@layer("MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "AveragePooling1D", "AveragePooling2D",
       "AveragePooling3D", "MaxPool1D", "MaxPool2D", "AvgPool2D")  # fmt: skip
def pool(call: LayerCall) -> str:
    """Windows over the image; what is beyond its edge does not count."""
    x = call.channels_second()
    shape = call.shape(x)
    space = spatial_axes(call, shape)
    size = pair(call.setting("pool_size", 2), space)
    strides = call.setting("strides")
    stride = size if strides is None else pair(strides, space)
    sizes = windows(call, shape[2:], size, stride, [1] * space)
    op = f"{'max' if call.kind.startswith('Max') else 'avg'}_pool{space}d"
    padding = [1] if call.setting("padding", "valid") == "same" else [0]
    arguments = {"self": call.ref(x), "padding": padding, "count_include_pad": False}
    return call.channels_back(call.node(op, arguments, (*shape[:2], *sizes)))


@layer("GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D",
       "GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D")  # fmt: skip
def global_pool(call: LayerCall) -> str:
    """All of the image."""
    shape = call.shape(call.first)
    axes = list(range(2, len(shape)) if call.channels_first else range(1, len(shape) - 1))
    keep = bool(call.setting("keepdims"))
    kept = tuple(1 if a in axes else n for a, n in enumerate(shape) if keep or a not in axes)
    op = "mean" if "Average" in call.kind else "amax"
    return call.node(op, {"self": call.ref(call.first), "dim": axes, "keepdim": keep}, kept)


@layer("Embedding")
def embedding(call: LayerCall) -> str:
    """Rows by number."""
    weight = call.needed("weight")
    shape = (*call.shape(call.first), call.shape(weight)[1])
    return call.node(
        "embedding", {"weight": call.ref(weight), "indices": call.ref(call.first)}, shape
    )


def product_of(shape: tuple[int, ...]) -> int:
    """Elements behind the batch."""
    return math.prod(shape[1:])
