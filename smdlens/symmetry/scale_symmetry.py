"""The room's answer for one network: every parameter with its role, its pieces and the reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from smdlens.symmetry.answers import answer, output_layers
from smdlens.symmetry.forms import IdArray
from smdlens.symmetry.model_graph import ModelGraph, references
from smdlens.symmetry.records import TensorSymmetry
from smdlens.symmetry.solve import Channels, Solution, solve

Pieces = Mapping[str, tuple[int, IdArray]]


@dataclass(frozen=True, slots=True)
class FlowNode:
    """One live operator, for a picture of where scales go.

    Attributes:
        name: Name of its result.
        op: Operator.
        module: Path of its module.
        inputs: Names of the results and parameters it reads.
        carries: Parameters whose scale the result carries; empty where its degree is zero.
    """

    name: str
    op: str
    module: str
    inputs: tuple[str, ...]
    carries: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EpsilonEffect:
    """How far a normalisation's epsilon is from nothing, at the weights the model came with.

    Attributes:
        share: Mean of eps / (var + eps) over channels, groups or positions.
        share_max: The largest.
        cosine: <w, g> / (|w| |g|), g the gradient of a random linear function of the outputs; 0 on
            an exact sphere. Of the whole set where a tensor is invariant only jointly.
    """

    share: float
    share_max: float
    cosine: float


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A tensor of which the graph and the experiment say different things; `detail` has both."""

    tensor: str
    detail: str


@dataclass(frozen=True, slots=True)
class ScaleSymmetry:
    """Every scale symmetry of a network.

    Attributes:
        tensors: Name -> role, granularity, axis, joint_with, evidence, in the model's order; one
            name per tied parameter.
        basis: Exponent vectors: scaling each named tensor by k to its exponent keeps the outputs
            for every k > 0, and so do all combinations of these.
        source: Where the graph came from.
        notes: What a reader should know: ignored epsilons, operators without a rule.
        aliases: Further names of tied parameters -> the name in `tensors`.
        flow: The live operators in order.
        pieces: Tensor -> axis and the piece of each index along it, where the solver looked.
        joint_pieces: The same for jointly invariant sets (names sorted); one number, one piece,
            across the members of a set.
        behind: Tensor -> path of the module whose normalisation takes its scale away.
        epsilon: Tensor -> what that normalisation's epsilon leaves of the invariance, if measured.
        disagreements: Where the experiment says something else; empty without one.
    """

    tensors: Mapping[str, TensorSymmetry]
    basis: tuple[Mapping[str, Fraction], ...]
    source: str
    notes: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    flow: tuple[FlowNode, ...] = ()
    pieces: Pieces = field(default_factory=dict)
    joint_pieces: Mapping[tuple[str, ...], Pieces] = field(default_factory=dict)
    behind: Mapping[str, str] = field(default_factory=dict)
    epsilon: Mapping[str, EpsilonEffect] = field(default_factory=dict)
    disagreements: tuple[Disagreement, ...] = ()


def symmetry_of_graph(graph: ModelGraph, *, frozen: Iterable[str] = ()) -> ScaleSymmetry:
    """Solves a graph and puts the answers into words.

    Args:
        graph: The network.
        frozen: Names of running variances that never moved; such norms were constants.
    """
    solution = solve(graph, frozen=frozen)
    heads = output_layers(graph)
    tensors: dict[str, TensorSymmetry] = {}
    for at, parameter in enumerate(solution.parameters):
        tensors[parameter.name] = answer(solution, graph, at, parameter.name in heads)
    return ScaleSymmetry(
        tensors=tensors,
        basis=tuple(
            {solution.parameters[at].name: Fraction(c) for at, c in sorted(vector.items())}
            for vector in solution.basis
        ),
        source=graph.source,
        notes=_notes(solution),
        flow=_flow(solution, graph),
        aliases={alias: p.name for p in solution.parameters for alias in p.aliases},
        pieces=_pieces(solution, solution.channels),
        behind={
            solution.parameters[at].name: node.module for at, node in solution.normaliser.items()
        },
        joint_pieces={
            tuple(sorted(solution.parameters[at].name for at in members)): _pieces(solution, found)
            for members, found in solution.joint_channels.items()
        },
    )


def _pieces(solution: Solution, found: Mapping[int, Channels]) -> Pieces:
    return {solution.parameters[at].name: (own.axis, own.classes) for at, own in found.items()}


def _flow(solution: Solution, graph: ModelGraph) -> tuple[FlowNode, ...]:
    leaves = {leaf: parameter.name for leaf, parameter in graph.parameters.items()}
    nodes = [node for node in graph.nodes if node.name in solution.flow]
    known = {node.name for node in nodes}
    return tuple(
        FlowNode(
            node.name,
            node.op,
            node.module,
            tuple(
                leaves.get(name, name)
                for argument in node.arguments.values()
                for name in references(argument)
                if name in known or name in leaves
            ),
            tuple(solution.parameters[at].name for at in sorted(solution.flow[node.name])),
        )
        for node in nodes
    )


def _notes(solution: Solution) -> tuple[str, ...]:
    notes: list[str] = []
    if solution.ignored_epsilons:
        sizes = sorted({size for _, size in solution.ignored_epsilons})
        shown = ", ".join(f"{size:g}" for size in sizes[:4])
        notes.append(
            f"{len(solution.ignored_epsilons)} small numbers beside sums of squares ({shown}) "
            "count as epsilons: invariance holds as far as they are small"
        )
    if solution.without_rule:
        shown = ", ".join(f"{op} ({n})" for op, n in sorted(solution.without_rule.items()))
        notes.append(f"taken to see every scale (no rule says otherwise): {shown}")
    return tuple(notes)
