"""Sets of tensors that only together live on a sphere: 0/1 vectors in the null space.

A symmetry that gives every member of a set the same exponent leaves the set's concatenation on a
sphere; rescale pairs (w up, v down) do not. Free variables are entries of their basis vector, so
over the f free variables of a connected set of tensors the candidates are the 2^f choices of 0/1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, combinations

from smdlens.symmetry.linear_system import Row

_MOST_FREE = 10


def joint_sets(basis: Sequence[Row]) -> list[frozenset[int]]:
    """Small sets of two or more tensors with a common exponent 1, smallest first."""
    found: set[frozenset[int]] = set()
    for component in _components(basis):
        for chosen in _choices(component):
            total: Row = {}
            for vector in chosen:
                for variable, coefficient in vector.items():
                    total[variable] = total.get(variable, 0) + coefficient
            members = frozenset(v for v, c in total.items() if c != 0)
            if len(members) > 1 and all(total[v] == 1 for v in members):
                found.add(members)
    ordered = sorted(found, key=lambda s: (len(s), sorted(s)))
    minimal: list[frozenset[int]] = []
    for candidate in ordered:
        if not any(smaller < candidate for smaller in minimal):
            minimal.append(candidate)
    return minimal


def _choices(vectors: Sequence[Row]) -> Iterator[Iterable[Row]]:
    if len(vectors) <= _MOST_FREE:
        sizes: Iterable[int] = range(1, len(vectors) + 1)
    else:
        sizes = (1, 2) if len(vectors) <= 60 else (1,)
    yield from chain.from_iterable(combinations(vectors, size) for size in sizes)
    if len(vectors) > _MOST_FREE:
        yield vectors


def _components(basis: Sequence[Row]) -> list[list[Row]]:
    """Basis vectors of more than one entry, grouped by shared tensors."""
    groups: list[tuple[set[int], list[Row]]] = []
    for vector in basis:
        if len(vector) < 2:
            continue
        members, vectors = set(vector), [vector]
        apart = []
        for other, own in groups:
            if members & other:
                members |= other
                vectors = own + vectors
            else:
                apart.append((other, own))
        groups = [*apart, (members, vectors)]
    return [vectors for _, vectors in groups]
