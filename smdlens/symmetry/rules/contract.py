"""Contractions: linear maps, convolutions, matrix products.

A product's degree is the sum of its factors'; what is summed over must be of one degree. Each
summand of the left is paired with each of the right, and is constant along an output axis where
neither factor varies along it.
"""

from __future__ import annotations

from smdlens.symmetry.engine import MOST_PRODUCTS, Engine
from smdlens.symmetry.forms import IdArray
from smdlens.symmetry.model_graph import Shape
from smdlens.symmetry.rules.call import Call, NotCovered, Result, rule
from smdlens.symmetry.rules.movement import reshaped
from smdlens.symmetry.values import Term, Value, fresh_labels, varies


def contracted(
    engine: Engine, a: Value, a_axes: str, b: Value, b_axes: str, out_axes: str, shape: Shape
) -> Value:
    """`einsum(a_axes, b_axes -> out_axes)`; every letter once per operand.

    Args:
        engine: Takes the constraints.
        a: First operand; an axis of length 1 broadcasts.
        a_axes: A letter per axis of `a`.
        b: Second operand.
        b_axes: A letter per axis of `b`.
        out_axes: Letters of the result; the others are summed over.
        shape: Shape of the result.
    """
    if len(a.terms) * len(b.terms) > MOST_PRODUCTS:
        a, b = engine.single(a), engine.single(b)
    summed = "".join(dict.fromkeys(c for c in a_axes + b_axes if c not in out_axes))
    order = out_axes + summed
    over = tuple(range(len(out_axes), len(order)))
    terms: list[Term] = []
    for x in a.terms:
        left = _aligned(x.degree, a_axes, order)
        for y in b.terms:
            right = _aligned(y.degree, b_axes, order)
            first = engine.unify(left, [axis for axis in over if right.shape[axis] == 1])
            second = engine.unify(right, [axis for axis in over if left.shape[axis] == 1])
            degree = engine.unify(engine.plus(first, second), over)
            degree = degree.reshape(degree.shape[: len(out_axes)])
            free = [
                _is_free(x, a.shape, a_axes, letter) and _is_free(y, b.shape, b_axes, letter)
                for letter in out_axes
            ]
            constant = any(f and size > 1 for f, size in zip(free, shape, strict=True))
            labels = (
                fresh_labels(1 if f else size for f, size in zip(free, shape, strict=True))
                if constant
                else None
            )
            terms.append(Term(degree, labels, x.taint | y.taint))
    return engine.sum_of(shape, terms)


def _aligned(array: IdArray, axes: str, order: str) -> IdArray:
    """The array with its axes in the given order and length 1 where it has none."""
    present = [axes.index(letter) for letter in order if letter in axes]
    moved = array.transpose(present)
    shape = iter(moved.shape)
    return moved.reshape([next(shape) if letter in axes else 1 for letter in order])


def _is_free(term: Term, shape: Shape, axes: str, letter: str) -> bool:
    return letter not in axes or not varies(term, shape, axes.index(letter))


def with_bias(engine: Engine, value: Value, bias: Value | None, axis: int) -> Value:
    """Adds a vector along one axis."""
    if bias is None:
        return value
    rank = len(value.shape)
    shape = tuple(bias.shape[0] if at == axis % rank else 1 for at in range(rank))
    terms = tuple(
        Term(
            t.degree.reshape([-1 if at == axis % rank else 1 for at in range(rank)]),
            None
            if t.labels is None
            else t.labels.reshape([-1 if at == axis % rank else 1 for at in range(rank)]),
            t.taint,
        )
        for t in bias.terms
    )
    return engine.add(value, Value(shape, terms), value.shape)


def _letters(count: int, start: str) -> str:
    return "".join(chr(ord(start) + at) for at in range(count))


@rule("linear")
def linear(call: Call) -> Result:
    """X W^T + b."""
    x, weight = call.value("input"), call.value("weight")
    if len(weight.shape) != 2:
        raise NotCovered
    batch = _letters(len(x.shape) - 1, "A")
    result = contracted(call.engine, x, batch + "i", weight, "oi", batch + "o", call.shape)
    return with_bias(call.engine, result, call.optional("bias"), -1)


def product(engine: Engine, a: Value, b: Value, shape: Shape) -> Value:
    """Matrix product with broadcast leading axes."""
    rows = "m" if len(a.shape) > 1 else ""
    columns = "n" if len(b.shape) > 1 else ""
    batch = _letters(len(shape) - len(rows) - len(columns), "A")
    left = batch[len(batch) - max(len(a.shape) - 2, 0) :] if len(a.shape) > 2 else ""
    right = batch[len(batch) - max(len(b.shape) - 2, 0) :] if len(b.shape) > 2 else ""
    return contracted(
        engine, a, left + rows + "k", b, right + "k" + columns, batch + rows + columns, shape
    )


@rule("matmul", "bmm", "mm", "mv", "dot", "vdot")
def matmul(call: Call) -> Result:
    """A matrix product."""
    names = [name for name in call.node.arguments if call.is_tensor(name)]
    return product(call.engine, call.value(names[0]), call.value(names[1]), call.shape)


@rule("addmm", "baddbmm", "addbmm", "addmv")
def add_product(call: Call) -> Result:
    """C + A B, with numbers in front."""
    if call.node.op == "addbmm":
        raise NotCovered
    first, second = {
        "addmm": ("mat1", "mat2"), "baddbmm": ("batch1", "batch2"), "addmv": ("mat", "vec"),
    }[call.node.op]  # fmt: skip
    result = product(call.engine, call.value(first), call.value(second), call.shape)
    if call.number("beta", 1.0) == 0.0:
        return result
    return call.engine.add(result, call.value("self"), call.shape)


@rule("einsum")
def einsum(call: Call) -> Result:
    """Two operands, each letter at most once in each."""
    equation = str(call.node.arguments["equation"]).replace(" ", "")
    operands = call.listed("tensors")
    inputs, arrow, output = equation.partition("->")
    parts = inputs.split(",")
    if not arrow or "." in equation or len(parts) != len(operands):
        raise NotCovered
    if any(len(set(part)) != len(part) for part in parts) or len(operands) > 2:
        raise NotCovered
    if len(operands) == 1:
        one = call.engine.scalar(())
        return contracted(call.engine, operands[0], parts[0], one, "", output, call.shape)
    return contracted(call.engine, operands[0], parts[0], operands[1], parts[1], output, call.shape)


@rule("transformers.grouped_mm_fallback", "_grouped_mm")
def grouped_product(call: Call) -> Result:
    """Rows by the matrix of the expert that the data picks: experts are of one degree."""
    engine = call.engine
    rows, experts = (call.value(name) for name in list(call.node.arguments)[:2])
    if len(rows.shape) != 2 or len(experts.shape) != 3:
        raise NotCovered
    term = engine.one_term(experts)
    taint = engine.require_zero(call.value("offs")) if call.has("offs") else 0
    degree = engine.unify(term.degree, (0,))[0]
    matrix = Value(experts.shape[1:], (Term(degree, None, term.taint | taint),))
    return contracted(engine, rows, "sk", matrix, "kn", "sn", call.shape)


@rule("outer", "ger")
def outer(call: Call) -> Result:
    """Every product of two vectors' elements."""
    names = list(call.node.arguments)
    return contracted(
        call.engine, call.value(names[0]), "a", call.value(names[1]), "b", "ab", call.shape
    )


def _is_padded(call: Call, weight: Shape) -> bool:
    padding = call.node.arguments.get("padding")
    if padding == "same":
        return any(size > 1 for size in weight[2:])
    if isinstance(padding, list | tuple):
        return any(padding)
    return padding not in (None, 0, "valid")


@rule("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d",
      "conv_transpose3d")  # fmt: skip
def convolution(call: Call) -> Result:
    """Per group: a linear map from the channels under the window, the same at every place."""
    x, weight = call.value("input"), call.engine.single(call.value("weight"))
    transposed = "transpose" in call.node.op or call.flag("transposed")
    groups = call.integer("groups", 1)
    space = len(weight.shape) - 2
    if len(x.shape) != space + 2:
        raise NotCovered
    padded = _is_padded(call, weight.shape)
    spatial = tuple(range(2, space + 2))
    engine = call.engine
    w = weight.terms[0]
    kernel = engine.unify(w.degree, spatial)
    kernel = kernel.reshape(kernel.shape[:2])
    inner, outer_ = weight.shape[1], weight.shape[0] // groups
    if transposed:  # stored (in, out / groups, ...)
        w_shape: Shape = (groups, weight.shape[0] // groups, weight.shape[1])
        w_axes, out_channels = "gio", weight.shape[1]
    else:
        w_shape, w_axes, out_channels = (groups, outer_, inner), "goi", outer_
    w_value = Value(w_shape, (Term(reshaped(kernel, weight.shape[:2], w_shape), None, w.taint),))
    n, channels = x.shape[:2]
    terms: list[Term] = []
    for term in x.terms:
        flat = engine.unify(term.degree, spatial).reshape(term.degree.shape[:2])
        still = not any(varies(term, x.shape, axis) for axis in spatial)
        split = (n, groups, channels // groups)
        x_value = Value(split, (Term(reshaped(flat, (n, channels), split), None, term.taint),))
        result = contracted(
            engine, x_value, "ngi", w_value, w_axes, "ngo", (n, groups, out_channels)
        ).terms[0]
        degree = reshaped(result.degree, (n, groups, out_channels), (n, groups * out_channels))
        degree = degree.reshape(degree.shape + (1,) * space)
        own: IdArray | None = None
        # Only a window that never leaves the image sees the same sum at every place.
        if still and not padded and not transposed:
            row = 1 if term.labels is not None and term.labels.shape[0] == 1 else n
            own = fresh_labels((row, groups * out_channels) + (1,) * space)
        terms.append(Term(degree, own, result.taint))
    result_value = engine.sum_of(call.shape, terms)
    return with_bias(engine, result_value, call.optional("bias"), 1)
