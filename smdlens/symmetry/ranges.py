"""Ranges of elements, and how each operator's reads follow from what is read of its result.

A box holds one half-open range per axis. An operator without a rule reads all of its inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

from smdlens.symmetry.model_graph import Node, Ref, Shape, references
from smdlens.symmetry.rules.movement import blocks

Range = tuple[int, int]
Box = tuple[Range, ...]
Needs = Iterator[tuple[str, Box | None]]
Backward = Callable[[Node, Box, Mapping[str, Shape]], Needs]
BACKWARD: dict[str, Backward] = {}


def full(shape: Shape) -> Box:
    """All of a value."""
    return tuple((0, size) for size in shape)


def hull(a: Box | None, b: Box | None) -> Box | None:
    """The smallest box that holds both; None is the empty one."""
    if a is None or b is None:
        return b if a is None else a
    return tuple((min(x[0], y[0]), max(x[1], y[1])) for x, y in zip(a, b, strict=True))


def _backward(*operators: str) -> Callable[[Backward], Backward]:
    def enter(function: Backward) -> Backward:
        BACKWARD.update(dict.fromkeys(operators, function))
        return function

    return enter


def _name(node: Node, argument: str) -> str | None:
    ref = node.arguments.get(argument)
    return ref.name if isinstance(ref, Ref) else None


def _integer(node: Node, argument: str, default: int) -> int:
    found = node.arguments.get(argument, default)
    return found if isinstance(found, int) else default


def _aligned(box: Box, shape: Shape) -> Box:
    """The box in an operand that is broadcast to it."""
    rest = box[len(box) - len(shape) :]
    return tuple(
        r if size > 1 else (0, size) for r, size in zip(rest, shape, strict=True)
    )  # fmt: skip


@_backward(
    "add", "_add", "sub", "rsub", "mul", "div", "maximum", "minimum", "where", "masked_fill", "pow",
    "relu", "leaky_relu", "gelu", "silu", "sigmoid", "tanh", "exp", "log", "abs", "neg", "sqrt",
    "rsqrt", "square", "reciprocal", "clamp", "clamp_min", "clamp_max", "hardtanh", "hardswish",
    "hardsigmoid", "elu", "selu", "softplus", "mish", "sin", "cos", "erf", "dropout", "to",
    "_to_copy", "clone", "contiguous", "alias", "detach", "type_as", "expand", "expand_as",
    "eq", "ne", "lt", "le", "gt", "ge", "logical_not", "prelu", "quick_gelu", "lift_fresh_copy",
)  # fmt: skip
def _pointwise(node: Node, box: Box, shapes: Mapping[str, Shape]) -> Needs:
    for argument in node.arguments.values():
        for name in references(argument):
            if len(shapes[name]) <= len(box):
                # A channel vector of prelu lies along axis 1: it is read as a whole.
                own = full(shapes[name]) if node.op == "prelu" and len(shapes[name]) == 1 else None
                yield name, own or _aligned(box, shapes[name])


@_backward("linear")
def _linear(node: Node, box: Box, shapes: Mapping[str, Shape]) -> Needs:
    x, weight, bias = (_name(node, a) for a in ("input", "weight", "bias"))
    if x is not None:
        yield x, (*box[:-1], (0, shapes[x][-1]))
    if weight is not None and len(shapes[weight]) == 2:
        yield weight, (box[-1], (0, shapes[weight][1]))
    if bias is not None:
        yield bias, (box[-1],)


@_backward("layer_norm", "rms_norm")
def _layer_norm(node: Node, box: Box, shapes: Mapping[str, Shape]) -> Needs:
    x, over = _name(node, "input"), node.arguments.get("normalized_shape")
    if x is not None and isinstance(over, list | tuple):
        count = len(box) - len(over)
        yield x, (*box[:count], *full(shapes[x])[count:])


@_backward("softmax", "_softmax", "log_softmax", "_log_softmax")
def _softmax(node: Node, box: Box, shapes: Mapping[str, Shape]) -> Needs:
    x = _name(node, "self")
    if x is not None and box:
        axis = _integer(node, "dim", -1) % len(box)
        yield x, (*box[:axis], (0, shapes[x][axis]), *box[axis + 1 :])


@_backward("matmul", "bmm", "mm")
def _matmul(node: Node, box: Box, shapes: Mapping[str, Shape]) -> Needs:
    names = [name for a in node.arguments.values() for name in references(a)]
    if len(names) != 2 or any(len(shapes[name]) < 2 for name in names):
        return
    a, b = names
    batch = box[:-2]
    left, right = shapes[a], shapes[b]
    if a == b or len(box) < 2:
        return
    yield a, (*_aligned(batch, left[:-2]), box[-2], (0, left[-1]))
    yield b, (*_aligned(batch, right[:-2]), (0, right[-2]), box[-1])


@_backward("scaled_dot_product_attention")
def _attention(node: Node, box: Box, shapes: Mapping[str, Shape]) -> Needs:
    for argument in ("query", "key", "value"):
        name = _name(node, argument)
        if name is not None and shapes[name][:-2] == node.shapes[0][:-2]:
            rows = box[-2] if argument == "query" else (0, shapes[name][-2])
            columns = box[-1] if argument == "value" else (0, shapes[name][-1])
            yield name, (*box[:-2], rows, columns)


@_backward("mean", "sum", "amax", "amin")
def _reduction(node: Node, box: Box, shapes: Mapping[str, Shape]) -> Needs:
    x, axes = _name(node, "self"), node.arguments.get("dim")
    if x is None or not isinstance(axes, list | tuple) or not axes:
        return
    rank = len(shapes[x])
    over = {axis % rank for axis in axes if isinstance(axis, int)}
    rest = iter(box)
    own: list[Range] = []
    for axis, size in enumerate(shapes[x]):
        if axis in over:
            own.append((0, size))
            if node.arguments.get("keepdim"):
                next(rest)
        else:
            own.append(next(rest))
    yield x, tuple(own)


@_backward("permute", "transpose", "t")
def _turned(node: Node, box: Box, shapes: Mapping[str, Shape]) -> Needs:
    x = _name(node, "self")
    if x is None:
        return
    rank = len(box)
    order = list(range(rank))
    dims = node.arguments.get("dims")
    if isinstance(dims, list | tuple):
        order = [int(axis) % rank for axis in dims]
    elif rank > 1:
        first, second = (0, 1) if node.op == "t" else (-2, -1)
        i, j = _integer(node, "dim0", first) % rank, _integer(node, "dim1", second) % rank
        order[i], order[j] = order[j], order[i]
    own: list[Range] = [(0, 0)] * rank
    for new, old in enumerate(order):
        own[old] = box[new]
    yield x, tuple(own)


@_backward("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze")
def _reshaped(node: Node, box: Box, shapes: Mapping[str, Shape]) -> Needs:
    x = _name(node, "self")
    if x is None or 0 in node.shapes[0] or 0 in shapes[x]:
        return
    own = list(full(shapes[x]))
    for old, new in blocks(shapes[x], node.shapes[0]):
        for axis, r in zip(old, _in_block(old, new, box, shapes[x], node.shapes[0]), strict=True):
            own[axis] = r
    yield x, tuple(own)


def _in_block(old: list[int], new: list[int], box: Box, before: Shape, after: Shape) -> list[Range]:
    """Ranges of the old axes that hold the elements of the new ones' ranges."""
    everything = [(0, before[axis]) for axis in old]
    wide = [axis for axis in new if after[axis] > 1]
    if not wide or any(box[axis] != (0, after[axis]) for axis in wide[1:]):
        return everything
    inner = math.prod(after[axis] for axis in wide[1:])
    low, high = box[wide[0]][0] * inner, box[wide[0]][1] * inner
    result = list(everything)
    for at, axis in enumerate(old):
        if before[axis] > 1:
            below = math.prod(before[a] for a in old[at + 1 :])
            result[at] = (low // below, -(-high // below))
            break
    return result


@_backward("slice", "narrow", "select")
def _sliced(node: Node, box: Box, shapes: Mapping[str, Shape]) -> Needs:
    x = _name(node, "self")
    if x is None or any(
        not isinstance(node.arguments.get(a, 0), int | None) for a in ("start", "end", "index")
    ):
        return
    shape = shapes[x]
    axis = _integer(node, "dim", 0) % len(shape)
    if node.op == "select":
        at = _integer(node, "index", 0) % shape[axis]
        yield x, (*box[:axis], (at, at + 1), *box[axis:])
        return
    start, step = _integer(node, "start", 0), _integer(node, "step", 1)
    start = min(start + shape[axis] if start < 0 else start, shape[axis])
    low, high = box[axis]
    if low < high:
        own = (start + low * step, start + (high - 1) * step + 1)
        yield x, (*box[:axis], own, *box[axis + 1 :])


@_backward("cat")
def _cat(node: Node, box: Box, shapes: Mapping[str, Shape]) -> Needs:
    axis = _integer(node, "dim", 0) % len(box)
    start = 0
    for name in references(node.arguments.get("tensors")):
        shape = shapes.get(name)
        if shape is None or len(shape) != len(box):
            return
        low, high = max(box[axis][0] - start, 0), min(box[axis][1] - start, shape[axis])
        start += shape[axis]
        yield name, (*box[:axis], (low, high), *box[axis + 1 :]) if low < high else None
