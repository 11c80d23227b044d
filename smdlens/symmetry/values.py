"""What the solver knows of a value: a sum of terms, each with a degree and a constancy."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from smdlens.symmetry.forms import ANY, IdArray
from smdlens.symmetry.model_graph import Shape

_MOST_LABELS = 4096
_KEYS = count()
INPUT = 1  # taint bit of what changes from batch to batch; bit p + 1 belongs to parameter p


@dataclass(frozen=True, slots=True)
class Term:
    """One summand.

    Attributes:
        degree: Form ids, of as many axes as the value; length 1 where uniform.
        labels: Two positions with one label hold one number; length 1 along axes over which the
            summand is constant. None where every position may differ.
        taint: Bit set of the parameters (and INPUT) that its numbers depend on.
        key: Identity of its numbers: where keys and labels of two terms agree, so do the numbers.
            Every new term has its own; what only moves or repeats numbers hands it on.
    """

    degree: IdArray
    labels: IdArray | None
    taint: int
    key: int = field(default_factory=_KEYS.__next__, compare=False)


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A value of the network.

    Attributes:
        terms: Its summands. A broadcast operand of a sum stays a term of its own: a bias in front
            of a normalisation has another degree than what it is added to, and may be removed.
        moment: True for norms, variances and other sums of squares, to which an epsilon is added.
        regularised: True where an epsilon was ignored; only roots and quotients may follow.
        mean_of: (value, axes) where this is that value's mean over these axes, kept as length 1.
    """

    shape: Shape
    terms: tuple[Term, ...]
    moment: bool = False
    regularised: bool = False
    mean_of: tuple[Value, tuple[int, ...]] | None = None


def renewed(terms: Iterable[Term]) -> tuple[Term, ...]:
    """The same degrees of other numbers."""
    return tuple(Term(term.degree, term.labels, term.taint) for term in terms)


def same_numbers(a: Term, b: Term) -> bool:
    """True where two terms of one shape are known to be equal everywhere."""
    if a.key != b.key or a.labels is None or b.labels is None:
        return False
    left, right = np.broadcast_arrays(a.labels, b.labels)
    return bool((left == right).all())


def uniform(rank: int, form: int) -> IdArray:
    """A degree (or label) that is the same everywhere."""
    return np.full((1,) * rank, form, np.int64)


def labelled(term: Term, shape: Shape) -> IdArray:
    """The term's labels, spelled out."""
    if term.labels is not None:
        return term.labels
    return np.arange(math.prod(shape), dtype=np.int64).reshape(shape)


def varies(term: Term, shape: Shape, axis: int) -> bool:
    """Whether the term may change along an axis."""
    if shape[axis] == 1:
        return False
    return term.labels is None or term.labels.shape[axis] > 1


def varies_everywhere(term: Term, shape: Shape) -> bool:
    """True where no axis is known along which the term is constant."""
    return all(varies(term, shape, axis) for axis, size in enumerate(shape) if size > 1)


def constant_along(term: Term, shape: Shape, axes: Iterable[int]) -> bool:
    """Whether the term is one number along these axes."""
    axes = tuple(axes)
    if all(shape[axis] == 1 for axis in axes):
        return True
    if term.labels is None:
        return False
    labels = term.labels
    for axis in axes:
        first = labels.take([0], axis=axis)
        if labels.shape[axis] > 1 and not bool((labels == first).all()):
            return False
        labels = first
    return True


def is_exact_zero(term: Term) -> bool:
    """True where the term is known to vanish."""
    return bool((term.degree == ANY).all())


def joined_labels(first: Term, second: Term) -> IdArray | None:
    """Labels of a function of both terms (of one shape)."""
    if first.labels is None or second.labels is None:
        return None
    if first.labels.size == 1:
        return second.labels
    if second.labels.size == 1 or first.labels is second.labels:
        return first.labels
    sizes = np.broadcast_shapes(first.labels.shape, second.labels.shape)
    if math.prod(sizes) > _MOST_LABELS:  # forgetting that two labels agree is always sound
        return fresh_labels(sizes)
    a, b = np.broadcast_arrays(first.labels, second.labels)
    packed = ((a + 1) << 32) | (b + 1)
    return np.unique(packed, return_inverse=True)[1].reshape(a.shape).astype(np.int64)


def fresh_labels(sizes: Iterable[int]) -> IdArray:
    """Labels that differ along the axes given a length above 1."""
    sizes = tuple(sizes)
    return np.arange(math.prod(sizes), dtype=np.int64).reshape(sizes)
