"""Images taken apart into patches or channels and put together again."""

from __future__ import annotations

from smdlens.symmetry.forms import IdArray
from smdlens.symmetry.model_graph import Shape
from smdlens.symmetry.rules.call import Call, NotCovered, Result, rule
from smdlens.symmetry.rules.movement import moved, reshaped
from smdlens.symmetry.values import Term, Value


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


@rule("view_as_complex", "view_as_real")
def complex_pairs(call: Call) -> Result:
    """(..., 2) real <-> (...) complex: both parts of a number are of one degree."""
    value = call.value("self")
    term = call.engine.one_term(value)
    if call.node.op == "view_as_real":
        return Value(call.shape, (Term(term.degree[..., None], None, term.taint),))
    degree = call.engine.unify(term.degree, (-1,))
    return Value(call.shape, (Term(degree[..., 0], None, term.taint),))


@rule("diagonal", "diagonal_copy", "tril", "triu")
def triangle(call: Call) -> Result:
    """Some elements, or the others set to zero."""
    term = call.engine.one_term(call.value("self"))
    degree = call.engine.unify(term.degree, range(term.degree.ndim))
    return Value(call.shape, (Term(degree.reshape((1,) * len(call.shape)), None, term.taint),))
