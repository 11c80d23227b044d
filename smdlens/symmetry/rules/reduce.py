"""Reductions and pooling: what is reduced over must be of one degree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smdlens.symmetry.engine import taint_of
from smdlens.symmetry.forms import IdArray
from smdlens.symmetry.model_graph import Shape
from smdlens.symmetry.rules.call import Call, NotCovered, Result, rule
from smdlens.symmetry.values import Term, Value, constant_along, fresh_labels, varies

# What these make of equal numbers is that number.
_KEEPING = ("mean", "amax", "amin", "max", "min", "var_mean", "std_mean")


def _reduced(call: Call, term: Term, shape: Shape, axes: Sequence[int], keep: bool) -> Term:
    """A sum, mean or extremum of one summand over axes."""
    degree = call.engine.unify(term.degree, axes)
    labels: IdArray | None = None
    key = None
    if term.labels is not None and call.node.op in _KEEPING and constant_along(term, shape, axes):
        labels, key = term.labels, term.key
        for axis in axes:
            labels = labels.take([0], axis=axis)
    elif term.labels is not None:
        labels = fresh_labels(
            shape[at] if varies(term, shape, at) and at not in axes else 1
            for at in range(len(shape))
        )
    if not keep:
        degree = degree.squeeze(tuple(axes))
        labels = None if labels is None else labels.squeeze(tuple(axes))
    return (
        Term(degree, labels, term.taint) if key is None else Term(degree, labels, term.taint, key)
    )


@rule("mean", "sum", "nansum")
def mean(call: Call) -> Result:
    """Each summand on its own."""
    value = call.value("self")
    if not value.shape:
        return value
    axes, keep = call.axes("dim", len(value.shape)), call.flag("keepdim")
    terms = [_reduced(call, t, value.shape, axes, keep) for t in value.terms]
    result = call.engine.sum_of(call.shape, terms, apart=call.node.op == "mean")
    # Without its axes a mean still lies under its value where they are the leading ones.
    aligned = keep or axes == list(range(len(axes)))
    is_mean = call.node.op == "mean" and aligned
    return Value(
        result.shape,
        result.terms,
        value.moment,
        mean_of=(value, tuple(axes)) if is_mean else None,
    )


@rule("amax", "amin", "max", "min", "maximum_reduce", "prod_")
def extremum(call: Call) -> Result:
    """The largest element; without its axis the largest of all."""
    if call.is_tensor("other"):
        both = call.engine.one_term(
            call.engine.add(call.value("self"), call.value("other"), call.shape)
        )
        return Value(call.shape, (Term(both.degree, None, both.taint),))
    value = call.value("self")
    if not value.shape:
        return value
    engine = call.engine
    axes, keep = call.axes("dim", len(value.shape)), call.flag("keepdim")
    # max(x + c) = max(x) + c: what is constant along the axes stays a summand of its own.
    still = [t for t in value.terms if constant_along(t, value.shape, axes)]
    others = tuple(t for t in value.terms if not any(t is s for s in still))
    kept = [*([engine.one_term(Value(value.shape, others))] if others else []), *still]
    terms = [_reduced(call, t, value.shape, axes, keep) for t in kept]
    result = engine.sum_of(call.shape, terms)
    result = Value(result.shape, result.terms, value.moment)
    if not call.node.listed:
        return result
    taint = taint_of(value)
    return [result, *(engine.constant(shape, taint=taint) for shape in call.node.shapes[1:])]


@rule("argmax", "argmin")
def place_of_extremum(call: Call) -> Result:
    """Where the largest element lies does not depend on a common scale."""
    term = call.engine.one_term(call.value("self"))
    rank = len(call.value("self").shape)
    call.engine.unify(term.degree, call.axes("dim", rank))
    return call.engine.constant(call.shape, taint=term.taint)


@rule("sort", "topk", "cumsum", "logcumsumexp_", "cummax", "median")
def along_one_axis(call: Call) -> Result:
    """Elements of one axis in another order, or summed up along it."""
    value = call.value("self")
    term = call.engine.one_term(value)
    axis = call.integer("dim", -1) % len(value.shape)
    degree = call.engine.unify(term.degree, (axis,))
    if len(call.shape) != len(value.shape):
        raise NotCovered
    result = Value(call.shape, (Term(degree, None, term.taint),))
    if not call.node.listed:
        return result
    return [result, *(call.engine.constant(s, taint=term.taint) for s in call.node.shapes[1:])]


@rule("var", "std", "var_mean", "std_mean")
def variance(call: Call) -> Result:
    """Of degree two; what is constant along the axes does not vary."""
    value = call.value("self")
    axes, keep = call.axes("dim", len(value.shape)), call.flag("keepdim")
    engine = call.engine
    terms = engine.without_constants(value, axes)
    factor = 1 if call.node.op.startswith("std") else 2
    if terms:
        term = engine.one_term(Value(value.shape, terms))
        reduced = _reduced(call, term, value.shape, axes, keep)
        squared = Term(engine.times(reduced.degree, factor), reduced.labels, reduced.taint)
        spread = Value(call.shape, (squared,), moment=True)
    else:
        spread = Value(call.shape, engine.scalar(call.shape, 0.0).terms, moment=True)
    if not call.node.listed:
        return spread
    aligned = keep or axes == list(range(len(axes)))
    means = [_reduced(call, t, value.shape, axes, keep) for t in value.terms]
    mean_ = engine.sum_of(call.node.shapes[1], means, apart=True)
    return [
        spread,
        Value(mean_.shape, mean_.terms, mean_of=(value, tuple(axes)) if aligned else None),
    ]


@rule("norm", "linalg_vector_norm", "frobenius_norm")
def norm(call: Call) -> Result:
    """Of degree one for every order but zero."""
    value = call.value("self")
    order_name = "p" if call.node.op == "norm" else "ord"
    order = call.number(order_name, 2.0)
    if call.has(order_name) and (order is None or order == 0.0):
        raise NotCovered
    axes, keep = call.axes("dim", len(value.shape)), call.flag("keepdim")
    term = _reduced(call, call.engine.one_term(value), value.shape, axes, keep)
    return Value(call.shape, (term,), moment=True)


@rule("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "_adaptive_avg_pool2d",
      "avg_pool1d", "avg_pool2d", "avg_pool3d", "upsample_nearest1d", "upsample_nearest2d",
      "upsample_nearest3d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_linear1d",
      "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "_upsample_nearest_exact2d",
      "upsample_trilinear3d", "max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices",
      "max_pool3d_with_indices", "adaptive_max_pool1d", "adaptive_max_pool2d")  # fmt: skip
def resample(call: Call) -> Result:
    """Averages or extrema over windows: a summand constant over the image stays what it is."""
    first = "input" if "input" in call.node.arguments else "self"
    value = call.value(first)
    op = call.node.op
    pools_zeros = op.startswith("avg_pool") and (
        (any(call.integers("padding")) and call.flag("count_include_pad", True))
        or call.has("divisor_override")
    )
    space = next(count for count in (1, 2, 3) if f"{count}d" in op)
    axes = tuple(range(len(value.shape) - space, len(value.shape)))
    terms: list[Term] = []
    still = [t for t in value.terms if _still(t, value.shape, axes) and not pools_zeros]
    others = tuple(t for t in value.terms if not any(t is s for s in still))
    if others:
        merged = call.engine.one_term(Value(value.shape, others))
        terms.append(Term(call.engine.unify(merged.degree, axes), None, merged.taint))
    terms += [Term(call.engine.unify(t.degree, axes), t.labels, t.taint, t.key) for t in still]
    result = call.engine.sum_of(call.shape, terms)
    if not call.node.listed:
        return result
    return [result, *(call.engine.constant(shape) for shape in call.node.shapes[1:])]


def _still(term: Term, shape: Shape, axes: Sequence[int]) -> bool:
    return term.labels is not None and not any(varies(term, shape, axis) for axis in axes)


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", "softmin")
def softmax(call: Call) -> Result:
    """Blind to what is constant along its axis; of the rest it sees every scale."""
    value = call.value("self")
    axis = call.integer("dim", -1) % len(value.shape)
    if value.shape[axis] == 1:
        return call.engine.scalar(call.shape, 0.0 if "log" in call.node.op else 1.0)
    kept = call.engine.without_constants(value, (axis,))
    taint = call.engine.require_zero(Value(value.shape, kept)) if kept else 0
    return call.engine.constant(call.shape, taint=taint)


@rule("embedding")
def embedding(call: Call) -> Result:
    """Rows picked by the data: all of one degree."""
    term = call.engine.one_term(call.value("weight"))
    taint = call.engine.require_zero(call.value("indices"))
    degree = call.engine.unify(term.degree, (0,))
    degree = degree.reshape((1,) * (len(call.shape) - 1) + (degree.shape[-1],))
    return Value(call.shape, (Term(degree, None, term.taint | taint),))


@rule("index", "index_select", "gather", "take", "take_along_dim")
def index(call: Call) -> Result:
    """Elements picked by the data along some axes: of one degree along these."""
    value = call.value("self")
    term = call.engine.one_term(value)
    taint = term.taint
    if call.node.op == "index_select":
        axis = call.integer("dim", 0) % len(value.shape)
        taint |= call.engine.require_zero(call.value("index"))
        degree = call.engine.unify(term.degree, (axis,))
        return Value(call.shape, (Term(degree, None, taint),))
    degree = call.engine.unify(term.degree, range(term.degree.ndim))
    for name, argument in call.node.arguments.items():
        if name in ("index", "indices") and argument is not None:
            for picked in call.listed(name):
                taint |= call.engine.require_zero(picked)
    return Value(call.shape, (Term(np.full((1,) * len(call.shape), degree.flat[0]), None, taint),))
