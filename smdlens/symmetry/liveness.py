"""Which elements of each value the outputs depend on: a range per axis, found backwards.

A classifier that reads only the class token leaves the other tokens of the last layers without
effect. What is not read may as well be zero, so it constrains nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from smdlens.symmetry.forms import ANY
from smdlens.symmetry.model_graph import ModelGraph, Node, Ref, Shape, references
from smdlens.symmetry.ranges import BACKWARD, Box, full, hull
from smdlens.symmetry.values import Term, Value, uniform

# These ask nothing of degrees, so what they move may be narrowed by whoever reads it.
_MOVES = frozenset({
    "slice", "select", "narrow", "view", "reshape", "_unsafe_view", "flatten", "unflatten",
    "permute", "transpose", "t", "squeeze", "unsqueeze", "expand", "clone", "contiguous", "alias",
    "to", "_to_copy", "dropout", "split", "split_with_sizes", "chunk", "unbind",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Liveness:
    """What is read.

    Attributes:
        dead: Nodes of which nothing is read.
        reads: (node, name of an input) -> the box that it reads, where that is not everything;
            None where it reads nothing.
    """

    dead: frozenset[str] = frozenset()
    reads: Mapping[tuple[str, str], Box | None] = field(default_factory=dict)


def liveness(graph: ModelGraph, nodes: Sequence[Node]) -> Liveness:
    """Follows from the outputs backwards what is read.

    Args:
        graph: The network.
        nodes: Its live nodes in order.
    """
    shapes: dict[str, Shape] = {name: p.shape for name, p in graph.parameters.items()}
    shapes.update({name: c.shape for name, c in graph.constants.items()})
    shapes.update({node.name: node.shapes[0] for node in nodes if not node.listed})
    listed = {node.name: node for node in nodes if node.listed}
    wanted: dict[str, Box | None] = {}  # hull of all reads so far
    items: dict[str, dict[int, Box | None]] = {}  # the same for the items of sequences
    for name in graph.outputs:
        if name in shapes:
            wanted[name] = full(shapes[name])
    dead: set[str] = set()
    reads: dict[tuple[str, str], Box | None] = {}
    outputs = set(graph.outputs)
    for node in reversed(nodes):
        asked = {argument for a in node.arguments.values() for argument in references(a)}
        box = wanted.get(node.name)
        if node.listed:
            known = items.get(node.name)
            whole = node.name in outputs or known is None
            needs = _needs_of_list(node, {} if whole else known or {}, shapes, whole=whole)
        elif box is None and node.name not in outputs:
            dead.add(node.name)
            continue
        elif node.op == "getitem" and _item(node, listed) is not None:
            source, at = _item(node, listed) or ("", 0)
            before = items.setdefault(source, {}).get(at)
            items[source][at] = hull(before, box)
            continue
        else:
            needs = _needs(node, box, shapes)
        for name in asked:
            if name in listed:
                items.setdefault(name, {}).update(
                    {at: full(shape) for at, shape in enumerate(listed[name].shapes)}
                )
                continue
            everything = full(shapes[name])
            need = needs.get(name, everything)
            wanted[name] = hull(wanted.get(name), need)
            if need != everything and node.op not in _MOVES:
                reads[node.name, name] = need
    return Liveness(frozenset(dead), reads)


def _item(node: Node, listed: Mapping[str, Node]) -> tuple[str, int] | None:
    source, at = node.arguments.get("self"), node.arguments.get("index")
    if isinstance(source, Ref) and source.name in listed and isinstance(at, int):
        return source.name, at % len(listed[source.name].shapes)
    return None


def _needs(node: Node, box: Box | None, shapes: Mapping[str, Shape]) -> dict[str, Box | None]:
    """Name of an input -> what of it the box needs; missing where all of it."""
    rule = BACKWARD.get(node.op)
    needs: dict[str, Box | None] = {}
    takes_part = node.op in ("slice", "select", "narrow")
    if rule is not None and box is not None and (takes_part or box != full(node.shapes[0])):
        for name, need in rule(node, box, shapes):
            needs[name] = hull(needs[name], need) if name in needs else need
    return needs


def _needs_of_list(
    node: Node, boxes: Mapping[int, Box | None], shapes: Mapping[str, Shape], *, whole: bool
) -> dict[str, Box | None]:
    """Of a value that is split along an axis: the hull of what its pieces need."""
    source = node.arguments.get("self")
    split = ("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split", "unbind")
    if whole or node.op not in split or not isinstance(source, Ref):
        return {}
    shape = shapes[source.name]
    given = node.arguments.get("dim", 0)
    axis = (given if isinstance(given, int) else 0) % len(shape)
    total: Box | None = None
    start = 0
    for at, piece in enumerate(node.shapes):
        length = 1 if node.op == "unbind" else piece[axis]
        box = boxes.get(at)
        if box is not None:
            if node.op == "unbind":
                own = (*box[:axis], (start, start + 1), *box[axis:])
            else:
                low, high = box[axis]
                own = (*box[:axis], (start + low, start + high), *box[axis + 1 :])
            total = hull(total, own)
        start += length
    return {source.name: total}


def masked(value: Value, box: Box | None) -> Value:
    """The value with zeros, which have every degree, where nothing is read."""
    if box is None:
        return Value(value.shape, (Term(uniform(len(value.shape), ANY), None, 0),))
    return Value(
        value.shape,
        tuple(_masked(term, value.shape, box) for term in value.terms),
        value.moment,
        value.regularised,
        value.mean_of,
    )


def _masked(term: Term, shape: Shape, box: Box) -> Term:
    narrow = [axis for axis, (r, size) in enumerate(zip(box, shape, strict=True)) if r != (0, size)]
    sizes = [shape[a] if a in narrow else term.degree.shape[a] for a in range(len(shape))]
    outside = np.ones([shape[a] if a in narrow else 1 for a in range(len(shape))], dtype=bool)
    outside[tuple(slice(*box[a]) if a in narrow else slice(None) for a in range(len(shape)))] = (
        False
    )
    degree = np.where(outside, ANY, np.broadcast_to(term.degree, sizes))
    return Term(degree, term.labels, term.taint, term.key)


def narrowed(
    node: Node, values: Mapping[str, Value | list[Value]], live: Liveness
) -> Iterator[tuple[str, Value]]:
    """Inputs of which a node reads only a part, with zeros in place of the rest."""
    for argument in node.arguments.values():
        for name in references(argument):
            value = values[name]
            if (node.name, name) in live.reads and isinstance(value, Value):
                yield name, masked(value, live.reads[node.name, name])
