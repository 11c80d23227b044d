"""ONNX data movement, with the shape of what it gives."""

from __future__ import annotations

import numpy as np

from smdlens.symmetry.model_graph import Ref
from smdlens.symmetry.onnx_fold import bounds, reshaped_to
from smdlens.symmetry.onnx_translation import Found, Translation, Translator, onnx


@onnx("Reshape")
def reshape(t: Translator) -> Found:
    """To a known shape."""
    wanted = t.numbers(1, "shape")
    assert wanted is not None
    shape = reshaped_to(t.shape(0), wanted, zero_copies=not t.integer("allowzero", 0))
    return [Translation("view", {"self": t.ref(0)}, (shape,))]


@onnx("Flatten")
def flatten(t: Translator) -> Found:
    """To two axes."""
    x = t.shape(0)
    axis = t.integer("axis", 1)
    axis = axis + len(x) if axis < 0 else axis
    shape = (int(np.prod(x[:axis], dtype=np.int64)), int(np.prod(x[axis:], dtype=np.int64)))
    return [Translation("view", {"self": t.ref(0)}, (shape,))]


@onnx("Squeeze", "Unsqueeze")
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


@onnx("Transpose")
def transpose(t: Translator) -> Found:
    """Axes in another order."""
    x = t.shape(0)
    order = t.integers("perm") or list(range(len(x)))[::-1]
    arguments: dict[str, object] = {"self": t.ref(0), "dims": order}
    return [Translation("permute", arguments, (tuple(x[at] for at in order),))]


@onnx("Concat")
def concat(t: Translator) -> Found:
    """One after the other."""
    shapes = [t.shape(at) for at in range(len(t.node.inputs))]
    axis = t.integer("axis", 0) % len(shapes[0])
    length = sum(shape[axis] for shape in shapes)
    shape = (*shapes[0][:axis], length, *shapes[0][axis + 1 :])
    refs = [Ref(name) for name in t.node.inputs]
    return [Translation("cat", {"tensors": refs, "dim": axis}, (shape,))]


@onnx("Split")
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


@onnx("Slice")
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


@onnx("Expand")
def expand(t: Translator) -> Found:
    """Repeated to a larger shape."""
    wanted = t.numbers(1, "shape")
    assert wanted is not None
    shape = np.broadcast_shapes(t.shape(0), tuple(wanted))
    return [Translation("expand", {"self": t.ref(0)}, (shape,))]


@onnx("Tile")
def tile(t: Translator) -> Found:
    """The whole, several times."""
    times = t.numbers(1, "repeats")
    assert times is not None
    shape = tuple(n * k for n, k in zip(t.shape(0), times, strict=True))
    return [Translation("repeat", {"self": t.ref(0)}, (shape,))]


@onnx("Gather")
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


@onnx("Pad")
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


@onnx("Trilu")
def triangle(t: Translator) -> Found:
    """Zeros above or below a diagonal."""
    op = "triu" if t.integer("upper", 1) else "tril"
    return [Translation(op, {"self": t.ref(0)}, (t.shape(0),))]
