"""Pieces of a tensor as stated, their Euler sums, and runs of indices that are free unsaid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from smdlens.symmetry.forms import IdArray
from smdlens.symmetry.records import TensorSymmetry
from smdlens.vocabulary import Granularity, Role

Float = NDArray[np.float64]
Known = Mapping[str, tuple[int, IdArray]]
# A sum of products below this share of the sum of their sizes says that they cancel.
CANCELS = 1e-9


@dataclass(frozen=True)
class Sums:
    """Sums of w * dL/dw / |L| over everything but one axis.

    Attributes:
        shape: The parameter's shape.
        along: Per axis, the sum at each index; one entry under axis 0 for a scalar.
        size: Per axis, the sum of absolute values.
    """

    shape: tuple[int, ...]
    along: Mapping[int, Float]
    size: Mapping[int, Float]

    @classmethod
    def of(cls, products: torch.Tensor) -> Sums:
        """Reduces the products of one parameter."""
        flat = products.reshape(1) if products.dim() == 0 else products
        along, size = {}, {}
        for axis in range(flat.dim()):
            rest = [other for other in range(flat.dim()) if other != axis]
            along[axis] = (flat.sum(rest) if rest else flat).numpy()
            size[axis] = (flat.abs().sum(rest) if rest else flat.abs()).numpy()
        return cls(tuple(products.shape), along, size)

    @property
    def total(self) -> float:
        """<w, dL/dw> / |L|."""
        return float(self.along[0].sum())

    @property
    def weight(self) -> float:
        """Sum of |w dL/dw| / |L|: 0 where nothing depends on the values."""
        return float(self.size[0].sum())


@dataclass(frozen=True)
class Pieces:
    """How a tensor may be rescaled by what was said of it.

    Attributes:
        axis: The axis of `classes`.
        classes: Per index its piece, -1 where it may not be scaled.
        elementwise: Per index whether each element may be scaled on its own (irrelevant parts).
    """

    axis: int
    classes: IdArray
    elementwise: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))

    def factors(self, shape: tuple[int, ...], rng: np.random.Generator) -> torch.Tensor:
        """A random factor for each piece (and each element of irrelevant parts)."""
        drawn = dict.fromkeys(sorted(set(self.classes.tolist()) - {-1}))
        return self.with_factors(shape, {piece: rng.uniform(0.4, 2.5) for piece in drawn}, rng)

    def with_factors(
        self, shape: tuple[int, ...], drawn: Mapping[int, float], rng: np.random.Generator
    ) -> torch.Tensor:
        """The same with given factors of the pieces."""
        own = np.array([drawn.get(piece, 1.0) for piece in self.classes.tolist()])
        lying = [1] * len(shape)
        if shape:
            lying[self.axis] = -1
        factors = np.broadcast_to(own.reshape(lying), shape).copy()
        if len(self.elementwise) and self.elementwise.any():
            free = np.broadcast_to(self.elementwise.reshape(lying), shape)
            factors[free] = rng.uniform(0.4, 2.5, int(free.sum()))
        return torch.from_numpy(factors)

    def sums(self, sums: Sums) -> Float:
        """Euler sum of each piece."""
        kept = self.classes >= 0
        _, place = np.unique(self.classes[kept], return_inverse=True)
        along = sums.along[self.axis][kept]
        return np.bincount(place, along, minlength=1).astype(np.float64)


def stated_pieces(tensor: TensorSymmetry, known: Known) -> Pieces:
    """The pieces that role, granularity and parts of a tensor claim.

    Args:
        tensor: The claim.
        known: Axis and piece of each index as the solver found them, where there are several.
            Used where their number is the claimed one; else pieces are runs of equal length.
    """
    axis = tensor.axis or 0
    length = tensor.shape[axis] if tensor.shape else 1
    found = known.get(tensor.name)
    solved = found[1] if found is not None and found[0] == axis else None
    if tensor.role is Role.IRRELEVANT:
        return Pieces(axis, np.full(length, -1), np.ones(length, dtype=bool))
    inside = np.ones(length, dtype=bool)
    elementwise = np.zeros(length, dtype=bool)
    if tensor.role is Role.PARTLY_SCALE_INVARIANT:
        inside[:] = False
        for part in tensor.parts:
            inside[part.index_from : part.index_to] = part.role is Role.SCALE_INVARIANT
            elementwise[part.index_from : part.index_to] = part.role is Role.IRRELEVANT
    classes = np.full(length, -1, dtype=np.int64)
    count = int(inside.sum())
    groups = 1 if tensor.granularity is Granularity.TENSOR else max(tensor.groups, 1)
    own = [] if solved is None else solved[inside].tolist()
    if solved is not None and len(set(own)) == groups and min(own, default=-1) >= 0:
        classes[inside] = own
    elif count:
        classes[inside] = np.arange(count) * groups // count
    return Pieces(axis, classes, elementwise)


def joint_pieces(members: Mapping[str, TensorSymmetry], known: Known) -> dict[str, Pieces]:
    """Pieces of a jointly invariant set; what bears one number is rescaled together.

    The solver numbers the pieces of a set across its members; where it did not for all of them,
    the set has one piece, whatever is claimed of a member.
    """
    numbered = all(name in known and (known[name][1] >= 0).all() for name in members)
    found: dict[str, Pieces] = {}
    for name, tensor in members.items():
        # A member whose own smallest set is another one says nothing about its pieces here.
        says = {name, *tensor.joint_with} == set(members)
        if numbered:
            found[name] = stated_pieces(tensor, known) if says else Pieces(*known[name])
        elif says:
            found[name] = stated_pieces(tensor, {})
        else:
            length = tensor.shape[0] if tensor.shape else 1
            found[name] = Pieces(0, np.zeros(length, np.int64))
    return found


def free_runs(sums: Float, size: Float, pieces: IdArray | None) -> list[tuple[int, int]]:
    """Shortest runs of indices, shorter than their piece, whose products cancel.

    Scaling such a run alone seems to change nothing. Runs in which nothing happens (no gradient)
    do not count.

    Args:
        sums: Sum of products at each index.
        size: Sum of their absolute values.
        pieces: Piece of each index; None looks for runs of any length.

    Returns:
        (from, to) of at most a few runs, the shortest first.
    """
    total = float(size.sum())
    if total == 0.0:
        return []
    alive = size > 1e-6 * total
    found: list[tuple[int, int]] = []
    for low, high in _stretches(pieces, len(sums)):
        path = np.concatenate([[0.0], np.cumsum(sums[low:high])])
        order = np.argsort(path, kind="stable")
        for a, b in pairwise(order.tolist()):
            start, stop = low + min(a, b), low + max(a, b)
            if pieces is not None and stop - start == high - low:
                continue
            own = float(size[start:stop].sum())
            if alive[start:stop].any() and abs(path[a] - path[b]) < CANCELS * own:
                found.append((start, stop))
    return sorted(found, key=lambda run: run[1] - run[0])[:3]


def _stretches(pieces: IdArray | None, length: int) -> list[tuple[int, int]]:
    """Runs of indices of one piece."""
    if pieces is None:
        return [(0, length)]
    edges = [0, *(np.flatnonzero(np.diff(pieces)) + 1).tolist(), length]
    return [(low, high) for low, high in pairwise(edges) if pieces[low] >= 0 and high - low > 1]
