"""StableHLO's reductions, contractions, windows and lookups in our terms."""

from __future__ import annotations

import math
import re

import numpy as np

from smdlens.symmetry import tape_layers as layers
from smdlens.symmetry.keras_call import NotTranslated
from smdlens.symmetry.model_graph import Ref
from smdlens.symmetry.stablehlo_call import HloCall, Result, operator
from smdlens.symmetry.tape import Operand, single


@operator("reduce")
def reduce(call: HloCall) -> Result:
    """A sum or extremum over axes, from its neutral number."""
    match = re.search(r"applies stablehlo\.(\w+) across dimensions = \[([\d,\s]*)\]",
                      call.operator.text)  # fmt: skip
    if match is None or len(call.inputs) != 2:
        raise NotTranslated
    op, neutral = {"add": ("sum", 0.0), "maximum": ("amax", -math.inf),
                   "minimum": ("amin", math.inf)}.get(match[1], ("", 0.0))  # fmt: skip
    if not op or single(call.known(1)) != neutral:
        raise NotTranslated
    axes = [int(item) for item in match[2].split(",") if item.strip()]
    return call.tape.reduce(op, call[0], axes, keep=False)


@operator("dot_general", "dot")
def dot_general(call: HloCall) -> Result:
    """A contraction, by letters: batch axes, then free ones of the left and of the right."""
    a, b = call.tape.shape(call[0]), call.tape.shape(call[1])
    match = {
        name: re.search(rf"{name} = \[([\d,\s]*)\] x \[([\d,\s]*)\]", call.operator.text)
        for name in ("batching_dims", "contracting_dims")
    }
    axes: dict[str, list[list[int]]] = {
        name: [[int(n) for n in m[at].split(",") if n.strip()] for at in (1, 2)] if m else [[], []]
        for name, m in match.items()
    }
    if call.operator.op.endswith(".dot"):
        axes["contracting_dims"] = [[len(a) - 1], [0]]
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    left, right = [""] * len(a), [""] * len(b)
    out = []
    for name in ("batching_dims", "contracting_dims"):
        for i, j in zip(*axes[name], strict=True):
            left[i] = right[j] = next(letters)
            if name == "batching_dims":
                out.append(left[i])
    for side in (left, right):
        for at, letter in enumerate(side):
            if not letter:
                side[at] = next(letters)
                out.append(side[at])
    equation = f"{''.join(left)},{''.join(right)}->{''.join(out)}"
    return layers.einsum(call.tape, equation, [call[0], call[1]])


@operator("convolution")
def convolution(call: HloCall) -> Result:
    """Any layout: turned to channels second and back."""
    match = re.search(r"dim_numbers = \[([\w,\s]*)\]x\[([\w,\s]*)\]->\[([\w,\s]*)\]",
                      call.operator.text)  # fmt: skip
    if match is None or call.integer("batch_group_count", 1) != 1:
        raise NotTranslated
    x_axes, w_axes, y_axes = ([item.strip() for item in match[at].split(",")] for at in (1, 2, 3))
    space = [str(at) for at in range(len(x_axes) - 2)]
    tape = call.tape
    x = tape.permute(call[0], [x_axes.index(item) for item in ("b", "f", *space)])
    weight = tape.permute(call[1], [w_axes.index(item) for item in ("o", "i", *space)])
    window = re.search(r"window = \{(.*?)\}", call.operator.text)
    said = window[1] if window else ""
    dilated = re.search(r"lhs_dilate = \[([\d,\s]*)\]", said)
    padding = re.search(r"pad = (\[\[.*?\]\])", said)
    zeros = bool(dilated and set(dilated[1].replace(" ", "").split(",")) - {"1"})
    zeros = zeros or bool(padding and re.search(r"[1-9]", padding[1]))
    shape = tuple(call.shape[y_axes.index(item)] for item in ("b", "f", *space))
    groups = call.integer("feature_group_count", 1)
    if groups * tape.shape(weight)[1] != tape.shape(x)[1]:
        raise NotTranslated
    arguments = {
        "input": Ref(x), "weight": Ref(weight), "groups": groups,
        "padding": [int(zeros)] * len(space),
    }  # fmt: skip
    made = tape.node("convolution", arguments, shape)
    order = ["b", "f", *space]
    return tape.permute(made, [order.index(item) for item in y_axes])


@operator("reduce_window")
def reduce_window(call: HloCall) -> Result:
    """The largest or the sum of windows over all axes but two."""
    body = re.findall(r"stablehlo\.(maximum|add) ", call.operator.text)
    rank = len(call.shape)
    sizes = call.integers("window_dimensions")
    if len(body) != 1 or len(call.inputs) != 2 or len(sizes) != rank:
        raise NotTranslated
    neutral = -math.inf if body[0] == "maximum" else 0.0
    if single(call.known(1)) != neutral:
        raise NotTranslated
    still = [axis for axis, n in enumerate(sizes) if n == 1]
    space = rank - 2
    if not 1 <= space <= 3 or len(still) < 2:
        raise NotTranslated
    kept = [still[0], still[-1]]
    order = [*kept, *(axis for axis in range(rank) if axis not in kept)]
    padded = any(map(any, call.pairs("padding", rank)))
    if set(call.integers("base_dilations", [1])) != {1}:
        raise NotTranslated
    x = call.tape.permute(call[0], order)
    kind = "max" if body[0] == "maximum" else "avg"
    arguments = {"self": Ref(x), "padding": [int(padded)] * space, "count_include_pad": True}
    shape = tuple(call.shape[axis] for axis in order)
    made = call.tape.node(f"{kind}_pool{space}d", arguments, shape)
    if kind == "avg":  # the sum: another number than the mean, which a later operator may see
        made = call.tape.binary("mul", made, np.asarray(float(math.prod(sizes))))
    return call.tape.permute(made, [order.index(axis) for axis in range(rank)])


@operator("gather")
def gather(call: HloCall) -> Result:
    """Rows of a table."""
    table: Operand = call[0]
    own, indices = call.tape.shape(table), call.tape.shape(call[1])
    text = call.operator.text
    rows = len(own) == 2 and call.integers("slice_sizes", []) == [1, own[1]]
    numbers = all(
        re.search(rf"{name} = \[0\]", text) for name in ("collapsed_slice_dims", "start_index_map")
    )
    last = f"index_vector_dim = {len(indices) - 1}" in text and indices[-1:] == (1,)
    offset = f"offset_dims = [{len(indices) - 1}]" in text
    if not (rows and numbers and last and offset):
        raise NotTranslated
    return layers.embedding(call.tape, table, call.tape.view(call[1], indices[:-1]))
