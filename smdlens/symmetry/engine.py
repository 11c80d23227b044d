"""Carries degrees through a graph: the few operations that all operator rules are made of.

Every rule ends in `equal`, `unify` or `require_zero`, which hand linear forms that must vanish to
a sink; what the sink makes of them (exact elimination, or a partition of channels) is its affair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from smdlens.symmetry.degrees import Degrees, Sink
from smdlens.symmetry.forms import ANY, ZERO, Coefficient, FormTable, IdArray
from smdlens.symmetry.model_graph import Node, Ref, Shape
from smdlens.symmetry.values import (
    INPUT,
    Term,
    Value,
    constant_along,
    is_exact_zero,
    joined_labels,
    labelled,
    renewed,
    same_numbers,
    uniform,
    varies_everywhere,
)

MOST_TERMS = 64  # summands of a value
MOST_PRODUCTS = 36  # pairs of summands of two factors


class Engine(Degrees):
    """Operations on degrees for one run over one graph."""

    def __init__(self, table: FormTable, sink: Sink, *, brief: bool = False) -> None:
        super().__init__(table, sink)
        self.brief = brief  # skip operators into which nothing scaled comes; taint is not kept
        self.normalised: dict[int, Node] = {}  # parameter -> first normaliser its degree met
        self.ignored_epsilons: list[tuple[Node, float]] = []
        self.frozen: frozenset[str] = frozenset()
        self.without_rule: dict[str, int] = {}
        self.detached = 0  # taint that went through a detach
        self.sliced: set[int] = set()  # variables of values that were taken apart
        self.dropped: dict[int, Node] = {}  # taint bit -> first node that took a summand away
        self.flow: dict[str, frozenset[int]] = {}  # node -> variables in the degree it gives

    def constant(self, shape: Shape, form: int = ZERO, taint: int = 0) -> Value:
        """A value of degree zero (or an exact zero) that may differ from place to place."""
        return Value(shape, (Term(uniform(len(shape), form), None, taint),))

    def scalar(self, shape: Shape, number: float = 1.0) -> Value:
        """One number in all places."""
        rank = len(shape)
        form = ANY if number == 0 else ZERO
        return Value(shape, (Term(uniform(rank, form), uniform(rank, 0), 0),))

    def sum_of(self, shape: Shape, terms: Sequence[Term], *, apart: bool = False) -> Value:
        """A sum: terms that vary everywhere must agree and become one, the others wait.

        Summands that are exactly zero only add their taint. With `apart`, all whose numbers have
        labels wait: a mean of them may be subtracted from them.
        """
        zeros = 0
        varying: Term | None = None
        waiting: list[Term] = []
        for term in terms:
            if is_exact_zero(term):
                zeros |= term.taint
            elif varies_everywhere(term, shape) and not (apart and term.labels is not None):
                varying = term if varying is None else self._merge(varying, term)
            else:
                _absorb(waiting, term)
        kept = ([varying] if varying is not None else []) + waiting
        if not kept:
            return self.constant(shape, ANY, zeros)
        if len(kept) > MOST_TERMS:
            kept = [self._merge_all(kept)]
        if zeros:
            first = kept[0]
            kept[0] = Term(first.degree, first.labels, first.taint | zeros, first.key)
        return Value(shape, tuple(kept))

    def _merge(self, a: Term, b: Term) -> Term:
        return Term(self.equal(a.degree, b.degree), joined_labels(a, b), a.taint | b.taint)

    def _merge_all(self, terms: Sequence[Term]) -> Term:
        merged = terms[0]
        for term in terms[1:]:
            merged = self._merge(merged, term)
        return merged

    def one_term(self, value: Value) -> Term:
        """The value as a single term: all its summands must have one degree."""
        return self._merge_all(value.terms)

    def single(self, value: Value) -> Value:
        """The value with its summands merged."""
        if len(value.terms) == 1:
            return value
        return Value(value.shape, (self.one_term(value),), value.moment, value.regularised)

    def require_zero(self, value: Value) -> int:
        """Require every summand to be of degree zero; returns the taint."""
        for term in value.terms:
            self.vanish(term.degree)
        return taint_of(value)

    def broadcast(self, value: Value, shape: Shape) -> Value:
        """The value repeated to a larger shape."""
        if value.shape == shape:
            return value
        return Value(
            shape,
            tuple(_stretched(term, value.shape, shape) for term in value.terms),
            value.moment,
            value.regularised,
            value.mean_of,
        )

    def normalise(self, value: Value, axes: Sequence[int], *, subtracts_mean: bool) -> Value:
        """Divides by the size along `axes`: one degree along them before, degree zero after.

        A summand that is constant along the axes vanishes where the mean is subtracted.
        """
        terms = value.terms
        if subtracts_mean:
            terms = self.without_constants(value, axes)
        if not terms:
            return self.constant(value.shape, ANY)
        term = self._merge_all(terms)
        degree = self.unify(term.degree, axes)
        self.met_normaliser(degree)
        return self.constant(value.shape, ZERO, term.taint)

    def without_constants(self, value: Value, axes: Sequence[int]) -> tuple[Term, ...]:
        """The summands that are not constant along axes; the others vanish here."""
        kept: list[Term] = []
        for term in value.terms:
            if constant_along(term, value.shape, axes):
                self.drop(term)
            else:
                kept.append(term)
        return tuple(kept)

    def drop(self, term: Term) -> None:
        """Notes where a summand vanishes."""
        assert self.node is not None
        if not self.brief:
            bits = term.taint >> 1
            while bits:
                low = bits & -bits
                self.dropped.setdefault(low.bit_length() - 1, self.node)
                bits ^= low

    def met_normaliser(self, degree: IdArray) -> None:
        """Notes the parameters whose scale a normalisation takes away here."""
        assert self.node is not None
        for form in np.unique(degree).tolist():
            if form > ZERO:
                for variable, _ in self.table.forms[form]:
                    self.normalised.setdefault(variable, self.node)

    def taken_apart(self, value: Value) -> None:
        """Notes that only some elements of a value go on: parts of a tensor may differ."""
        if self.brief:
            return
        for term in value.terms:
            for form in np.unique(term.degree).tolist():
                if form > ZERO:
                    self.sliced.update(variable for variable, _ in self.table.forms[form])

    def multiply(self, a: Value, b: Value, shape: Shape) -> Value:
        """Elementwise product of two sums of terms."""
        if a is b:
            term = self.one_term(a)
            squared = Term(self.times(term.degree, 2), term.labels, term.taint)
            return Value(shape, (squared,), moment=True)
        if len(a.terms) * len(b.terms) > MOST_PRODUCTS:
            a, b = self.single(a), self.single(b)
        a, b = self.broadcast(a, shape), self.broadcast(b, shape)
        terms = [
            Term(self.plus(x.degree, y.degree), joined_labels(x, y), x.taint | y.taint)
            for x in a.terms
            for y in b.terms
        ]
        return self.sum_of(shape, terms)

    def power(self, value: Value, exponent: Coefficient, *, moment: bool = False) -> Value:
        """An elementwise power, or any function of that degree of homogeneity."""
        term = self.one_term(value)
        degree = self.times(term.degree, exponent)
        return Value(value.shape, (Term(degree, term.labels, term.taint),), moment)

    def add(self, a: Value, b: Value, shape: Shape) -> Value:
        """Elementwise sum."""
        a, b = self.broadcast(a, shape), self.broadcast(b, shape)
        return self.sum_of(shape, (*a.terms, *b.terms))

    def subtract(self, a: Value, b: Value, shape: Shape) -> Value:
        """Elementwise difference; summands that both have vanish."""
        a, b = self.broadcast(a, shape), self.broadcast(b, shape)
        left: list[Term] = []
        right = list(b.terms)
        for term in a.terms:
            match = next((at for at, t in enumerate(right) if same_numbers(term, t)), None)
            if match is None:
                left.append(term)
            else:
                self.drop(term)
                del right[match]
        return self.sum_of(shape, (*left, *renewed(right)))

    def centre(self, value: Value, axes: Sequence[int]) -> Value:
        """The value minus its mean over axes."""
        terms = self.without_constants(value, axes)
        if not terms:
            return self.constant(value.shape, ANY)
        term = self._merge_all(terms)
        degree = self.unify(term.degree, axes)
        return Value(value.shape, (Term(degree, None, term.taint),))


def taint_of(value: Value) -> int:
    """Parameters that the value's numbers depend on."""
    taint = 0
    for term in value.terms:
        taint |= term.taint
    return taint


def _absorb(waiting: list[Term], term: Term) -> None:
    """Adds a waiting summand; one of the same degree and constancy holds both."""
    for at, other in enumerate(waiting):
        same = (
            other.labels is not None
            and term.labels is not None
            and other.degree.flat[0] == term.degree.flat[0]
            and other.labels.shape == term.labels.shape
            and np.array_equal(other.degree, term.degree)
            and np.array_equal(other.labels, term.labels)
        )
        # What depends on the batch stays apart from what does not: it may vary along the batch.
        if same and (other.taint & INPUT) == (term.taint & INPUT):
            waiting[at] = Term(other.degree, other.labels, other.taint | term.taint)
            return
    waiting.append(term)


def _stretched(term: Term, old: Shape, new: Shape) -> Term:
    extra = len(new) - len(old)
    degree = term.degree.reshape((1,) * extra + term.degree.shape)
    grows = any(a != b for a, b in zip((1,) * extra + old, new, strict=True))
    if term.labels is None and not grows:
        return Term(degree, None, term.taint, term.key)
    labels = labelled(term, old)
    return Term(degree, labels.reshape((1,) * extra + labels.shape), term.taint, term.key)


def argument_values(
    arguments: Mapping[str, object], values: Mapping[str, Value | list[Value]]
) -> list[Value]:
    """Every value among the arguments of a node, lists flattened."""
    found: list[Value] = []

    def visit(item: object) -> None:
        if isinstance(item, Ref):
            value = values[item.name]
            found.extend(value if isinstance(value, list) else [value])
        elif isinstance(item, list | tuple):
            for inner in item:
                visit(inner)

    for argument in arguments.values():
        visit(argument)
    return found
