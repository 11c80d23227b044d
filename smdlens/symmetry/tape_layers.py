"""Layers of a network on a tape: convolutions, pooling, normalisation, products.

Images have their channels second and kernels are (out, in / groups, space...): front ends turn
theirs. Padding is (low, high) per spatial axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from smdlens.symmetry.keras_call import NotTranslated
from smdlens.symmetry.model_graph import Ref, Shape
from smdlens.symmetry.tape import Operand, Tape, broadcast, checked, place

Pairs = Sequence[tuple[int, int]]


def windows(
    sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Pairs,
    dilation: Sequence[int], *, upward: bool = False,
) -> list[int]:  # fmt: skip
    """Sizes after a sliding window; `upward`: a last, partial window counts."""
    found = []
    for n, k, s, (low, high), d in zip(sizes, kernel, stride, padding, dilation, strict=True):
        room = n + low + high - d * (k - 1) - 1
        if room < 0 or s < 1 or d < 1 or k < 1 or min(low, high) < 0:
            raise NotTranslated
        found.append((-(-room // s) if upward else room // s) + 1)
    return found


def same_padding(
    sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> list[tuple[int, int]]:
    """TensorFlow's "SAME": ceil(n / stride) windows, the odd element at the end."""
    found = []
    for n, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
        if s < 1:
            raise NotTranslated
        total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
        found.append((total // 2, total - total // 2))
    return found


def convolution(
    tape: Tape, x: Operand, weight: Operand, bias: Operand | None, stride: Sequence[int],
    padding: Pairs, dilation: Sequence[int], groups: int,
) -> str:  # fmt: skip
    """A convolution."""
    own, kernel = tape.shape(x), tape.shape(weight)
    if len(own) < 3 or len(kernel) != len(own) or groups < 1:
        raise NotTranslated
    if own[1] != kernel[1] * groups or kernel[0] % groups:
        raise NotTranslated
    sizes = windows(own[2:], kernel[2:], stride, padding, dilation)
    arguments = {
        "input": Ref(tape.leaf(x)), "weight": Ref(tape.leaf(weight)),
        "bias": None if bias is None else Ref(tape.leaf(bias)),
        "padding": [max(pair) for pair in padding], "groups": groups,
    }  # fmt: skip
    return tape.node("convolution", arguments, (own[0], kernel[0], *sizes))


def transposed_convolution(
    tape: Tape, x: Operand, weight: Operand, bias: Operand | None, sizes: Sequence[int], groups: int
) -> str:
    """A transposed convolution; its kernel is (in, out / groups, space...)."""
    own, kernel = tape.shape(x), tape.shape(weight)
    if len(own) < 3 or len(kernel) != len(own) or own[1] != kernel[0] or kernel[0] % groups:
        raise NotTranslated
    if len(sizes) != len(own) - 2 or min(sizes) < 1:
        raise NotTranslated
    arguments = {
        "input": Ref(tape.leaf(x)), "weight": Ref(tape.leaf(weight)),
        "bias": None if bias is None else Ref(tape.leaf(bias)), "groups": groups,
        "transposed": True,
    }  # fmt: skip
    return tape.node("convolution", arguments, (own[0], kernel[1] * groups, *sizes))


def pool(
    tape: Tape, kind: str, x: Operand, kernel: Sequence[int], stride: Sequence[int],
    padding: Pairs, *, counts_padding: bool = False, upward: bool = False,
) -> str:  # fmt: skip
    """The mean ("avg") or largest ("max") of windows."""
    own = tape.shape(x)
    space = len(own) - 2
    if not 1 <= space <= 3 or len(kernel) != space:
        raise NotTranslated
    sizes = windows(own[2:], kernel, stride, padding, [1] * space, upward=upward)
    arguments = {
        "self": Ref(tape.leaf(x)), "padding": [1 if upward else max(pair) for pair in padding],
        "count_include_pad": counts_padding,
    }  # fmt: skip
    return tape.node(f"{kind}_pool{space}d", arguments, (*own[:2], *sizes))


def matmul(tape: Tape, a: Operand, b: Operand) -> str:
    """A matrix product with broadcast leading axes."""
    left, right = tape.shape(a), tape.shape(b)
    if not left or not right or left[-1] != right[-2 if len(right) > 1 else 0]:
        raise NotTranslated
    rows, columns = left[-2:-1], right[-1:] if len(right) > 1 else ()
    shape = (*broadcast(left[:-2], right[:-2]), *rows, *columns)
    return tape.node("matmul", {"self": Ref(tape.leaf(a)), "other": Ref(tape.leaf(b))}, shape)


def linear(tape: Tape, x: Operand, weight: Operand, bias: Operand | None) -> str:
    """A dense layer; its weight is (out, in)."""
    own, matrix = tape.shape(x), tape.shape(weight)
    if len(matrix) != 2 or not own or own[-1] != matrix[1]:
        raise NotTranslated
    arguments = {
        "input": Ref(tape.leaf(x)), "weight": Ref(tape.leaf(weight)),
        "bias": None if bias is None else Ref(tape.leaf(bias)),
    }  # fmt: skip
    return tape.node("linear", arguments, (*own[:-1], matrix[0]))


def normalised(
    tape: Tape, op: str, x: Operand, weight: Operand | None = None, bias: Operand | None = None,
    mean: Operand | None = None, variance: Operand | None = None, **more: object,
) -> str:  # fmt: skip
    """One of the normalisations of the table; gain and shift must fit."""
    own = tape.shape(x)
    sizes = more.get("normalized_shape")
    fitting = tuple(sizes) if isinstance(sizes, list) else own[1:2]
    groups = more.get("num_groups", 1)
    vectors = [tape.shape(v) for v in (weight, bias, mean, variance) if v is not None]
    if len(own) < 2 or any(vector != fitting for vector in vectors):
        raise NotTranslated
    if not isinstance(groups, int) or groups < 1 or own[1] % groups:
        raise NotTranslated
    named = {"weight": weight, "bias": bias, "running_mean": mean, "running_var": variance}
    given = {key: Ref(tape.leaf(value)) for key, value in named.items() if value is not None}
    return tape.node(op, {"input": Ref(tape.leaf(x)), **given, **more}, tape.shape(x))


def embedding(tape: Tape, table: Operand, indices: Operand) -> str:
    """Rows picked by the data."""
    own = tape.shape(table)
    if len(own) != 2:
        raise NotTranslated
    arguments = {"weight": Ref(tape.leaf(table)), "indices": Ref(tape.leaf(indices))}
    return tape.node("embedding", arguments, (*tape.shape(indices), own[1]))


def softmax(tape: Tape, x: Operand, axis: int, *, log: bool = False) -> str:
    """Over one axis."""
    axis = place(axis, len(tape.shape(x)))
    return tape.alone("log_softmax" if log else "softmax", x, dim=axis)


def padded(tape: Tape, x: Operand, padding: Pairs, value: float, mode: str = "constant") -> str:
    """New positions at both ends of every axis."""
    own = tape.shape(x)
    if len(padding) != len(own) or any(min(pair) < 0 for pair in padding):
        raise NotTranslated
    if not any(map(any, padding)):
        return tape.leaf(x)
    shape: Shape = checked(
        tuple(n + low + high for n, (low, high) in zip(own, padding, strict=True))
    )
    widths = [width for pair in reversed(padding) for width in pair]
    arguments = {"self": Ref(tape.leaf(x)), "pad": widths, "mode": mode, "value": value}
    return tape.node("pad", arguments, shape)


class ImageCall(Protocol):
    """An operator of a framework whose images may have their channels last."""

    @property
    def tape(self) -> Tape:
        """Where its nodes go."""

    @property
    def channels_first(self) -> bool:
        """Whether images have their channels second."""

    def __getitem__(self, at: int) -> Operand:
        """An input."""


def image_in(call: ImageCall) -> str:
    """The first input, an image with its channels second."""
    leaf = call.tape.leaf(call[0])
    return leaf if call.channels_first else channels_second(call.tape, leaf)


def image_out(call: ImageCall, made: str) -> str:
    """What was made of it, with its channels where the framework has them."""
    return made if call.channels_first else channels_last(call.tape, made)


def channels_second(tape: Tape, x: Operand) -> str:
    """(N, space..., C) -> (N, C, space...)."""
    rank = len(tape.shape(x))
    if rank < 2:
        raise NotTranslated
    return tape.permute(x, [0, rank - 1, *range(1, rank - 1)])


def channels_last(tape: Tape, x: Operand) -> str:
    """(N, C, space...) -> (N, space..., C)."""
    rank = len(tape.shape(x))
    return tape.permute(x, [0, *range(2, rank), 1])


def einsum(tape: Tape, equation: str, operands: Sequence[Operand]) -> str:
    """A contraction by letters; "..." stands for leading axes."""
    left, arrow, out = equation.replace(" ", "").partition("->")
    parts = left.split(",")
    if not arrow or len(parts) != len(operands):
        raise NotTranslated
    shapes = [tape.shape(operand) for operand in operands]
    spare = [chr(at) for at in range(ord("A"), ord("Z")) if chr(at) not in equation]
    longest = 0
    for at, (part, shape) in enumerate(zip(parts, shapes, strict=True)):
        if "..." in part:
            count = len(shape) - len(part) + 3
            if not 0 <= count <= len(spare):
                raise NotTranslated
            longest = max(longest, count)
            parts[at] = part.replace("...", "".join(spare[len(spare) - count :]))
    out = out.replace("...", "".join(spare[len(spare) - longest :]))
    sizes: dict[str, int] = {}
    for part, shape in zip(parts, shapes, strict=True):
        if len(part) != len(shape):
            raise NotTranslated
        for letter, n in zip(part, shape, strict=True):
            if sizes.setdefault(letter, n) != n:
                raise NotTranslated
    if any(letter not in sizes for letter in out):
        raise NotTranslated
    arguments = {
        "equation": f"{','.join(parts)}->{out}",
        "tensors": [Ref(tape.leaf(operand)) for operand in operands],
    }
    return tape.node("einsum", arguments, tuple(sizes[letter] for letter in out))
