"""Sums of products of values: what elementwise arithmetic makes of them, exactly.

A factor is a value with the axes along which it lies, counted from the last one, so that
broadcasting leaves it alone. Sums that grow too long are given up (None).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from smdlens.symmetry.model_graph import Shape

_MOST_PRODUCTS = 24
_MOST_FACTORS = 8
Place = tuple[int, ...]  # per axis of a value: -1 for the last; 0 where its length is one


class Factor(NamedTuple):
    """A value, or one divided by it, and where it lies."""

    name: str
    place: Place
    inverse: bool = False


Product = tuple[Factor, ...]  # sorted
Sum = dict[Product, float]


def placed(shape: Shape) -> Place:
    """Where a value of this shape lies by itself."""
    return tuple(at - len(shape) if n != 1 else 0 for at, n in enumerate(shape))


def added(a: Sum, b: Sum) -> Sum | None:
    """A + b."""
    result = dict(a)
    for product, number in b.items():
        total = result.pop(product, 0.0) + number
        if total != 0.0:
            result[product] = total
    return result if len(result) <= _MOST_PRODUCTS else None


def scaled(a: Sum, number: float) -> Sum:
    """A number times a sum."""
    return {product: factor * number for product, factor in a.items()}


def multiplied(a: Sum, b: Sum) -> Sum | None:
    """A product of two sums."""
    result: Sum = {}
    if len(a) * len(b) > _MOST_PRODUCTS**2:
        return None
    for p, x in a.items():
        for q, y in b.items():
            product = tuple(sorted((*p, *q)))
            if len(product) > _MOST_FACTORS:
                return None
            result[product] = result.get(product, 0.0) + x * y
    found = {product: number for product, number in result.items() if number != 0.0}
    return found if len(found) <= _MOST_PRODUCTS else None


def without(product: Product, factors: Sequence[Factor]) -> Product | None:
    """A product divided by some of its factors; None where it lacks one."""
    left = list(product)
    for factor in factors:
        if factor not in left:
            return None
        left.remove(factor)
    return tuple(left)


def reshaped(a: Sum, old: Shape, new: Shape) -> Sum | None:
    """The sum where axes of length one came or went; None for any other change of shape."""
    if [n for n in old if n != 1] != [n for n in new if n != 1]:
        return None
    kept = [at - len(old) for at, n in enumerate(old) if n != 1]
    now = [at - len(new) for at, n in enumerate(new) if n != 1]
    return _moved(a, dict(zip(kept, now, strict=True)))


def reordered(a: Sum, order: Sequence[int]) -> Sum | None:
    """The sum with its axes in another order."""
    rank = len(order)
    return _moved(a, {axis % rank - rank: at - rank for at, axis in enumerate(order)})


def _moved(a: Sum, axes: dict[int, int]) -> Sum | None:
    result: Sum = {}
    for product, number in a.items():
        if any(at and at not in axes for factor in product for at in factor.place):
            return None
        turned = tuple(
            sorted(
                f._replace(place=tuple(axes[at] if at else 0 for at in f.place)) for f in product
            )
        )
        result[turned] = number
    return result


def quotient(a: Sum, b: Sum) -> Sum | None:
    """A sum divided by a single product; None for another divisor."""
    if len(b) != 1:
        return None
    (product, number), = b.items()  # fmt: skip
    turned = tuple(sorted(f._replace(inverse=not f.inverse) for f in product))
    return multiplied(a, {turned: 1.0 / number})


def is_near(found: float | None, expected: float) -> bool:
    """Whether a factor is there and is that number, but for rounding."""
    return found is not None and math.isclose(found, expected, rel_tol=1e-6)
