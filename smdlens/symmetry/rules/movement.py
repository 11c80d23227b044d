"""Data movement: the operator itself, executed on the arrays of ids.

An axis of length 1 in an array stands for "the same along all of it", so each operator is written
to leave such axes alone where it can.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from smdlens.symmetry.forms import IdArray, compressed
from smdlens.symmetry.model_graph import Shape
from smdlens.symmetry.rules.call import Call, NotCovered, Result, rule
from smdlens.symmetry.values import Term, Value, labelled


def moved(value: Value, shape: Shape, move: Callable[[IdArray], IdArray]) -> Value:
    """The value after a movement that acts on compressed arrays of its rank."""
    terms = tuple(
        Term(
            compressed(move(term.degree)),
            compressed(move(term.labels)),
            term.taint,
            term.key,
        )
        if term.labels is not None
        else Term(compressed(move(term.degree)), None, term.taint)
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
    for old_axes, new_axes in blocks(old, new):
        sizes = [array.shape[axis] for axis in old_axes]
        if all(size == 1 for size in sizes):
            spread += sizes
            result += [1] * len(new_axes)
        else:
            spread += [old[axis] for axis in old_axes]
            result += [new[axis] for axis in new_axes]
    return np.broadcast_to(array, spread).reshape(result)


def blocks(old: Shape, new: Shape) -> list[tuple[list[int], list[int]]]:
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


@rule("copy")
def copy(call: Call) -> Result:
    """The second operand in the place of the first."""
    return call.engine.broadcast(call.value("src"), call.shape)
