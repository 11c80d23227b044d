"""PaddlePaddle's data movement in our terms, and numbers that the program writes down."""

from __future__ import annotations

import math

import numpy as np

from smdlens.symmetry import tape_layers as layers
from smdlens.symmetry.keras_call import NotTranslated
from smdlens.symmetry.model_graph import Ref
from smdlens.symmetry.paddle_call import PirCall, Result, operator
from smdlens.symmetry.tape import Operand, place


@operator("full")
def full(call: PirCall) -> Result:
    """One number in all places."""
    number = call.attributes.get("value", 0.0)
    if not isinstance(number, int | float):
        raise NotTranslated
    whole = "int" in str(call.attributes.get("dtype", ""))
    kind = np.asarray(number, np.int64 if whole else np.float64)
    return np.broadcast_to(kind, tuple(call.listing("shape")))


@operator("full_int_array")
def full_int_array(call: PirCall) -> Result:
    """Whole numbers."""
    return np.asarray(call.listing("value"), np.int64)


@operator("shape", "shape64")
def shape(call: PirCall) -> Result:
    """Sizes of a value."""
    return np.asarray(call.shape(0), np.int64)


@operator("reshape")
def reshape(call: PirCall) -> Result:
    """0 copies an axis, -1 takes what is left."""
    own = call.shape(0)
    wanted = call.integers(1, "shape")
    sizes = [own[at] if n == 0 and at < len(own) else n for at, n in enumerate(wanted)]
    rest = math.prod(n for n in sizes if n != -1)
    if sizes.count(-1) > 1 or (-1 in sizes and (not rest or math.prod(own) % rest)):
        raise NotTranslated
    return call.tape.view(call[0], tuple(math.prod(own) // rest if n == -1 else n for n in sizes))


@operator("flatten")
def flatten(call: PirCall) -> Result:
    """A run of axes becomes one."""
    own = call.shape(0)
    start = place(call.integer("start_axis", 1), len(own))
    stop = place(call.integer("stop_axis", -1), len(own))
    merged = math.prod(own[start : stop + 1])
    return call.tape.view(call[0], (*own[:start], merged, *own[stop + 1 :]))


@operator("squeeze", "unsqueeze")
def squeeze(call: PirCall) -> Result:
    """Axes of length one come or go."""
    own, axes = list(call.shape(0)), call.integers(1, "axis")
    if call.op == "unsqueeze":
        for axis in axes:
            own.insert(place(axis, len(own) + 1), 1)
        return call.tape.view(call[0], tuple(own))
    dropped = {place(axis, len(own)) for axis in axes} or set(range(len(own)))
    kept = tuple(n for at, n in enumerate(own) if at not in dropped or n != 1)
    return call.tape.view(call[0], kept)


@operator("transpose")
def transpose(call: PirCall) -> Result:
    """Axes in another order."""
    rank = len(call.shape(0))
    return call.tape.permute(call[0], [place(axis, rank) for axis in call.listing("perm")])


@operator("concat")
def concat(call: PirCall) -> Result:
    """One after the other."""
    return call.tape.cat(call.listed(0), int(call.number(1)))


@operator("stack")
def stack(call: PirCall) -> Result:
    """One after the other along a new axis."""
    parts = call.listed(0)
    axis = place(call.integer("axis", 0), len(call.tape.shape(parts[0])) + 1)
    rows: list[Operand] = []
    for part in parts:
        own = call.tape.shape(part)
        rows.append(call.tape.view(part, (*own[:axis], 1, *own[axis:])))
    return call.tape.cat(rows, axis)


@operator("split", "split_with_num")
def split(call: PirCall) -> Result:
    """Consecutive ranges along one axis."""
    own = call.shape(0)
    even = call.op == "split_with_num"
    axis = place(int(call.number(1 if even else 2)), len(own))
    if even:
        count = call.integer("num", 1)
        if not 0 < count <= own[axis] or own[axis] % count:
            raise NotTranslated
        lengths = [own[axis] // count] * count
    else:
        lengths = call.integers(1)
        known = sum(n for n in lengths if n >= 0)
        lengths = [own[axis] - known if n < 0 else n for n in lengths]
    if sum(lengths) != own[axis] or min(lengths, default=0) < 0:
        raise NotTranslated
    parts: list[Operand] = []
    start = 0
    for length in lengths:
        parts.append(call.tape.slice(call[0], axis, start, start + length))
        start += length
    return parts


@operator("slice")
def slice_(call: PirCall) -> Result:
    """Ranges along some axes, of which those of one position may go."""
    starts, ends = call.integers(1), call.integers(2)
    value = call.tape.leaf(call[0])
    for axis, low, high in zip(call.listing("axes"), starts, ends, strict=True):
        value = call.tape.slice(value, axis, low, high)
    dropped = {place(axis, len(call.shape(0))) for axis in call.listing("decrease_axis")}
    own = call.tape.shape(value)
    return call.tape.view(value, tuple(n for at, n in enumerate(own) if at not in dropped))


@operator("expand", "expand_as")
def expand(call: PirCall) -> Result:
    """Repeated to a larger shape; -1 keeps an axis."""
    own = call.shape(0)
    if call.op == "expand_as":
        wanted = call.listing("target_shape")
    else:
        wanted = call.integers(1, "shape")
    extra = len(wanted) - len(own)
    sizes = tuple(own[at - extra] if n == -1 and at >= extra else n for at, n in enumerate(wanted))
    return call.tape.expand(call[0], sizes)


@operator("tile")
def tile(call: PirCall) -> Result:
    """The whole, several times."""
    times, own = call.integers(1, "repeat_times"), call.shape(0)
    if len(times) != len(own) or min(times, default=1) < 1:
        raise NotTranslated
    sizes = tuple(n * k for n, k in zip(own, times, strict=True))
    return call.tape.node("repeat", {"self": Ref(call.tape.leaf(call[0]))}, sizes)


@operator("pad", "pad3d")
def pad(call: PirCall) -> Result:
    """New positions at both ends."""
    rank = len(call.shape(0))
    widths = call.listing("paddings") or call.integers(1)
    mode = str(call.attributes.get("mode", "constant"))
    number = call.attributes.get("pad_value", 0.0)
    filling = call.number(1) if call.op == "pad" and len(call.inputs) > 1 else float(number)
    if call.op == "pad":
        pairs = list(zip(widths[::2], widths[1::2], strict=True))
    else:  # from the last axis on, channels left alone
        if not call.channels_first:
            raise NotTranslated
        inner = list(zip(widths[::2], widths[1::2], strict=True))[::-1]
        pairs = [(0, 0)] * (rank - len(inner)) + inner
    return layers.padded(call.tape, call[0], pairs, filling, mode)


@operator("assign", "cast", "dropout", "share_data", "memcpy_h2d", "assign_out", "print",
          "fused_softplus_none")  # fmt: skip
def unchanged(call: PirCall) -> Result:
    """Nothing happens to the numbers; dropout is off outside training."""
    if call.op == "cast" and "float" not in str(call.attributes.get("dtype", "")):
        if not isinstance(call[0], str):
            return call.known(0)
        raise NotTranslated
    return call[0]
