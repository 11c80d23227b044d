"""ONNX normalisations, contractions and pooling, with the shape of what they give."""

from __future__ import annotations

import numpy as np

from smdlens.symmetry.model_graph import Ref, Shape
from smdlens.symmetry.onnx_translation import Found, Translation, Translator, onnx


@onnx("BatchNormalization")
def batch_norm(t: Translator) -> Found:
    """Whatever its mode: training is what matters."""
    arguments: dict[str, object] = {
        "input": t.ref(0), "weight": t.ref(1), "bias": t.ref(2), "running_mean": t.ref(3),
        "running_var": t.ref(4),
    }  # fmt: skip
    return [Translation("batch_norm", arguments, (t.shape(0),))]


@onnx("InstanceNormalization")
def instance_norm(t: Translator) -> Found:
    """Per sample and channel."""
    arguments: dict[str, object] = {"input": t.ref(0), "weight": t.ref(1), "bias": t.ref(2)}
    return [Translation("instance_norm", arguments, (t.shape(0),))]


@onnx("LayerNormalization", "RMSNormalization")
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


@onnx("GroupNormalization")
def group_norm(t: Translator) -> Found:
    """Scale and bias per channel; per group in the first version of the operator."""
    if t.shape(1)[0] != t.shape(0)[1]:
        return None
    arguments: dict[str, object] = {
        "input": t.ref(0), "num_groups": t.integer("num_groups", 1), "weight": t.ref(1),
        "bias": t.ref(2),
    }  # fmt: skip
    return [Translation("group_norm", arguments, (t.shape(0),))]


@onnx("Softmax", "LogSoftmax")
def softmax(t: Translator) -> Found:
    """Over one axis."""
    op = "softmax" if t.node.op == "Softmax" else "log_softmax"
    return [Translation(op, {"self": t.ref(0), "dim": t.integer("axis", -1)}, (t.shape(0),))]


@onnx("MatMul")
def matmul(t: Translator) -> Found:
    """With broadcast leading axes."""
    a, b = t.shape(0), t.shape(1)
    rows, columns = a[-2:-1], b[-1:] if len(b) > 1 else ()
    shape = (*np.broadcast_shapes(a[:-2], b[:-2]), *rows, *columns)
    return [Translation("matmul", {"self": t.ref(0), "other": t.ref(1)}, (shape,))]


@onnx("Gemm")
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


@onnx("Conv", "ConvTranspose")
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


@onnx("MaxPool", "AveragePool")
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


@onnx("GlobalAveragePool", "GlobalMaxPool")
def global_pool(t: Translator) -> Found:
    """All of space."""
    x = t.shape(0)
    op = "mean" if "Average" in t.node.op else "amax"
    arguments: dict[str, object] = {
        "self": t.ref(0), "dim": list(range(2, len(x))), "keepdim": True,
    }  # fmt: skip
    return [Translation(op, arguments, ((*x[:2], *(1 for _ in x[2:])),))]


@onnx("Resize")
def resize(t: Translator) -> Found:
    """Interpolation over space, with weights that sum to one."""
    x = t.shape(0)
    if t.node.attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return None
    output = t.node.outputs[0]
    if t.has(3):
        shape = tuple(t.numbers(3, "sizes") or ())
    elif t.has(2) and t.node.inputs[2] in t.known:
        scales = t.known[t.node.inputs[2]].astype(np.float64).reshape(-1).tolist()
        shape = tuple(int(n * scale) for n, scale in zip(x, scales, strict=True))
    else:
        shape = t.shapes[output]
    if len(shape) != len(x) or shape[:2] != x[:2] or not 3 <= len(x) <= 5:
        return None
    return [Translation(f"upsample_nearest{len(x) - 2}d", {"input": t.ref(0)}, (shape,))]


@onnx("Einsum")
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


@onnx("LSTM", "GRU", "RNN")
def recurrent(t: Translator) -> Found:
    """(T, N, D H) states in one operator: no rule, so every input must be of degree zero."""
    if t.integer("layout", 0):
        return None
    steps, batch = t.shape(0)[:2]
    directions, hidden = t.shape(2)[0], t.shape(2)[2]
    shapes = ((steps, directions, batch, hidden), *2 * [(directions, batch, hidden)])
    arguments: dict[str, object] = {
        f"argument{at}": t.ref(at) for at in range(len(t.node.inputs)) if t.has(at)
    }
    op = f"onnx.{t.node.op}"
    return [Translation(op, arguments, shapes[: len(t.node.outputs)], listed=True)]
