"""Graphviz: operators and parameters, coloured by whether a scale passes through."""

from __future__ import annotations

import json

from smdlens.names import for_terminal
from smdlens.report.scale_graph.picture import Place, places, shortened
from smdlens.symmetry.scale_symmetry import ScaleSymmetry
from smdlens.vocabulary import Role

COLOURS = {
    Role.SCALE_INVARIANT: "#1f7a46",
    Role.PARTLY_SCALE_INVARIANT: "#5b9a4c",
    Role.JOINTLY_SCALE_INVARIANT: "#2f76a3",
    Role.IRRELEVANT: "#9a7400",
    Role.NOT_SCALE_INVARIANT: "#767676",
    Role.UNKNOWN: "#c0392b",
}
CARRYING, AT_REST, ENDING = "#d1651f", "#b5b5b5", "#1f7a46"


def dumps(symmetry: ScaleSymmetry) -> str:
    """DOT text; an edge is orange where the value carries some parameter's scale."""
    shown = places(symmetry)
    carrying = {place.name for place in shown if place.carries}
    lines = [
        "digraph scale_symmetry {",
        '  rankdir=TB; node [fontname="sans-serif" fontsize=10 shape=ellipse];',
    ]
    lines += [
        f"  {_quoted('p ' + name)} [shape=box style=filled fontcolor=white "
        f"color={_quoted(COLOURS[symmetry.tensors[name].role])} label={_quoted(name)}];"
        for name in dict.fromkeys(name for place in shown for name in place.parameters)
    ]
    for place in shown:
        lines.append(f"  {_quoted(place.name)} [{_look(place)}];")
        lines += [_edge(f"p {name}", place.name, CARRYING) for name in place.parameters]
        lines += [
            _edge(name, place.name, CARRYING if name in carrying else AT_REST)
            for name in place.inputs
        ]
    return "\n".join([*lines, "}"]) + "\n"


def _look(place: Place) -> str:
    label = "\n".join(filter(None, (place.op, place.module)))
    colour = CARRYING if place.carries else AT_REST
    look = f"label={_quoted(label)} color={_quoted(colour)}"
    if not place.op:
        look += " shape=box3d"
    if place.ends:
        said = f"takes away the scale of {shortened(place.ends)}"
        look += f" color={_quoted(ENDING)} penwidth=2 tooltip={_quoted(said)}"
    return look


def _edge(start: str, end: str, colour: str) -> str:
    return f"  {_quoted(start)} -> {_quoted(end)} [color={_quoted(colour)}];"


def _quoted(text: str) -> str:
    shown = "\n".join(for_terminal(line) for line in text.split("\n"))
    return json.dumps(shown, ensure_ascii=False)
