"""Hash-consed linear forms over exponents, and arrays of their ids.

Scaling parameter p by k^{e_p} scales an element of a value by k^{form}, with one linear form per
element. A form is stored once and named by a small integer, so an array of degrees is an array of
integers whose axes have length 1 where all elements agree.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

IdArray = NDArray[np.int64]
Coefficient = int | Fraction
Form = tuple[tuple[int, Coefficient], ...]

ZERO = 0  # id of the form 0: degree zero
ANY = -1  # id of an exact zero, which is homogeneous of every degree
_SHIFT = 2  # makes ids positive before two of them are packed into one integer


class FormTable:
    """Forms by id and ids by form.

    The ids 1..n belong to the n variables, which lets callers treat arrays of single variables
    without a look at the table.
    """

    def __init__(self, variables: int) -> None:
        self.variables = variables
        self.forms: list[Form] = [(), *zip(zip(range(variables), repeat(1), strict=False))]
        self._ids: dict[Form, int] = dict(zip(self.forms, range(variables + 1), strict=True))
        self._sums: dict[tuple[int, int], int] = {}
        self._multiples: dict[tuple[int, Coefficient], int] = {}

    def id_of(self, form: Form) -> int:
        """The id of a form whose terms are sorted by variable and free of zeros."""
        found = self._ids.get(form)
        if found is None:
            found = self._ids[form] = len(self.forms)
            self.forms.append(form)
        return found

    def plus(self, a: int, b: int) -> int:
        """Degree of a product; a product with an exact zero is an exact zero."""
        if a == ANY or b == ANY:
            return ANY
        if a == ZERO or b == ZERO:
            return a + b
        key = (a, b) if a < b else (b, a)
        found = self._sums.get(key)
        if found is None:
            total = dict(self.forms[a])
            for variable, coefficient in self.forms[b]:
                total[variable] = total.get(variable, 0) + coefficient
            found = self._sums[key] = self.id_of(_tidy(total))
        return found

    def times(self, a: int, factor: Coefficient) -> int:
        """Degree of a power."""
        if a in (ANY, ZERO) or factor == 1:
            return a
        key = (a, factor)
        found = self._multiples.get(key)
        if found is None:
            scaled = {variable: c * factor for variable, c in self.forms[a]}
            found = self._multiples[key] = self.id_of(_tidy(scaled))
        return found

    def minus(self, a: int, b: int) -> int:
        """Degree of a quotient."""
        return self.plus(a, self.times(b, -1))


def _tidy(form: dict[int, Coefficient]) -> Form:
    return tuple(
        (variable, int(c) if isinstance(c, Fraction) and c.denominator == 1 else c)
        for variable, c in sorted(form.items())
        if c != 0
    )


def over_pairs(function: Callable[[int, int], int], a: IdArray, b: IdArray) -> IdArray:
    """`function` on every pair of ids of two broadcastable arrays, once per distinct pair."""
    if a.size == 1 and b.size == 1:
        shape = np.broadcast_shapes(a.shape, b.shape)
        return np.full(shape, function(int(a.flat[0]), int(b.flat[0])), np.int64)
    left, right = np.broadcast_arrays(a, b)
    packed = ((left + _SHIFT) << 32) | (right + _SHIFT)
    distinct, inverse = np.unique(packed, return_inverse=True)
    results = np.fromiter(
        (
            function((code >> 32) - _SHIFT, (code & 0xFFFFFFFF) - _SHIFT)
            for code in distinct.tolist()
        ),
        np.int64,
        distinct.size,
    )
    return results[inverse].reshape(left.shape)


def over_ids(function: Callable[[int], int], a: IdArray) -> IdArray:
    """`function` on every id of an array, once per distinct id."""
    if a.size == 1:
        return np.full(a.shape, function(int(a.flat[0])), np.int64)
    distinct, inverse = np.unique(a, return_inverse=True)
    results = np.fromiter(map(function, distinct.tolist()), np.int64, distinct.size)
    return results[inverse].reshape(a.shape)


def compressed(a: IdArray) -> IdArray:
    """The same ids with axes of length 1 where all entries along them agree."""
    for axis, size in enumerate(a.shape):
        if size > 1:
            first = a.take([0], axis=axis)
            if bool((a == first).all()):
                a = first
    return a
