"""Branches that look alive and are not: a softmax over one element is the number one."""

from __future__ import annotations

import dataclasses

from smdlens.symmetry.model_graph import ModelGraph, Node, Ref, Shape

_SOFTMAX = ("softmax", "_softmax")


def pruned(graph: ModelGraph) -> ModelGraph:
    """The same function without the scores of attention over a single key."""
    shapes: dict[str, Shape] = {name: p.shape for name, p in graph.parameters.items()}
    shapes.update({name: c.shape for name, c in graph.constants.items()})
    nodes: list[Node] = []
    for node in graph.nodes:
        shapes[node.name] = node.shapes[0] if node.shapes else ()
        nodes.append(_rewritten(node, shapes))
    return dataclasses.replace(graph, nodes=tuple(nodes))


def _rewritten(node: Node, shapes: dict[str, Shape]) -> Node:
    if node.op in _SOFTMAX:
        axis = node.arguments.get("dim", -1)
        shape = node.shapes[0]
        if isinstance(axis, int) and shape and shape[axis] == 1:
            return dataclasses.replace(node, op="ones", arguments={})
    if node.op == "scaled_dot_product_attention" and not node.listed:
        key, value = node.arguments.get("key"), node.arguments.get("value")
        if isinstance(key, Ref) and isinstance(value, Ref):
            one_key = len(shapes[key.name]) > 1 and shapes[key.name][-2] == 1
            same_heads = shapes[value.name][:-2] == node.shapes[0][:-2]
            if one_key and same_heads and node.arguments.get("attn_mask") is None:
                return dataclasses.replace(node, op="expand", arguments={"self": value})
    return node
