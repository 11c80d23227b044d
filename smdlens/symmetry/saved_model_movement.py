"""TensorFlow's data movement in our terms."""

from __future__ import annotations

import math

from smdlens.symmetry import tape_layers as layers
from smdlens.symmetry.keras_call import NotTranslated
from smdlens.symmetry.model_graph import Ref, Shape
from smdlens.symmetry.saved_model_call import OPEN, Result, TfCall, operator
from smdlens.symmetry.saved_model_fold import index_of
from smdlens.symmetry.saved_model_reader import FLOATING
from smdlens.symmetry.tape import Operand, place


@operator("StridedSlice")
def strided_slice(call: TfCall) -> Result:
    """Python's indexing with known numbers."""
    index, own = index_of(call), call.shape(0)
    taken = sum(item is not None and item is not Ellipsis for item in index)
    whole = [slice(None)] * (len(own) - taken)
    if Ellipsis in index:
        at = index.index(Ellipsis)
        index[at : at + 1] = whole
    else:
        index += whole
    value, axis = call.tape.leaf(call[0]), 0
    shape: list[int] = []
    for item in index:
        if item is None:
            shape.append(1)
            continue
        if axis >= len(own):
            raise NotTranslated
        if isinstance(item, slice):
            low, high, step = item.indices(own[axis])
        else:
            low = place(item, own[axis])
            high, step = low + 1, 1
        if step < 1:
            raise NotTranslated
        value = call.tape.slice(value, axis, low, max(high, low), step)
        if isinstance(item, slice):
            shape.append(call.tape.shape(value)[axis])
        axis += 1
    return call.tape.view(value, tuple(shape))


@operator("Slice")
def slice_(call: TfCall) -> Result:
    """Begins and sizes; -1 takes what is left."""
    value = call.tape.leaf(call[0])
    for axis, (low, size) in enumerate(zip(call.integers(1), call.integers(2), strict=True)):
        end = call.shape(0)[axis] if size == -1 else low + size
        if low < 0 or end > call.shape(0)[axis]:
            raise NotTranslated
        value = call.tape.slice(value, axis, low, end)
    return value


@operator("Reshape")
def reshape(call: TfCall) -> Result:
    """To known sizes, one of which may be left open."""
    return call.tape.view(call[0], _sizes(call.shape(0), call.integers(1)))


def _sizes(own: Shape, wanted: list[int]) -> Shape:
    if wanted.count(-1) > 1 or any(n < -1 for n in wanted):
        raise NotTranslated
    rest = math.prod(n for n in wanted if n != -1)
    if -1 in wanted and (not rest or math.prod(own) % rest):
        raise NotTranslated
    return tuple(math.prod(own) // rest if n == -1 else n for n in wanted)


@operator("ExpandDims")
def expand_dims(call: TfCall) -> Result:
    """A new axis of length one."""
    own = list(call.shape(0))
    own.insert(place(call.integers(1)[0], len(own) + 1), 1)
    return call.tape.view(call[0], tuple(own))


@operator("Squeeze")
def squeeze(call: TfCall) -> Result:
    """Axes of length one go."""
    own = call.shape(0)
    axes = {place(axis, len(own)) for axis in call.node.integers("squeeze_dims")}
    axes = axes or {at for at, n in enumerate(own) if n == 1}
    return call.tape.view(call[0], tuple(n for at, n in enumerate(own) if at not in axes))


@operator("Transpose")
def transpose(call: TfCall) -> Result:
    """Axes in another order."""
    return call.tape.permute(call[0], call.integers(1))


@operator("ConcatV2")
def concat(call: TfCall) -> Result:
    """One after the other."""
    last = len(call.inputs) - 1
    return call.tape.cat(call.inputs[:last], call.integers(last)[0])


@operator("Pack")
def pack(call: TfCall) -> Result:
    """One after the other along a new axis."""
    rank = len(call.shape(0)) + 1
    axis = place(call.node.integer("axis", 0), rank)
    rows = []
    for value in call.inputs:
        own = list(call.tape.shape(value))
        rows.append(call.tape.view(value, (*own[:axis], 1, *own[axis:])))
    return call.tape.cat(rows, axis)


@operator("Unpack")
def unpack(call: TfCall) -> Result:
    """All positions along one axis."""
    own = call.shape(0)
    axis = place(call.node.integer("axis", 0), len(own))
    shape = (*own[:axis], *own[axis + 1 :])
    rows = [call.tape.slice(call[0], axis, at, at + 1) for at in range(own[axis])]
    return [call.tape.view(row, shape) for row in rows]


@operator("Split", "SplitV")
def split(call: TfCall) -> Result:
    """Consecutive ranges along one axis."""
    even = call.node.op == "Split"
    value = call[1] if even else call[0]
    own = call.tape.shape(value)
    axis = place(call.integers(0 if even else 2)[0], len(own))
    count = call.node.integer("num_split", 1)
    if even and (not 0 < count <= own[axis] or own[axis] % count):
        raise NotTranslated
    lengths = [own[axis] // count] * count if even else call.integers(1)
    lengths = list(_sizes((own[axis],), lengths)) if -1 in lengths and not even else lengths
    parts: list[Operand] = []
    start = 0
    for length in lengths:
        if length < 0 or start + length > own[axis]:
            raise NotTranslated
        parts.append(call.tape.slice(value, axis, start, start + length))
        start += length
    return parts


@operator("Pad", "PadV2", "MirrorPad")
def pad(call: TfCall) -> Result:
    """New positions at both ends."""
    widths = call.known(1).reshape(-1, 2).tolist()
    filling = call.known(2).item() if call.node.op == "PadV2" else 0.0
    mode = "reflect" if call.node.op == "MirrorPad" else "constant"
    pairs = [(int(low), int(high)) for low, high in widths]
    return layers.padded(call.tape, call[0], pairs, float(filling), mode)


@operator("Tile")
def tile(call: TfCall) -> Result:
    """The whole, several times."""
    times, own = call.integers(1), call.shape(0)
    if len(times) != len(own) or min(times, default=1) < 1:
        raise NotTranslated
    shape = tuple(n * k for n, k in zip(own, times, strict=True))
    return call.tape.node("repeat", {"self": Ref(call.tape.leaf(call[0]))}, shape)


@operator("BroadcastTo")
def broadcast_to(call: TfCall) -> Result:
    """Repeated to a larger shape."""
    return call.tape.expand(call[0], tuple(call.integers(1)))


@operator("GatherV2", "ResourceGather")
def gather(call: TfCall) -> Result:
    """Rows of an embedding, or what known numbers pick."""
    axis = call.integers(2)[0] if call.node.op == "GatherV2" else 0
    own = call.shape(0)
    axis = place(axis, len(own))
    if call.node.integer("batch_dims", 0):
        raise NotTranslated
    indices = call[1]
    if not isinstance(indices, str) and indices.size == 1:
        at = place(int(indices.reshape(-1)[0]), own[axis])
        row = call.tape.slice(call[0], axis, at, at + 1)
        return call.tape.view(row, (*own[:axis], *indices.shape, *own[axis + 1 :]))
    if axis or len(own) != 2:
        raise NotTranslated
    return layers.embedding(call.tape, call[0], indices)


@operator("Identity", "Snapshot", "CheckNumerics", "EnsureShape", "PreventGradient", "IdentityN",
          "StopGradient", "Cast", "ReadVariableOp")  # fmt: skip
def unchanged(call: TfCall) -> Result:
    """Nothing happens to the numbers."""
    if call.node.op == "IdentityN":
        return list(call.inputs)
    if call.node.op == "Cast" and call.node.integer("DstT", 0) not in FLOATING:
        raise NotTranslated
    if call.node.op == "StopGradient":
        source = call.tape.leaf(call[0])
        made = call.tape.alone("detach", source)
        call.tape.stopped[made] = source
        return made
    return call[0]


@operator("ResizeNearestNeighbor", "ResizeBilinear", "ResizeBicubic")
def resize(call: TfCall) -> Result:
    """An image of known size."""
    op = {"ResizeNearestNeighbor": "upsample_nearest2d", "ResizeBilinear": "upsample_bilinear2d",
          "ResizeBicubic": "upsample_bicubic2d"}[call.node.op]  # fmt: skip
    sizes = call.integers(1)
    x = layers.channels_second(call.tape, call[0])
    own = call.tape.shape(x)
    if len(own) != 4 or len(sizes) != 2 or min(sizes) < 1:
        raise NotTranslated
    made = call.tape.node(op, {"self": Ref(x)}, (*own[:2], *sizes))
    return layers.channels_last(call.tape, made)


@operator("SpaceToBatchND", "BatchToSpaceND")
def space_to_batch(call: TfCall) -> Result:
    """Every b-th position of an image as an image of its own, or the way back."""
    sizes, widths = call.integers(1), call.known(2).reshape(-1, 2).tolist()
    own, space = call.shape(0), len(sizes)
    if min(sizes, default=0) < 1 or len(own) <= space or len(widths) != space:
        raise NotTranslated
    batches = math.prod(sizes)
    inner, rest = own[1 : space + 1], own[space + 1 :]
    if call.node.op == "SpaceToBatchND":
        pairs = [(0, 0), *((int(a), int(b)) for a, b in widths), *((0, 0) for _ in rest)]
        x = layers.padded(call.tape, call[0], pairs, 0.0)
        inner = call.tape.shape(x)[1 : space + 1]
        if any(n % b for n, b in zip(inner, sizes, strict=True)):
            raise NotTranslated
        fine = [n // b for n, b in zip(inner, sizes, strict=True)]
        apart = [size for pair in zip(fine, sizes, strict=True) for size in pair]
        x = call.tape.view(x, (own[0], *apart, *rest))
        blocks, places = range(2, 2 * space + 2, 2), range(1, 2 * space + 1, 2)
        tail = range(2 * space + 1, 2 * space + 1 + len(rest))
        x = call.tape.permute(x, [*blocks, 0, *places, *tail])
        return call.tape.view(x, (own[0] * batches, *fine, *rest))
    if own[0] % batches:
        raise NotTranslated
    x = call.tape.view(call[0], (*sizes, own[0] // batches, *inner, *rest))
    order = [space]
    for at in range(space):
        order += [space + 1 + at, at]
    x = call.tape.permute(x, [*order, *range(2 * space + 1, 2 * space + 1 + len(rest))])
    joined = [n * b for n, b in zip(inner, sizes, strict=True)]
    x = call.tape.view(x, (own[0] // batches, *joined, *rest))
    for axis, (low, high) in enumerate(widths, start=1):
        x = call.tape.slice(x, axis, int(low), call.tape.shape(x)[axis] - int(high))
    return x


@operator("TensorListStack")
def stacked(call: TfCall) -> Result:
    """What a loop wrote down step by step: a loop sees every scale."""
    count = call.node.integer("num_elements", -1)
    sizes = [OPEN if n < 0 else n for n in call.integers(1)]
    shape = (count if count > 0 else OPEN, *sizes)
    return call.tape.unknown("tf.TensorListStack", call.inputs, shape)
