"""Graph in, every scale symmetry out: tensors alone, in part, in sets, and at which granularity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from smdlens.symmetry.degrees import Reason
from smdlens.symmetry.engine import Engine
from smdlens.symmetry.forms import Form, FormTable, IdArray
from smdlens.symmetry.joint import joint_sets
from smdlens.symmetry.linear_system import LinearSystem, Row
from smdlens.symmetry.liveness import liveness
from smdlens.symmetry.model_graph import ModelGraph, Node, Parameter, live_nodes, references
from smdlens.symmetry.partition import Partition
from smdlens.symmetry.prune import pruned
from smdlens.symmetry.run import carry


@dataclass(frozen=True, slots=True)
class Channels:
    """How one tensor falls into pieces along an axis.

    Attributes:
        axis: The axis.
        classes: Per index the piece it belongs to; -1 where it may not be scaled.
        normalised: Per index whether a normalisation takes its scale away; where none does, the
            index may be scaled because its value is not used.
        tied_by: Why two indices had to share a piece, if any had to.
    """

    axis: int
    classes: IdArray
    normalised: NDArray[np.bool_]
    tied_by: Reason | None


@dataclass(frozen=True, slots=True)
class Solution:
    """Every answer, by the position of the parameter in `parameters`.

    Attributes:
        basis: Null space: exponent vectors (parameter -> exponent) that keep the outputs.
        alone: Parameters whose scale alone changes nothing.
        reaching: Parameters whose value reaches an output.
        used: Parameters that any live operator reads.
        blocking: First constraint that scaling a parameter alone would break.
        blocking_forms: The form that this constraint wants to vanish.
        normaliser: First normalisation that takes a parameter's scale away.
        channels: Pieces of the tensors that were asked for.
        joint: Sets that live on a sphere together, smallest first.
        joint_channels: Per set, the pieces of each member.
        dropped: Parameter -> first node at which a summand that holds it vanished.
        flow: Node -> parameters whose scale its result carries.
        detached: Parameters with a value that went through `detach`.
        ignored_epsilons: Node and size of each epsilon that was taken for one.
        without_rule: Operators that got the sound default, with their number.
    """

    parameters: tuple[Parameter, ...]
    basis: tuple[Row, ...]
    alone: frozenset[int]
    reaching: frozenset[int]
    used: frozenset[int]
    blocking: Mapping[int, Reason]
    blocking_forms: Mapping[int, Form]
    normaliser: Mapping[int, Node]
    channels: Mapping[int, Channels]
    joint: tuple[frozenset[int], ...]
    joint_channels: Mapping[frozenset[int], Mapping[int, Channels]]
    dropped: Mapping[int, Node]
    flow: Mapping[str, frozenset[int]]
    detached: frozenset[int]
    ignored_epsilons: tuple[tuple[str, float], ...]
    without_rule: Mapping[str, int] = field(default_factory=dict)


def solve(graph: ModelGraph, *, frozen: Iterable[str] = (), granularity: bool = True) -> Solution:
    """All scale symmetries of a network.

    Args:
        graph: The network.
        frozen: Names of running variances that never moved: those norms were constants.
        granularity: Whether to ask which channels can be scaled on their own.
    """
    problem = _Problem(graph, frozenset(frozen))
    engine, system, taint = problem.by_tensor()
    count = len(problem.names)
    blocking = system.blocking()
    alone = frozenset(at for at in range(count) if at not in blocking)
    order = sorted(range(count), key=lambda at: len(problem.parameters[at].shape) >= 2)
    basis = system.null_space(order)
    reaching = frozenset(at for at in range(count) if taint >> (at + 1) & 1)
    used_names = {
        name
        for node in live_nodes(graph)
        for a in node.arguments.values()
        for name in references(a)
    } | set(graph.outputs)
    joint = tuple(joint_sets(basis))
    channels: dict[int, Channels] = {}
    joint_channels: dict[frozenset[int], Mapping[int, Channels]] = {}
    if granularity:
        channels = problem.channels(alone & reaching, engine.sliced - alone)
        joint_channels = problem.joint_channels(joint)
    return Solution(
        parameters=problem.parameters,
        basis=tuple(basis),
        alone=alone,
        reaching=reaching,
        used=frozenset(at for at, name in enumerate(problem.names) if name in used_names),
        blocking={at: reason for at, (reason, _) in blocking.items()},
        blocking_forms={at: form for at, (_, form) in blocking.items()},
        normaliser=engine.normalised,
        channels=channels,
        joint=joint,
        joint_channels=joint_channels,
        dropped=engine.dropped,
        flow=engine.flow,
        detached=frozenset(at for at in range(count) if engine.detached >> (at + 1) & 1),
        ignored_epsilons=tuple((node.name, number) for node, number in engine.ignored_epsilons),
        without_rule=engine.without_rule,
    )


class _Problem:
    """One graph, asked several questions."""

    def __init__(self, graph: ModelGraph, frozen: frozenset[str]) -> None:
        graph = pruned(graph)
        self.graph = graph
        self.nodes = live_nodes(graph)
        self.live = liveness(graph, self.nodes)
        # Tied parameters share a variable: several leaves, one name.
        merged: dict[str, int] = {}
        self.names: list[str] = []
        parameters: list[Parameter] = []
        self.index: dict[str, int] = {}
        for leaf, parameter in graph.parameters.items():
            if parameter.name not in merged:
                merged[parameter.name] = len(parameters)
                parameters.append(parameter)
                self.names.append(leaf)
            self.index[leaf] = merged[parameter.name]
        self.parameters = tuple(parameters)
        self.frozen = frozenset(
            leaf for leaf, constant in graph.constants.items() if constant.name in frozen
        )

    def _carry(self, engine: Engine, exponents: Mapping[int, IdArray]) -> int:
        engine.frozen = self.frozen
        degrees = {leaf: exponents[at] for leaf, at in self.index.items() if at in exponents}
        bits = {leaf: 1 << (at + 1) for leaf, at in self.index.items()}
        return carry(engine, self.graph, self.nodes, degrees, bits, self.live)

    def by_tensor(self) -> tuple[Engine, LinearSystem, int]:
        """One exponent per tensor."""
        table = FormTable(len(self.parameters))
        system = LinearSystem(table)
        engine = Engine(table, system)
        exponents = {
            at: np.full((1,) * len(parameter.shape), at + 1, np.int64)
            for at, parameter in enumerate(self.parameters)
        }
        return engine, system, self._carry(engine, exponents)

    def pieces(self, asked: Mapping[int, int], blocks: Mapping[int, int]) -> dict[int, Channels]:
        """One exponent per index along an axis of each asked tensor, all others zero.

        Args:
            asked: Parameter -> axis.
            blocks: Parameter -> set of tensors that are scaled together.
        """
        if not asked:
            return {}
        exponents: dict[int, IdArray] = {}
        ranges: dict[int, IdArray] = {}
        owner: list[IdArray] = []
        start = 0
        for at, axis in asked.items():
            shape = self.parameters[at].shape
            size = shape[axis] if shape else 1
            ranges[at] = np.arange(start, start + size, dtype=np.int64)
            lying = [size if a == axis else 1 for a in range(len(shape))]
            exponents[at] = (ranges[at] + 1).reshape(lying)
            owner.append(np.full(size, blocks[at], np.int64))
            start += size
        table = FormTable(start)
        partition = Partition(table, np.concatenate(owner))
        engine = Engine(table, partition, brief=True)
        self._carry(engine, exponents)
        partition.finish()
        met = np.zeros(start, dtype=bool)
        met[[v for v in engine.normalised if v < start]] = True
        roots = partition.roots()
        met_roots = np.zeros(start, dtype=bool)
        met_roots[roots[met]] = True
        found: dict[int, Channels] = {}
        for at, axis in asked.items():
            classes = partition.classes(ranges[at])
            found[at] = Channels(
                axis, classes, met_roots[roots[ranges[at]]], partition.tied_by.get(blocks[at])
            )
        return found

    def channels(self, wanted: frozenset[int], apart: set[int]) -> dict[int, Channels]:
        """Pieces of the tensors that are invariant, and of matrices that may be in part.

        Asked along the first axis; what is tied altogether there is asked along the next.

        Args:
            wanted: Invariant tensors.
            apart: Others, whose elements go different ways.
        """
        rest = {at for at in apart if len(self.parameters[at].shape) >= 2}
        asked = dict.fromkeys(sorted(wanted | rest), 0)
        found = self.pieces(asked, {at: at for at in asked})
        for axis in (1, 2, 3):
            again = {
                at: axis
                for at in sorted(wanted)
                if len(self.parameters[at].shape) > axis and _is_one(found[at].classes)
            }
            for at, pieces in self.pieces(again, {at: at for at in again}).items():
                if not _is_one(pieces.classes):
                    found[at] = pieces
        return found

    def joint_channels(
        self, sets: Sequence[frozenset[int]]
    ) -> dict[frozenset[int], Mapping[int, Channels]]:
        """Pieces of jointly invariant sets; sets that share members are asked one after another."""
        waiting = list(sets)
        found: dict[frozenset[int], Mapping[int, Channels]] = {}
        for _ in range(4):
            taken: dict[int, int] = {}
            now: list[frozenset[int]] = []
            for members in waiting:
                if not any(at in taken for at in members):
                    now.append(members)
                    taken.update(dict.fromkeys(members, len(now)))
            pieces = self.pieces(dict.fromkeys(sorted(taken), 0), taken)
            for members in now:
                found[members] = {at: pieces[at] for at in members}
            waiting = [members for members in waiting if members not in found]
            if not waiting:
                break
        return found


def _is_one(classes: IdArray) -> bool:
    """True where all indices are one piece (or none of them found its own)."""
    return bool((classes == classes[0]).all())
