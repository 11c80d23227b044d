"""Every claim about every tensor of a network, and what an experiment says of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from smdlens.symmetry.forms import IdArray
from smdlens.symmetry.records import TensorSymmetry
from smdlens.symmetry.scale_symmetry import ScaleSymmetry
from smdlens.symmetry.verify_experiment import Experiment
from smdlens.symmetry.verify_pieces import Pieces, Sums, free_runs, joint_pieces, stated_pieces
from smdlens.vocabulary import Role

SAME = 1e-9  # outputs under a symmetry change by some 1e-14, under anything else by 1e-5 and more
EULER = 1e-10  # |<w, dL/dw>| / |L| likewise
_FACTORS = (0.5, 3.0, 20.0)
# Where nothing seems to depend on a tensor, the point may be to blame (a dead ReLU): try others.
_FURTHER_SEEDS = (3, 4)
_FREE = (Role.SCALE_INVARIANT, Role.PARTLY_SCALE_INVARIANT, Role.IRRELEVANT)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the experiment says of one tensor.

    Attributes:
        detail: In words, with the numbers; both answers where they disagree.
        against_role: The role is not what was said.
        against_pieces: The role is, but smaller pieces can be rescaled on their own.
    """

    detail: str
    against_role: bool = False
    against_pieces: bool = False


class Claims:
    """The claims of a solution and the experiment they are held against.

    Args:
        symmetry: The claims.
        experiment: Makes an experiment from a seed.
    """

    def __init__(self, symmetry: ScaleSymmetry, experiment: Callable[[int], Experiment]) -> None:
        self._tensors = tensors = symmetry.tensors
        self._pieces = {name: stated_pieces(t, symmetry.pieces) for name, t in tensors.items()}
        self._sets = {
            unit: joint_pieces(
                {name: tensors[name] for name in unit}, symmetry.joint_pieces.get(unit, {})
            )
            for unit in self._units()
            if len(unit) > 1
        }
        self._make = experiment
        self._here = experiment(1)
        self._sums = {
            name: Sums.of(products) for name, products in self._here.products() if name in tensors
        }
        self._rng = np.random.default_rng(0)

    @cached_property
    def _further(self) -> list[Experiment]:
        return [self._make(seed) for seed in _FURTHER_SEEDS]

    def verdicts(self) -> dict[str, Verdict]:
        """One verdict per tensor."""
        units = self._units()
        wrong = self._wrong(units)
        found: dict[str, Verdict] = {}
        for name, tensor in self._tensors.items():
            refuted = [change for unit, change in wrong if name in unit]
            found[name] = self._verdict(tensor, max(refuted, default=0.0))
        return found

    # -- claims of "this scale does nothing" -----------------------------------------------------

    def _units(self) -> list[tuple[str, ...]]:
        """What is rescaled together: a tensor alone, or a jointly invariant set."""
        units: dict[tuple[str, ...], None] = {}
        for name, tensor in self._tensors.items():
            if tensor.role in _FREE:
                units.setdefault((name,))
            elif tensor.role is Role.JOINTLY_SCALE_INVARIANT:
                units.setdefault(_unit(tensor))
        return list(units)

    def _factors(self, units: Sequence[tuple[str, ...]]) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng(5)
        total: dict[str, torch.Tensor] = {}
        for unit in units:
            pieces = self._sets.get(unit, self._pieces)
            numbers = sorted({p for n in unit for p in pieces[n].classes.tolist()} - {-1})
            shared = {piece: rng.uniform(0.4, 2.5) for piece in numbers}
            for name in unit:
                own = pieces[name].with_factors(self._tensors[name].shape, shared, rng)
                total[name] = total[name] * own if name in total else own
        return total

    def _wrong(self, units: list[tuple[str, ...]]) -> list[tuple[tuple[str, ...], float]]:
        """Units whose rescaling changes the outputs, each with its change."""
        if not units:
            return []
        change = self._here.change(self._factors(units))
        if change <= SAME:
            return []
        if len(units) == 1:
            return [(units[0], change)]
        middle = len(units) // 2
        return self._wrong(units[:middle]) + self._wrong(units[middle:])

    # -- verdicts --------------------------------------------------------------------------------

    def _verdict(self, tensor: TensorSymmetry, change: float) -> Verdict:
        said = f"the graph says {describe(tensor)}"
        if tensor.role is Role.UNKNOWN:
            return Verdict("not asked")
        if tensor.role is Role.NOT_SCALE_INVARIANT:
            return self._matters(tensor, said)
        if change > SAME:
            return Verdict(
                f"{said}, rescaling changes the outputs by {change:.1e}", against_role=True
            )
        worst = self._worst_sum(tensor)
        if worst > EULER:
            return Verdict(
                f"{said} and rescaling agrees, but the gradient is not orthogonal to it "
                f"(<w, g> / L = {worst:.1e})",
                against_role=True,
            )
        return self._more_than_said(tensor, said) or Verdict(
            f"confirmed{self._by_piece(tensor)}: rescaling changes the outputs by less than "
            f"{SAME:.0e}; <w, g> / L = {worst:.0e}"
        )

    def _by_piece(self, tensor: TensorSymmetry) -> str:
        if tensor.role is Role.IRRELEVANT:
            return " element by element"
        joint = tensor.role is Role.JOINTLY_SCALE_INVARIANT
        pieces = self._sets[_unit(tensor)] if joint else self._pieces
        count = len(set(pieces[tensor.name].classes.tolist()) - {-1})
        return f" piece by piece ({count} along axis {tensor.axis})" if count > 1 else ""

    def _worst_sum(self, tensor: TensorSymmetry) -> float:
        """Largest Euler sum of any piece, over all members of a set."""
        if tensor.role is Role.IRRELEVANT:
            return self._sums[tensor.name].weight
        if tensor.role is not Role.JOINTLY_SCALE_INVARIANT:
            own = self._pieces[tensor.name].sums(self._sums[tensor.name])
            return float(np.abs(own).max())
        total: dict[int, float] = {}
        for name, pieces in self._sets[_unit(tensor)].items():
            along = self._sums[name].along[pieces.axis].tolist()
            for piece, value in zip(pieces.classes.tolist(), along, strict=True):
                total[piece] = total.get(piece, 0.0) + value
        return max((abs(value) for piece, value in total.items() if piece >= 0), default=0.0)

    def _matters(self, tensor: TensorSymmetry, said: str) -> Verdict:
        """A tensor whose scale is said to matter."""
        sums = self._sums[tensor.name]
        if abs(sums.total) <= EULER and self._never_changes(tensor, whole=True):
            return Verdict(f"{said}, rescaling changes nothing", against_role=True)
        run = self._free_run(tensor, pieces=None)
        if run is not None:
            axis, (low, high) = run
            return Verdict(
                f"{said}, but indices {low}:{high} of axis {axis} can be rescaled on their own",
                against_role=True,
            )
        return Verdict(f"confirmed: its scale matters (<w, g> / L = {abs(sums.total):.0e})")

    def _more_than_said(self, tensor: TensorSymmetry, said: str) -> Verdict | None:
        """Freedom beyond the claim: no use of the values at all, alone, or in smaller pieces."""
        sums = self._sums[tensor.name]
        if tensor.role is Role.IRRELEVANT:
            return None
        if sums.weight <= EULER and self._never_changes(tensor, whole=False):
            return Verdict(f"{said}, but nothing depends on its values", against_role=True)
        if tensor.role is Role.JOINTLY_SCALE_INVARIANT:
            if abs(sums.total) <= EULER and self._never_changes(tensor, whole=True):
                return Verdict(f"{said}, but rescaling it alone changes nothing", against_role=True)
            return None
        run = self._free_run(tensor, self._pieces[tensor.name].classes)
        if run is None:
            return None
        axis, (low, high) = run
        return Verdict(
            f"{said}; smaller pieces are free: indices {low}:{high} of axis {axis} can be rescaled "
            "on their own",
            against_pieces=True,
        )

    def _free_run(
        self, tensor: TensorSymmetry, pieces: IdArray | None
    ) -> tuple[int, tuple[int, int]] | None:
        """Axis and indices that can be rescaled though nothing said so."""
        sums = self._sums[tensor.name]
        stated = self._pieces[tensor.name].axis
        single = pieces is not None and len(set(pieces.tolist())) == 1
        for axis in sums.along if single or pieces is None else (stated,):
            own = pieces if axis == stated else None if pieces is None else _one(sums, axis)
            for run in free_runs(sums.along[axis], sums.size[axis], own):
                length = len(sums.along[axis])
                classes = np.full(length, -1)
                classes[slice(*run)] = 0
                free = Pieces(axis, classes, np.zeros(length, dtype=bool))
                if self._never_changes(tensor, pieces=free):
                    return axis, run
        return None

    def _never_changes(
        self, tensor: TensorSymmetry, *, whole: bool = True, pieces: Pieces | None = None
    ) -> bool:
        """Whether no factor changes the outputs, at any of several points.

        Args:
            tensor: What is rescaled.
            whole: As a whole; False scales every element by a factor of its own.
            pieces: Only these.
        """
        if pieces is None:
            length = tensor.shape[0] if tensor.shape else 1
            every = np.ones(length, dtype=bool)
            classes = np.zeros(length, np.int64) if whole else np.full(length, -1)
            pieces = Pieces(0, classes, ~every if whole else every)
        factors = [pieces.with_factors(tensor.shape, {0: k}, self._rng) for k in _FACTORS]
        return all(
            experiment.change({tensor.name: factor}) <= SAME
            for experiment in [self._here, *self._further]
            for factor in factors
        )


def _one(sums: Sums, axis: int) -> IdArray:
    """All indices of an axis as one piece."""
    return np.zeros(len(sums.along[axis]), np.int64)


def _unit(tensor: TensorSymmetry) -> tuple[str, ...]:
    """The names of a jointly invariant set."""
    return tuple(sorted((tensor.name, *tensor.joint_with)))


def describe(tensor: TensorSymmetry) -> str:
    """Role and granularity in words."""
    words = tensor.role.value.replace("_", " ")
    return words if tensor.granularity is None else f"{words} per {tensor.granularity.value}"
