"""All scale symmetries at once: the exact null space of the constraints on exponents."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from smdlens.symmetry.degrees import Reason
from smdlens.symmetry.forms import Coefficient, Form, FormTable, IdArray

Row = dict[int, Coefficient]


class LinearSystem:
    """Takes constraints and eliminates exactly (integers and fractions, no rounding)."""

    def __init__(self, table: FormTable) -> None:
        self.table = table
        self.reasons: dict[int, Reason] = {}  # form that must vanish -> first reason

    def vanish(self, forms: IdArray, reason: Reason) -> None:
        """Every form of the array is zero."""
        for form in forms.tolist():
            self.reasons.setdefault(form, reason)

    def agree(self, a: IdArray, b: IdArray, reason: Reason) -> None:
        """Forms of two equally long vectors agree pairwise."""
        for x, y in zip(a.tolist(), b.tolist(), strict=True):
            form = self.table.minus(x, y)
            if form != 0:
                self.reasons.setdefault(form, reason)

    def settled(self, forms: IdArray) -> IdArray:
        """The forms themselves: nothing is substituted before all constraints are known."""
        return forms

    def blocking(self) -> dict[int, tuple[Reason, Form]]:
        """Variable -> the first constraint that its exponent alone would break."""
        found: dict[int, tuple[Reason, Form]] = {}
        for form, reason in self.reasons.items():
            terms = self.table.forms[form]
            for variable, _ in terms:
                found.setdefault(variable, (reason, terms))
        return found

    def null_space(self, order: Sequence[int]) -> list[Row]:
        """A basis of all exponent vectors that keep the outputs, in reduced echelon form.

        Args:
            order: Variables; late ones are preferred as free, where several could be.

        Returns:
            One vector per free variable, which it gives the exponent 1.
        """
        rank = {variable: at for at, variable in enumerate(order)}
        pivots: dict[int, Row] = {}
        for form in self.reasons:
            row: Row = {rank[v]: c for v, c in self.table.forms[form]}
            _eliminate(row, pivots)
        # Back substitution from the last pivot up leaves free variables only.
        for pivot in sorted(pivots, reverse=True):
            row = pivots[pivot]
            for other in [v for v in row if v != pivot and v in pivots]:
                _subtract(row, pivots[other], row[other])
        basis: dict[int, Row] = {at: {order[at]: 1} for at in range(len(order)) if at not in pivots}
        for pivot, row in pivots.items():
            for free, coefficient in row.items():
                if free != pivot:
                    basis[free][order[pivot]] = -coefficient
        return [basis[free] for free in sorted(basis)]


def _eliminate(row: Row, pivots: dict[int, Row]) -> None:
    """Reduces a row by the pivots (leading variable with coefficient 1) and adds what is left."""
    while row:
        lead = min(row)
        pivot = pivots.get(lead)
        if pivot is None:
            factor = row[lead]
            if factor != 1:
                for variable in row:
                    row[variable] = Fraction(row[variable]) / factor
            pivots[lead] = row
            return
        _subtract(row, pivot, row[lead])


def _subtract(row: Row, pivot: Row, factor: Coefficient) -> None:
    for variable, coefficient in pivot.items():
        value = row.get(variable, 0) - factor * coefficient
        if value == 0:
            row.pop(variable, None)
        else:
            row[variable] = value
