"""Arithmetic of degrees, and the constraints on them that go to a sink."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from smdlens.symmetry.forms import (
    ANY,
    ZERO,
    Coefficient,
    FormTable,
    IdArray,
    compressed,
    over_ids,
    over_pairs,
)
from smdlens.symmetry.model_graph import Node


@dataclass(frozen=True, slots=True)
class Reason:
    """Why forms had to agree or vanish: the node, and what it asks of its operands."""

    node: Node
    kind: str  # "equal" | "homogeneous" | "together" | "output"


class Sink(Protocol):
    """Takes the constraints."""

    def vanish(self, forms: IdArray, reason: Reason) -> None:
        """Every form of the array is zero."""

    def agree(self, a: IdArray, b: IdArray, reason: Reason) -> None:
        """Forms of two equally long vectors agree pairwise."""

    def settled(self, forms: IdArray) -> IdArray:
        """The same forms under the constraints so far (may be the argument itself)."""


class Degrees:
    """Sums, multiples and constraints of arrays of forms."""

    def __init__(self, table: FormTable, sink: Sink) -> None:
        self.table = table
        self.sink = sink
        self.node: Node | None = None  # what is being worked on, for reasons

    def _reason(self, kind: str) -> Reason:
        assert self.node is not None
        return Reason(self.node, kind)

    def plus(self, a: IdArray, b: IdArray) -> IdArray:
        """Degree of an elementwise product."""
        for this, other in ((a, b), (b, a)):
            if this.size == 1 and int(this.flat[0]) == ZERO and this.ndim <= other.ndim:
                return other
        # Channels that are tied by now have one name: far fewer sums to make.
        return over_pairs(self.table.plus, self.sink.settled(a), self.sink.settled(b))

    def times(self, a: IdArray, factor: Coefficient) -> IdArray:
        """Degree of an elementwise power."""
        a = self.sink.settled(a)
        return over_ids(lambda form: self.table.times(form, factor), a)

    def minus(self, a: IdArray, b: IdArray) -> IdArray:
        """Degree of an elementwise quotient."""
        return self.plus(a, self.times(b, -1))

    def vanish(self, a: IdArray, kind: str = "homogeneous") -> None:
        """Require degree zero wherever the value is not an exact zero."""
        forms = np.unique(a)
        forms = forms[forms > ZERO]
        if forms.size:
            self.sink.vanish(forms, self._reason(kind))

    def equal(self, a: IdArray, b: IdArray, kind: str = "equal") -> IdArray:
        """Require equal degrees; exact zeros agree with all."""
        if a.size == 1 and b.size == 1:
            x, y = int(a.flat[0]), int(b.flat[0])
            if x == y or y == ANY:
                return a if a.ndim >= b.ndim else a.reshape(b.shape)
        left, right = np.broadcast_arrays(a, b)
        different = (left != right) & (left != ANY) & (right != ANY)
        if bool(different.any()):
            pairs = np.unique(np.stack([left[different], right[different]]), axis=1)
            self.sink.agree(pairs[0], pairs[1], self._reason(kind))
        # An exact zero agrees with all, and zero is the cheapest of the agreeing forms.
        merged = np.where(left == ANY, right, left)
        return self.sink.settled(compressed(merged))

    def unify(self, a: IdArray, axes: Iterable[int], kind: str = "together") -> IdArray:
        """Require one degree along axes, which keep length 1."""
        axes = tuple(sorted({axis % a.ndim for axis in axes})) if a.ndim else ()
        axes = tuple(axis for axis in axes if a.shape[axis] > 1)
        if not axes:
            return a
        rest = tuple(axis for axis in range(a.ndim) if axis not in axes)
        rows = a.transpose(*rest, *axes).reshape(
            int(np.prod([a.shape[axis] for axis in rest], dtype=np.int64)), -1
        )
        filled = rows != ANY
        first = rows[np.arange(rows.shape[0]), filled.argmax(axis=1)]
        different = filled & (rows != first[:, None])
        if bool(different.any()):
            row, _ = np.nonzero(different)
            pairs = np.unique(np.stack([first[row], rows[different]]), axis=1)
            self.sink.agree(pairs[0], pairs[1], self._reason(kind))
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(a.shape))
        return self.sink.settled(compressed(first.reshape(shape)))
