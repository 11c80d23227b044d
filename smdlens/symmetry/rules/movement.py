"""Data movement: the operator itself, executed on the arrays of ids.

An axis of length 1 in an array stands for "the same along all of it", so each operator is written
to leave such axes alone where it can.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from smdlens.symmetry.engine import Engine
from smdlens.symmetry.forms import ANY, IdArray, compressed
from smdlens.symmetry.model_graph import Shape
from smdlens.symmetry.rules.call import Call, NotCovered, Result, rule
from smdlens.symmetry.values import Term, Value, labelled


def moved(value: Value, shape: Shape, move: Callable[[IdArray], IdArray]) -> Value:
    """The value after a movement that acts on compressed arrays of its rank."""
    terms = tuple(
        Term(
            compressed(move(term.degree)),
            None if term.labels is None else compressed(move(term.labels)),
            term.taint,
        )
        for term in value.terms
    )
    return Value(shape, terms, value.moment, value.regularised)


@rule(
    "dropout", "feature_dropout", "alpha_dropout", "to", "_to_copy", "contiguous", "alias",
    "type_as", "detach", "detach_", "clone", "lift_fresh_copy", "lift_fresh", "native_dropout",
    "_assert_tensor_metadata", "positive", "conj", "resolve_conj", "float", "double", "half",
    "bfloat16", "expand_copy_", "prims.convert_element_type", "convert_element_type", "cpu",
)  # fmt: skip
def identity(call: Call) -> Result:
    """Nothing happens to the numbers; a cast to integers is a rounding and not covered."""
    if not call.node.floating:
        raise NotCovered
    value = call.value(next(iter(call.node.arguments)))
    if call.node.op.startswith("detach"):
        for term in value.terms:
            call.engine.detached |= term.taint
    if call.node.listed:
        return [value, *(call.engine.constant(s) for s in call.node.shapes[1:])]
    return value


def reshaped(array: IdArray, old: Shape, new: Shape) -> IdArray:
    """`array`, compressed for shape `old`, seen as shape `new` and compressed where possible."""
    if array.size == 1:
        return array.reshape((1,) * len(new))
    if 0 in old or 0 in new:
        raise NotCovered
    spread: list[int] = []
    result: list[int] = []
    for old_axes, new_axes in _blocks(old, new):
        sizes = [array.shape[axis] for axis in old_axes]
        if all(size == 1 for size in sizes):
            spread += sizes
            result += [1] * len(new_axes)
        else:
            spread += [old[axis] for axis in old_axes]
            result += [new[axis] for axis in new_axes]
    return np.broadcast_to(array, spread).reshape(result)


def _blocks(old: Shape, new: Shape) -> list[tuple[list[int], list[int]]]:
    """Runs of axes on both sides that hold the same elements."""
    blocks: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        left, right = [], []
        a = b = 1
        if i < len(old):
            left, a, i = [i], old[i], i + 1
        if j < len(new):
            right, b, j = [j], new[j], j + 1
        while a != b:
            if (a < b and i < len(old)) or j >= len(new):
                left.append(i)
                a, i = a * old[i], i + 1
            else:
                right.append(j)
                b, j = b * new[j], j + 1
        blocks.append((left, right))
    return blocks


@rule("view", "reshape", "_unsafe_view", "flatten", "unflatten", "reshape_as", "view_as")
def reshape(call: Call) -> Result:
    """Same elements in the same order."""
    value = call.value("self")
    return moved(value, call.shape, lambda a: reshaped(a, value.shape, call.shape))


@rule("squeeze", "unsqueeze", "squeeze_copy", "unsqueeze_copy")
def add_or_drop_axes(call: Call) -> Result:
    """Axes of length 1 come or go."""
    return reshape(call)


@rule("permute", "permute_copy")
def permute(call: Call) -> Result:
    """Axes in another order."""
    value = call.value("self")
    order = [axis % len(value.shape) for axis in call.integers("dims")]
    return moved(value, call.shape, lambda a: a.transpose(order))


@rule("transpose", "t", "swapaxes", "numpy_T", "mT", "adjoint")
def transpose(call: Call) -> Result:
    """Two axes change places."""
    value = call.value("self")
    if len(value.shape) < 2:
        return value
    whole = call.node.op in ("t", "numpy_T")
    first = call.integer("dim0", 0 if whole else -2)
    second = call.integer("dim1", 1 if whole else -1)
    return moved(value, call.shape, lambda a: a.swapaxes(first, second))


@rule("expand", "broadcast_to", "expand_as", "expand_copy")
def expand(call: Call) -> Result:
    """The same numbers, repeated: constant along the new axes."""
    return call.engine.broadcast(call.value("self"), call.shape)


def along(array: IdArray, axis: int, pick: Callable[[IdArray], IdArray]) -> IdArray:
    """`pick` along an axis that is spelled out; a uniform one stays as it is."""
    return array if array.shape[axis] == 1 else pick(array)


def sliced(value: Value, shape: Shape, axis: int, part: slice | IdArray) -> Value:
    """Some positions along one axis (an array of positions may repeat some)."""

    def pick(array: IdArray) -> IdArray:
        index: list[slice | IdArray] = [slice(None)] * array.ndim
        index[axis] = part
        return array[tuple(index)]

    if isinstance(part, np.ndarray) and np.unique(part).size < part.size:
        # A repeated position is not a position of its own: only labels say so.
        terms = tuple(Term(t.degree, labelled(t, value.shape), t.taint) for t in value.terms)
        value = Value(value.shape, terms, value.moment, value.regularised)
    return moved(value, shape, lambda a: along(a, axis, pick))


@rule("slice", "slice_copy", "narrow")
def slice_(call: Call) -> Result:
    """A range of positions along one axis."""
    value = call.value("self")
    call.engine.taken_apart(value)
    axis = call.integer("dim", 0) % len(value.shape)
    if call.node.op == "narrow":
        start = call.integer("start", 0)
        return sliced(value, call.shape, axis, slice(start, start + call.integer("length", 1)))
    start, end = call.integer("start", 0), call.integer("end", value.shape[axis])
    return sliced(value, call.shape, axis, slice(start, end, call.integer("step", 1)))


@rule("select", "select_copy")
def select(call: Call) -> Result:
    """One position along one axis."""
    value = call.value("self")
    call.engine.taken_apart(value)
    axis = call.integer("dim", 0) % len(value.shape)
    at = call.integer("index", 0) % value.shape[axis]
    kept = (*value.shape[:axis], 1, *value.shape[axis + 1 :])
    row = sliced(value, kept, axis, slice(at, at + 1))
    return moved(row, call.shape, lambda a: a.squeeze(axis))


@rule("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split", "unsafe_chunk",
      "split_copy", "split_with_sizes_copy")  # fmt: skip
def split(call: Call) -> Result:
    """Consecutive ranges along one axis; their lengths are those of the outputs."""
    value = call.value("self")
    call.engine.taken_apart(value)
    axis = call.integer("dim", 0) % len(value.shape)
    parts: list[Value] = []
    start = 0
    for shape in call.node.shapes:
        parts.append(sliced(value, shape, axis, slice(start, start + shape[axis])))
        start += shape[axis]
    if start != value.shape[axis]:
        raise NotCovered
    return parts


@rule("unbind", "unbind_copy")
def unbind(call: Call) -> Result:
    """All positions along one axis, one by one."""
    value = call.value("self")
    call.engine.taken_apart(value)
    axis = call.integer("dim", 0) % len(value.shape)
    kept = (*value.shape[:axis], 1, *value.shape[axis + 1 :])
    return [
        moved(sliced(value, kept, axis, slice(at, at + 1)), shape, lambda a: a.squeeze(axis))
        for at, shape in enumerate(call.node.shapes)
    ]


@rule("getitem")
def getitem(call: Call) -> Result:
    """One item of a sequence of values."""
    return call.listed("self")[call.integer("index", 0)]


@rule("flip", "roll")
def reorder(call: Call) -> Result:
    """Positions along some axes in another order."""
    value = call.value("self")
    axes = call.integers("dims")
    if not axes:
        raise NotCovered
    if call.node.op == "flip":
        return moved(value, call.shape, lambda a: np.flip(a, tuple(axes)))
    shifts = call.integers("shifts")
    return moved(value, call.shape, lambda a: np.roll(a, shifts, axes))


@rule("repeat", "tile")
def repeat(call: Call) -> Result:
    """The whole value several times along its axes."""
    value = call.value("self")
    extra = len(call.shape) - len(value.shape)
    value = call.engine.broadcast(value, (1,) * extra + value.shape)
    for axis, (old, new) in enumerate(zip(value.shape, call.shape, strict=True)):
        if old != new:
            kept = (*value.shape[:axis], new, *value.shape[axis + 1 :])
            value = sliced(_with_labels(value), kept, axis, np.arange(new) % old)
    return value


@rule("repeat_interleave")
def repeat_interleave(call: Call) -> Result:
    """Each position several times in a row."""
    value = call.value("self")
    axis = call.integer("dim", 0) % len(value.shape)
    times = call.integer("repeats", 1)
    return sliced(
        _with_labels(value), call.shape, axis, np.arange(call.shape[axis], dtype=np.int64) // times
    )


def _with_labels(value: Value) -> Value:
    terms = tuple(Term(t.degree, labelled(t, value.shape), t.taint) for t in value.terms)
    return Value(value.shape, terms, value.moment, value.regularised)


def joined(engine: Engine, parts: list[Value], shape: Shape, axis: int) -> Value:
    """Values one after the other along an axis; each summand is zero outside its own part."""
    parts = [part for part in parts if len(part.shape) == len(shape)]
    terms: list[Term] = []
    starts = np.cumsum([0, *(part.shape[axis] for part in parts)]).tolist()
    mains = [(at, part.terms[0]) for at, part in enumerate(parts)]
    terms.append(_main(parts, mains, shape, axis))
    for at, part in enumerate(parts):
        terms += [_padded(t, part.shape, shape, axis, starts[at]) for t in part.terms[1:]]
    return engine.sum_of(shape, terms)


def _main(
    parts: list[Value], mains: list[tuple[int, Term]], shape: Shape, axis: int
) -> Term:  # fmt: skip
    degrees: list[IdArray] = []
    labels: list[IdArray] = []
    taint = offset = 0
    plain = all(term.labels is None for _, term in mains)
    sizes = np.broadcast_shapes(*(_without(term.degree.shape, axis) for _, term in mains))
    for at, term in mains:
        length = parts[at].shape[axis]
        degrees.append(np.broadcast_to(term.degree, _with(sizes, axis, length)))
        taint |= term.taint
    degree = compressed(np.concatenate(degrees, axis=axis))
    if plain:
        return Term(degree, None, taint)
    spelled = [labelled(term, parts[at].shape) for at, term in mains]
    sizes = np.broadcast_shapes(*(_without(a.shape, axis) for a in spelled))
    for (at, _), own in zip(mains, spelled, strict=True):
        labels.append(np.broadcast_to(own, _with(sizes, axis, parts[at].shape[axis])) + offset)
        offset += int(own.max(initial=0)) + 1
    return Term(degree, np.concatenate(labels, axis=axis), taint)


def _padded(term: Term, own: Shape, shape: Shape, axis: int, start: int) -> Term:
    """A summand that exists between start and start + its length, zero elsewhere."""
    labels = labelled(term, own)
    degree = np.full(_with(_without(term.degree.shape, axis), axis, shape[axis]), ANY, np.int64)
    outer = np.full(_with(_without(labels.shape, axis), axis, shape[axis]), 0, np.int64)
    place: list[slice] = [slice(None)] * len(shape)
    place[axis] = slice(start, start + own[axis])
    degree[tuple(place)] = term.degree
    outer[tuple(place)] = labels + 1
    return Term(degree, outer, term.taint)


def _without(shape: Shape, axis: int) -> Shape:
    return (*shape[:axis], 1, *shape[axis + 1 :])


def _with(shape: Shape, axis: int, length: int) -> Shape:
    return (*shape[:axis], length, *shape[axis + 1 :])


@rule("cat", "concat", "concatenate")
def cat(call: Call) -> Result:
    """Values one after the other."""
    axis = call.integer("dim", 0) % len(call.shape)
    return joined(call.engine, call.listed("tensors"), call.shape, axis)


@rule("stack")
def stack(call: Call) -> Result:
    """Values one after the other along a new axis."""
    axis = call.integer("dim", 0) % len(call.shape)
    rows: list[Value] = []
    for part in call.listed("tensors"):
        shape = (*part.shape[:axis], 1, *part.shape[axis:])
        rows.append(moved(part, shape, lambda a: np.expand_dims(a, axis)))
    return joined(call.engine, rows, call.shape, axis)


@rule("slice_scatter", "select_scatter")
def scatter_range(call: Call) -> Result:
    """One value with a range of another in it (an assignment to a slice)."""
    value, source = call.value("self"), call.value("src")
    call.engine.taken_apart(value)
    axis = call.integer("dim", 0) % len(value.shape)
    length = value.shape[axis]
    if call.node.op == "select_scatter":
        at = call.integer("index", 0) % length
        start, end, step = at, at + 1, 1
        source = moved(
            source, (*value.shape[:axis], 1, *value.shape[axis + 1 :]),
            lambda a: np.expand_dims(a, axis),
        )  # fmt: skip
    else:
        start, end, step = slice(
            call.integer("start", 0), call.integer("end", length), call.integer("step", 1)
        ).indices(length)
    if step != 1:
        raise NotCovered
    before = sliced(value, _with(value.shape, axis, start), axis, slice(0, start))
    after = sliced(value, _with(value.shape, axis, length - end), axis, slice(end, length))
    parts = [part for part in (before, source, after) if math.prod(part.shape)]
    return joined(call.engine, parts, call.shape, axis)


def rearranged(value: Value, split: Shape, order: list[int], shape: Shape) -> Value:
    """Axes split, put into another order and joined again."""
    turned = tuple(split[axis] for axis in order)

    def move(array: IdArray) -> IdArray:
        apart = reshaped(array, value.shape, split)
        return reshaped(apart.transpose(order), turned, shape)

    return moved(value, shape, move)


@rule("im2col", "col2im")
def patches(call: Call) -> Result:
    """Windows that tile the image: (N, C, nh kh, nw kw) <-> (N, C kh kw, nh nw)."""
    value = call.value("self")
    kernel, stride = call.integers("kernel_size"), call.integers("stride")
    if kernel != stride or any(call.integers("padding")) or set(call.integers("dilation")) != {1}:
        raise NotCovered
    kh, kw = kernel
    n, channels, height, width = value.shape if call.node.op == "im2col" else call.shape
    if height % kh or width % kw:
        raise NotCovered
    nh, nw = height // kh, width // kw
    if call.node.op == "im2col":
        split: Shape = (n, channels, nh, kh, nw, kw)
        return rearranged(value, split, [0, 1, 3, 5, 2, 4], call.shape)
    return rearranged(value, (n, channels, kh, kw, nh, nw), [0, 1, 4, 2, 5, 3], call.shape)


@rule("pixel_shuffle", "pixel_unshuffle")
def pixel_shuffle(call: Call) -> Result:
    """(N, C r r, H, W) <-> (N, C, H r, W r)."""
    value = call.value("self")
    if len(value.shape) != 4:
        raise NotCovered
    if call.node.op == "pixel_shuffle":
        r = call.integer("upscale_factor", 1)
        n, channels, height, width = value.shape
        split: Shape = (n, channels // (r * r), r, r, height, width)
        return rearranged(value, split, [0, 1, 4, 2, 5, 3], call.shape)
    r = call.integer("downscale_factor", 1)
    n, channels, height, width = value.shape
    split = (n, channels, height // r, r, width // r, r)
    return rearranged(value, split, [0, 1, 3, 5, 2, 4], call.shape)


@rule("unfold_copy", "unfold", "channel_shuffle")
def regroup(call: Call) -> Result:
    """Elements regrouped, some perhaps repeated: all of one degree."""
    term = call.engine.one_term(call.value("self"))
    degree = call.engine.unify(term.degree, range(term.degree.ndim))
    return Value(call.shape, (Term(degree.reshape((1,) * len(call.shape)), None, term.taint),))


@rule("copy")
def copy(call: Call) -> Result:
    """The second operand in the place of the first."""
    return call.engine.broadcast(call.value("src"), call.shape)


@rule("diagonal", "diagonal_copy", "tril", "triu")
def triangle(call: Call) -> Result:
    """Some elements, or the others set to zero."""
    term = call.engine.one_term(call.value("self"))
    degree = call.engine.unify(term.degree, range(term.degree.ndim))
    return Value(call.shape, (Term(degree.reshape((1,) * len(call.shape)), None, term.taint),))


@rule("constant_pad_nd", "pad", "reflection_pad1d", "reflection_pad2d", "replication_pad1d",
      "replication_pad2d", "replication_pad3d", "_pad_circular")  # fmt: skip
def pad(call: Call) -> Result:
    """New positions at the ends: zeros agree with every degree, copies repeat what is there."""
    value = call.value("self")
    widths = call.integers("pad", call.integers("padding"))
    mode = call.node.arguments.get("mode", "constant")
    copies = call.node.op not in ("constant_pad_nd", "pad") or mode != "constant"
    if copies:
        axes = [len(value.shape) - 1 - at // 2 for at in range(0, len(widths), 2)]
        terms = [
            Term(call.engine.unify(t.degree, axes), _kept(t, value, axes), t.taint)
            for t in value.terms
        ]
        return call.engine.sum_of(call.shape, terms)
    filling = call.number("value", 0.0)
    if filling != 0.0:
        raise NotCovered
    for at in range(0, len(widths), 2):
        axis = len(value.shape) - 1 - at // 2
        low, high = widths[at], widths[at + 1]
        if low < 0 or high < 0:
            raise NotCovered
        parts = [value]
        if low:
            parts.insert(0, call.engine.scalar(_with(value.shape, axis, low), 0.0))
        if high:
            parts.append(call.engine.scalar(_with(value.shape, axis, high), 0.0))
        if len(parts) > 1:
            value = joined(
                call.engine, parts, _with(value.shape, axis, value.shape[axis] + low + high), axis
            )
    return value


def _kept(term: Term, value: Value, axes: list[int]) -> IdArray | None:
    """Labels after copying along axes: only constancy along them survives."""
    if term.labels is None or any(term.labels.shape[axis] > 1 for axis in axes):
        return None
    return term.labels


@rule("zeros", "zeros_like", "new_zeros", "full", "full_like", "new_full", "ones", "ones_like",
      "new_ones", "fill", "scalar_tensor")  # fmt: skip
def filled(call: Call) -> Result:
    """One number everywhere, written in the graph."""
    if call.node.op == "fill":
        if call.is_tensor("value"):
            number = call.engine.single(call.value("value"))
            return call.engine.broadcast(number, call.shape)
        return call.engine.scalar(call.shape, call.number("value", 1.0) or 0.0)
    if "zeros" in call.node.op:
        return call.engine.scalar(call.shape, 0.0)
    if "ones" in call.node.op:
        return call.engine.scalar(call.shape, 1.0)
    name = "s" if call.node.op == "scalar_tensor" else "fill_value"
    if call.is_tensor(name):
        raise NotCovered
    number_ = call.number(name)
    return call.engine.scalar(call.shape, 1.0 if number_ is None else number_)


@rule("empty", "empty_like", "new_empty", "arange", "eye", "linspace", "rand", "randn",
      "rand_like", "randn_like", "sym_size", "is_pinned", "size")  # fmt: skip
def data_free(call: Call) -> Result:
    """Depends on no number of the network."""
    return call.engine.constant(call.shape)
