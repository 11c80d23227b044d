"""Values put together: concatenation, padding, writes into a range, filling."""

from __future__ import annotations

import math

import numpy as np

from smdlens.symmetry.engine import Engine
from smdlens.symmetry.forms import ANY, IdArray, compressed
from smdlens.symmetry.model_graph import Shape
from smdlens.symmetry.rules.call import Call, NotCovered, Result, rule
from smdlens.symmetry.rules.movement import moved, sliced
from smdlens.symmetry.values import Term, Value, labelled


def joined(engine: Engine, parts: list[Value], shape: Shape, axis: int) -> Value:
    """Values one after the other along an axis; each summand is zero outside its own part."""
    parts = [part for part in parts if len(part.shape) == len(shape) and part.shape[axis]]
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
