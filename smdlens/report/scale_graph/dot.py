"""Graphviz: operators and parameters, coloured by whether a scale passes through."""

from __future__ import annotations

import json

from smdlens.names import for_terminal
from smdlens.symmetry.scale_symmetry import ScaleSymmetry
from smdlens.vocabulary import Role

COLOURS = {
    Role.SCALE_INVARIANT: "#2a9d5c",
    Role.PARTLY_SCALE_INVARIANT: "#7fbf7b",
    Role.JOINTLY_SCALE_INVARIANT: "#3b8bba",
    Role.IRRELEVANT: "#d9a400",
    Role.NOT_SCALE_INVARIANT: "#9a9a9a",
    Role.UNKNOWN: "#c0392b",
}
CARRYING, AT_REST = "#e07b39", "#c9c9c9"


def dumps(symmetry: ScaleSymmetry) -> str:
    """DOT text; an edge is orange where the value carries some parameter's scale."""
    lines = ["digraph scale_symmetry {", "  rankdir=TB; node [fontname=sans fontsize=10];"]
    lines += [
        f"  {_quoted('p ' + t.name)} [shape=box style=filled fontcolor=white "
        f"color={_quoted(COLOURS[t.role])} label={_quoted(t.name)}];"
        for t in symmetry.tensors.values()
    ]
    carrying = {node.name for node in symmetry.flow if node.carries}
    for node in symmetry.flow:
        label = f"{node.op}\n{node.module}" if node.module else node.op
        colour = CARRYING if node.carries else AT_REST
        lines.append(f"  {_quoted(node.name)} [label={_quoted(label)} color={_quoted(colour)}];")
        for name in dict.fromkeys(node.inputs):
            is_parameter = name in symmetry.tensors
            colour = CARRYING if is_parameter or name in carrying else AT_REST
            start = f"p {name}" if is_parameter else name
            lines.append(f"  {_quoted(start)} -> {_quoted(node.name)} [color={_quoted(colour)}];")
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    shown = "\n".join(for_terminal(line) for line in text.split("\n"))
    return json.dumps(shown, ensure_ascii=False)
