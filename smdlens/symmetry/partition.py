"""Which channels of each tensor can be rescaled on their own: the solver restricted to one tensor.

With all other exponents zero, a constraint splits into one per tensor (or per set of tensors that
are scaled together). Rows of one term forbid a channel, rows of two opposite terms tie two
channels; union-find is all it takes. Longer rows tie their channels together if their
coefficients cancel, and forbid them otherwise: never more freedom than there is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smdlens.symmetry.degrees import Reason
from smdlens.symmetry.forms import Form, FormTable, IdArray


class Partition:
    """Union-find over channel variables, with a class that may not be scaled at all."""

    def __init__(self, table: FormTable, blocks: IdArray) -> None:
        """Args: table with one variable per channel; `blocks[v]`, the tensor (or set) of v."""
        self.table = table
        self.blocks = blocks
        self.parent = np.arange(table.variables, dtype=np.int64)
        self.forbidden = np.zeros(table.variables, dtype=bool)  # by root
        self.tied_by: dict[int, Reason] = {}  # block -> first reason to tie two of its channels
        self.forbidden_by: dict[int, Reason] = {}
        self._long: set[Form] = set()
        self._seen: set[int] = set()

    # -- the sink ------------------------------------------------------------------------------

    def vanish(self, forms: IdArray, reason: Reason) -> None:
        """Every form of the array is zero."""
        single = forms[forms <= self.table.variables] - 1
        if single.size:
            self._forbid(single, reason)
        for form in forms[forms > self.table.variables].tolist():
            if form not in self._seen:
                self._seen.add(form)
                self._split(self.table.forms[form], reason)

    def agree(self, a: IdArray, b: IdArray, reason: Reason) -> None:
        """Forms of two equally long vectors agree pairwise."""
        count = self.table.variables
        simple = (a <= count) & (b <= count)
        if not simple.all():
            self._agree_composite(a[~simple].tolist(), b[~simple].tolist(), reason)
        a, b = a[simple], b[simple]
        zero = (a == 0) | (b == 0)
        alone = np.maximum(a, b)[zero] - 1
        if alone.size:
            self._forbid(alone, reason)
        a, b = a[~zero] - 1, b[~zero] - 1
        apart = self.blocks[a] != self.blocks[b]
        if apart.any():
            self._forbid(np.concatenate([a[apart], b[apart]]), reason)
        self._tie_all(a[~apart], b[~apart], reason)

    def _agree_composite(self, a: list[int], b: list[int], reason: Reason) -> None:
        pairs: list[tuple[int, int]] = []
        for x, y in zip(a, b, strict=True):
            left, right = self.table.forms[x], self.table.forms[y]
            if len(left) == len(right) == 1 and left[0][1] == right[0][1]:  # squares of channels
                first, second = left[0][0], right[0][0]
                if self.blocks[first] == self.blocks[second]:
                    pairs.append((first, second))
                    continue
            form = self.table.minus(x, y)
            if form > 0:
                self.vanish(np.array([form]), reason)
        if pairs:
            both = np.array(pairs, dtype=np.int64)
            self._tie_all(both[:, 0], both[:, 1], reason)

    def settled(self, forms: IdArray) -> IdArray:
        """Forms with forbidden channels at zero and tied channels under one name."""
        count = self.table.variables
        if forms.size == 1:
            only = int(forms.flat[0])
            if only <= 0:
                return forms
            tidy = self._reduced(self.table.forms[only])
            return np.full(forms.shape, self.table.id_of(tuple(sorted(tidy.items()))), np.int64)
        roots = self.roots()
        names = np.where(self.forbidden[roots], 0, roots + 1)
        result = np.where(
            (forms > 0) & (forms <= count), names[np.clip(forms - 1, 0, count - 1)], forms
        )
        if int(forms.max()) > count:
            distinct, inverse = np.unique(forms, return_inverse=True)
            for at, form in enumerate(distinct.tolist()):
                if form > count:
                    tidy = self._reduced(self.table.forms[form])
                    distinct[at] = self.table.id_of(tuple(sorted(tidy.items())))
            result = np.where(forms > count, distinct[inverse].reshape(forms.shape), result)
        return result

    # -- the classes ---------------------------------------------------------------------------

    def roots(self) -> IdArray:
        """Root of every variable."""
        parent = self.parent
        while True:
            above = parent[parent]
            if np.array_equal(above, parent):
                return parent
            parent = self.parent = above

    def _root(self, variable: int) -> int:
        parent = self.parent
        while (above := int(parent[variable])) != variable:
            parent[variable] = parent[above]
            variable = above
        return variable

    def _forbid(self, variables: IdArray, reason: Reason) -> None:
        if variables.size < 64:
            roots = np.unique([self._root(variable) for variable in variables.tolist()])
        else:
            roots = np.unique(self.roots()[variables])
        fresh = roots[~self.forbidden[roots]]
        self.forbidden[fresh] = True
        for block in np.unique(self.blocks[fresh]).tolist():
            self.forbidden_by.setdefault(block, reason)

    def _tie(self, a: int, b: int, reason: Reason) -> None:
        x, y = self._root(a), self._root(b)
        if x == y:
            return
        low, high = min(x, y), max(x, y)
        self.parent[high] = low
        self.forbidden[low] |= self.forbidden[high]
        self.tied_by.setdefault(int(self.blocks[a]), reason)

    def _tie_all(self, a: IdArray, b: IdArray, reason: Reason) -> None:
        """Ties many pairs at once: every root is hung below the smallest it is tied to."""
        if a.size < 32:
            for x, y in zip(a.tolist(), b.tolist(), strict=True):
                self._tie(x, y, reason)
            return
        while True:
            roots = self.roots()
            low, high = np.minimum(roots[a], roots[b]), np.maximum(roots[a], roots[b])
            differ = low != high
            if not differ.any():
                return
            for block in np.unique(self.blocks[low[differ]]).tolist():
                self.tied_by.setdefault(block, reason)
            np.minimum.at(self.parent, high[differ], low[differ])
            self.forbidden[self.roots()[np.flatnonzero(self.forbidden)]] = True

    def _reduced(self, form: Form) -> dict[int, int]:
        total: dict[int, int] = {}
        for variable, coefficient in form:
            root = self._root(variable)
            if not self.forbidden[root]:
                total[root] = total.get(root, 0) + coefficient  # type: ignore[assignment]
        return {variable: c for variable, c in total.items() if c}

    def _split(self, form: Form, reason: Reason) -> None:
        """One constraint per block."""
        by_block: dict[int, list[tuple[int, int]]] = {}
        for variable, coefficient in self._reduced(form).items():
            by_block.setdefault(int(self.blocks[variable]), []).append((variable, coefficient))
        for terms in by_block.values():
            if len(terms) == 1:
                self._forbid(np.array([terms[0][0]]), reason)
            elif len(terms) == 2 and terms[0][1] == -terms[1][1]:
                self._tie(terms[0][0], terms[1][0], reason)
            else:
                self._long.add(tuple(sorted(terms)))

    def finish(self, reason: Reason | None = None) -> None:
        """Settles the constraints of more than two terms."""
        from smdlens.symmetry.model_graph import Node

        reason = reason or Reason(Node("", "sum", {}, ((),)), "together")
        while self._long:
            waiting, self._long = self._long, set()
            for form in waiting:
                self._split(form, reason)
            if self._long == waiting:  # nothing was tied or forbidden that would shorten them
                break
        for form in self._long:
            rest = list(self._reduced(form).items())
            if rest and sum(c for _, c in rest) != 0:
                self._forbid(np.array([variable for variable, _ in rest]), reason)
            else:
                for variable, _ in rest[1:]:
                    self._tie(rest[0][0], variable, reason)
        self._long = set()

    def classes(self, variables: Sequence[int] | IdArray) -> IdArray:
        """Class of each variable: its root, or -1 where it may not be scaled."""
        roots = self.roots()[np.asarray(variables, dtype=np.int64)]
        return np.where(self.forbidden[roots], -1, roots)
