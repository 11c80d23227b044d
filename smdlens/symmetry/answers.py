"""Solution -> one record per parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np

from smdlens.symmetry.explain import norm_kind, why_invariant, why_irrelevant, why_not, why_pieces
from smdlens.symmetry.forms import IdArray
from smdlens.symmetry.model_graph import ModelGraph, Node, Ref, references
from smdlens.symmetry.records import Evidence, NormBehind, TensorPart, TensorSymmetry
from smdlens.symmetry.solve import Channels, Solution
from smdlens.vocabulary import EvidenceKind, Granularity, Role


def answer(solution: Solution, graph: ModelGraph, at: int, is_head: bool) -> TensorSymmetry:
    """Role, pieces and reasons of one parameter."""
    parameter = solution.parameters[at]
    rank = len(parameter.shape)

    def made(
        role: Role,
        *details: str | None,
        granularity: Granularity | None = None,
        axis: int | None = 0 if rank else None,
        groups: int = 1,
        parts: tuple[TensorPart, ...] = (),
        joint_with: tuple[str, ...] = (),
        norm: NormBehind | None = None,
        clock: bool = False,
    ) -> TensorSymmetry:
        evidence = tuple(Evidence(EvidenceKind.GRAPH, d) for d in details if d)
        return TensorSymmetry(
            parameter.name, parameter.shape, parameter.dtype, role, granularity, axis, groups,
            evidence, parts, joint_with, norm, clock,
        )  # fmt: skip

    if at in solution.alone:
        if at not in solution.used:
            return made(Role.IRRELEVANT, "no output depends on it")
        if at not in solution.reaching:
            what = why_irrelevant(solution.dropped.get(at))
            return made(Role.IRRELEVANT, what, groups=_length(parameter.shape), clock=True)
        found = solution.channels.get(at)
        axis, groups, granularity = _granularity(solution, at, found)
        if groups == _numel(parameter.shape):
            return made(
                Role.IRRELEVANT, "one element per normalised channel: only its sign matters",
                groups=_length(parameter.shape), clock=True,
            )  # fmt: skip
        node = solution.normaliser.get(at)
        return made(
            Role.SCALE_INVARIANT,
            why_invariant(node) if node is not None else "no output sees its scale",
            why_pieces(found.tied_by) if found and granularity != Granularity.CHANNEL else None,
            "its value passes a detach: the gradient need not be orthogonal to it"
            if at in solution.detached
            else None,
            granularity=granularity,
            axis=axis,
            groups=groups,
            norm=_norm_behind(node, graph),
        )
    found = solution.channels.get(at)
    parts = _parts(solution, at, found) if found is not None else ()
    if parts and found is not None:
        node = solution.normaliser.get(at)
        ranges = ", ".join(
            f"{p.index_from}:{p.index_to}" for p in parts if p.role == Role.SCALE_INVARIANT
        )
        return made(
            Role.PARTLY_SCALE_INVARIANT,
            f"rows {ranges} are normalised" + (f" ({why_invariant(node)})" if node else ""),
            f"the rest is {why_not(solution, at)}",
            granularity=next(p.granularity for p in parts if p.granularity is not None),
            axis=found.axis,
            groups=len(set(found.classes[(found.classes >= 0) & found.normalised].tolist())),
            parts=parts,
            norm=_norm_behind(node, graph),
        )
    for members in solution.joint:
        if at in members:
            return _joint(solution, at, members, made, graph)
    return made(Role.NOT_SCALE_INVARIANT, why_not(solution, at), clock=is_head)


def _joint(
    solution: Solution,
    at: int,
    members: frozenset[int],
    made: Callable[..., TensorSymmetry],
    graph: ModelGraph,
) -> TensorSymmetry:
    names = tuple(solution.parameters[m].name for m in sorted(members) if m != at)
    pieces = solution.joint_channels.get(members, {}).get(at)
    groups, granularity = 1, Granularity.TENSOR
    shape = solution.parameters[at].shape
    if pieces is not None and not (pieces.classes < 0).any():
        groups = len(set(pieces.classes.tolist()))
        granularity = _named(solution, at, groups, shape, pieces)
    node = solution.normaliser.get(at)
    behind = {n.name: n for m in sorted(members) if (n := solution.normaliser.get(m)) is not None}
    # One normalisation takes the scale of the whole set away; of several each member has its own.
    common = next(iter(behind.values())) if len(behind) == 1 else node
    shown = ", ".join(f"`{name}`" for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return made(
        Role.JOINTLY_SCALE_INVARIANT,
        f"invariant only together with {shown}{more}",
        why_invariant(node) if node is not None else None,
        f"alone {why_not(solution, at)}",
        granularity=granularity,
        groups=groups,
        joint_with=names,
        norm=_norm_behind(common, graph),
    )


def _granularity(
    solution: Solution, at: int, found: Channels | None
) -> tuple[int | None, int, Granularity]:
    shape = solution.parameters[at].shape
    if found is None or (found.classes < 0).any():
        return (0 if shape else None), 1, Granularity.TENSOR
    groups = len(set(found.classes.tolist()))
    if groups == 1:
        return (0 if shape else None), 1, Granularity.TENSOR
    return found.axis, groups, _named(solution, at, groups, shape, found)


def _named(
    solution: Solution, at: int, groups: int, shape: tuple[int, ...], found: Channels
) -> Granularity:
    if groups == 1:
        return Granularity.TENSOR
    if groups == shape[found.axis]:
        return Granularity.CHANNEL
    node = solution.normaliser.get(at)
    grouped = len(shape) > 2 or (node is not None and "group_norm" in node.op)
    return Granularity.GROUP if grouped else Granularity.HEAD


def _parts(solution: Solution, at: int, found: Channels) -> tuple[TensorPart, ...]:
    """Runs of indices with one answer each; empty where no part is normalised."""
    free = (found.classes >= 0) & found.normalised
    if not free.any() or free.all():
        return ()
    edges = [0, *(np.flatnonzero(np.diff(free.astype(np.int8))) + 1).tolist(), len(free)]
    parts: list[TensorPart] = []
    for low, high in pairwise(edges):
        if free[low]:
            granularity = _part_granularity(found.classes[low:high])
            parts.append(TensorPart(low, high, Role.SCALE_INVARIANT, granularity))
        else:
            unused = bool((found.classes[low:high] >= 0).all())
            role = Role.IRRELEVANT if unused else Role.NOT_SCALE_INVARIANT
            parts.append(TensorPart(low, high, role, None))
    return tuple(parts)


def _part_granularity(classes: IdArray) -> Granularity:
    groups = len(set(classes.tolist()))
    if groups == len(classes):
        return Granularity.CHANNEL
    return Granularity.TENSOR if groups == 1 else Granularity.HEAD


def _norm_behind(node: Node | None, graph: ModelGraph) -> NormBehind | None:
    if node is None:
        return None

    def name(argument: str, leaves: Mapping[str, object]) -> str | None:
        ref = node.arguments.get(argument)
        if not isinstance(ref, Ref) or ref.name not in leaves:
            return None
        return getattr(leaves[ref.name], "name", None) or None

    kind = norm_kind(node)
    if kind in ("quotient", "weight_norm"):
        return NormBehind(kind, None, None, None)
    return NormBehind(
        kind,
        name("weight", graph.parameters),
        name("bias", graph.parameters),
        name("running_var", graph.constants),
    )


def output_layers(graph: ModelGraph) -> frozenset[str]:
    """Weights and biases of linear layers whose result is an output: softmax classifiers."""
    made = {node.name: node for node in graph.nodes}
    found: set[str] = set()
    for output in graph.outputs:
        node = made.get(output)
        while node is not None and node.op in ("view", "reshape", "clone", "to", "_to_copy"):
            node = made.get(next(references(node.arguments.get("self")), ""))
        if node is None or node.op not in ("linear", "addmm"):
            continue
        for argument in ("weight", "bias", "self", "mat2"):
            ref = node.arguments.get(argument)
            if isinstance(ref, Ref) and ref.name in graph.parameters:
                found.add(graph.parameters[ref.name].name)
    return frozenset(found)


def _length(shape: tuple[int, ...]) -> int:
    return shape[0] if shape else 1


def _numel(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64)) if shape else 1
