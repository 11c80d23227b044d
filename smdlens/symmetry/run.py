"""One pass of degrees over a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from smdlens.symmetry.engine import Engine, argument_values, taint_of
from smdlens.symmetry.forms import ANY, ZERO, IdArray
from smdlens.symmetry.liveness import Liveness, narrowed
from smdlens.symmetry.model_graph import ModelGraph, Node, references
from smdlens.symmetry.rules import RULES, Call, NotCovered, Result, sound_default
from smdlens.symmetry.values import INPUT, Term, Value, uniform

# Only these may follow an epsilon that was ignored; anything else would see it.
_AFTER_EPSILON = frozenset({
    "sqrt", "rsqrt", "reciprocal", "pow", "div", "view", "reshape", "expand", "unsqueeze",
    "squeeze", "permute", "transpose", "to", "_to_copy", "clone", "contiguous", "expand_as",
    "alias", "type_as", "select", "getitem", "clamp", "clamp_min",
})  # fmt: skip
# Exact zeros and expanded vectors carry more than a degree.
_FOR_THEIR_LABELS = frozenset({
    "zeros", "zeros_like", "new_zeros", "full", "full_like", "expand", "softmax", "_softmax",
})  # fmt: skip


def carry(
    engine: Engine,
    graph: ModelGraph,
    nodes: Sequence[Node],
    exponents: Mapping[str, IdArray],
    bits: Mapping[str, int],
    live: Liveness,
) -> int:
    """Carries degrees from the leaves to the outputs and returns the outputs' taint.

    Args:
        engine: Takes the constraints.
        graph: The network.
        nodes: Its live nodes in order.
        exponents: Degree of each parameter, by the name of its value; zero where missing.
        bits: Taint of each parameter, likewise.
        live: What of each value is read.
    """
    values: dict[str, Result] = {}
    for name, parameter in graph.parameters.items():
        degree = exponents.get(name, uniform(len(parameter.shape), ZERO))
        values[name] = Value(parameter.shape, (Term(degree, None, bits.get(name, 0)),))
    for name, constant in graph.constants.items():
        if constant.is_zero:
            values[name] = engine.scalar(constant.shape, 0.0)
        else:
            values[name] = engine.constant(constant.shape, taint=INPUT if constant.is_input else 0)
    last_use = _last_uses(nodes, graph.outputs)
    for at, node in enumerate(nodes):
        engine.node = node
        if node.name in live.dead:
            values[node.name] = _unread(engine, node)
        else:
            inputs: Mapping[str, Result] = values
            if part := dict(narrowed(node, values, live)):
                inputs = {**values, **part}
            values[node.name] = _filled(engine, _apply(Call(engine, node, inputs)))
        if not engine.brief:
            engine.flow[node.name] = _variables(engine, values[node.name])
        for name in last_use.get(at, ()):
            del values[name]
    taint = 0
    for name in graph.outputs:
        result = values[name]
        for value in result if isinstance(result, list) else [result]:
            if engine.node is not None:
                engine.node = _output_node(name, value)
            for term in value.terms:
                engine.vanish(term.degree, "output")
            taint |= taint_of(value)
    return taint


def _filled(engine: Engine, result: Result) -> Result:
    """The result, with zeros for values that have no elements."""
    if isinstance(result, list):
        return [engine.constant(v.shape, ANY) if 0 in v.shape else v for v in result]
    return engine.constant(result.shape, ANY) if 0 in result.shape else result


def _unread(engine: Engine, node: Node) -> Result:
    """Zeros: nothing is read of the result."""
    results = [engine.constant(shape, ANY) for shape in node.shapes]
    return results if node.listed else results[0]


def _variables(engine: Engine, result: Result) -> frozenset[int]:
    """Parameters whose scale the value carries."""
    found: set[int] = set()
    for value in result if isinstance(result, list) else [result]:
        for term in value.terms:
            forms = (
                [int(term.degree.flat[0])]
                if term.degree.size == 1
                else np.unique(term.degree).tolist()
            )
            for form in forms:
                if form > ZERO:
                    found.update(variable for variable, _ in engine.table.forms[form])
    return frozenset(found)


def _output_node(name: str, value: Value) -> Node:
    return Node(name, "output", {}, (value.shape,))


def _last_uses(nodes: Sequence[Node], outputs: Sequence[str]) -> dict[int, list[str]]:
    """Position of a node -> values that nothing after it needs."""
    last: dict[str, int] = {}
    for at, node in enumerate(nodes):
        last.setdefault(node.name, at)
        for argument in node.arguments.values():
            for name in references(argument):
                last[name] = at
    for name in outputs:
        last.pop(name, None)
    by_place: dict[int, list[str]] = {}
    for name, at in last.items():
        by_place.setdefault(at, []).append(name)
    return by_place


def _apply(call: Call) -> Result:
    node, engine = call.node, call.engine
    inputs = argument_values(node.arguments, call.values)
    if node.op not in _AFTER_EPSILON or node.op == "div":
        for position, value in enumerate(inputs):
            if value.regularised and not (node.op == "div" and position == len(inputs) - 1):
                engine.require_zero(value)
    constant = _is_constant(inputs)
    if constant and engine.brief and node.op not in _FOR_THEIR_LABELS:
        # Nothing that was scaled comes in: whatever the operator, degree zero goes out.
        results = [engine.constant(shape) for shape in node.shapes]
        return results if node.listed else results[0]
    rule = RULES.get(node.op)
    if rule is not None:
        try:
            return rule(call)
        except NotCovered:
            pass
    elif not constant:
        engine.without_rule[node.op] = engine.without_rule.get(node.op, 0) + 1
    return sound_default(call)


def _is_constant(inputs: Sequence[Value]) -> bool:
    return all(
        len(value.terms) == 1 and value.terms[0].degree.size == 1
        and int(value.terms[0].degree.flat[0]) == ZERO
        for value in inputs
    )  # fmt: skip
