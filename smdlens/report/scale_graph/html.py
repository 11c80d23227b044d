"""One page: the table of tensors beside a picture of where scales go, in order of execution."""

from __future__ import annotations

from smdlens.names import for_html
from smdlens.report.scale_graph.dot import AT_REST, CARRYING, COLOURS
from smdlens.report.scale_graph.tree import described, summary
from smdlens.symmetry.scale_symmetry import FlowNode, ScaleSymmetry

_ROW, _LEFT, _WIDTH = 18, 150, 900
_STYLE = """body{font:14px/1.4 system-ui,sans-serif;margin:2em;color:#222;background:#fff}
table{border-collapse:collapse}td,th{padding:.15em .8em .15em 0;text-align:left;vertical-align:top}
th{border-bottom:1px solid #999}.w{color:#666}svg text{font:11px system-ui,sans-serif}
i{display:inline-block;width:.7em;height:.7em;border-radius:50%;margin-right:.4em}"""


def dumps(symmetry: ScaleSymmetry, title: str) -> str:
    """A self-contained page without scripts."""
    rows = "\n".join(
        f"<tr><td><i style='background:{COLOURS[t.role]}'></i>{for_html(t.name)}</td>"
        f"<td>{'x'.join(map(str, t.shape))}</td><td>{for_html(described(t))}</td>"
        f"<td class='w'>{'<br>'.join(for_html(e.detail) for e in t.evidence)}</td></tr>"
        for t in symmetry.tensors.values()
    )
    notes = "".join(f"<p class='w'>{for_html(note)}.</p>" for note in symmetry.notes)
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{for_html(title)}</title>"
        f"<style>{_STYLE}</style><h1>{for_html(title)}</h1><p>{for_html(summary(symmetry))}</p>"
        f"{notes}<table><tr><th>Tensor</th><th>Shape</th><th>Role</th><th>Why</th></tr>{rows}"
        "</table><h2>Where scales go</h2><p>Operators from top to bottom. Orange: the value grows "
        "when some tensor is scaled. Grey: it does not, nothing's scale is left in it.</p>"
        f"{_picture(symmetry)}</html>\n"
    )


def _picture(symmetry: ScaleSymmetry) -> str:
    place = {node.name: at for at, node in enumerate(symmetry.flow)}
    height = _ROW * (len(place) + 1)
    parts = [f"<svg width='{_WIDTH}' height='{height}' role='img' aria-label='graph'>"]
    for node in symmetry.flow:
        parts += _edges(node, place, symmetry)
    for node in symmetry.flow:
        y = _y(place[node.name])
        colour = CARRYING if node.carries else AT_REST
        where = f" {for_html(node.module)}" if node.module else ""
        parts.append(f"<circle cx='{_LEFT}' cy='{y}' r='4' fill='{colour}'/>")
        parts.append(
            f"<text x='{_LEFT + 10}' y='{y + 4}'>{for_html(node.op)}"
            f"<tspan fill='#888'>{where}</tspan></text>"
        )
        x = _LEFT + 330
        for name in dict.fromkeys(node.inputs):
            tensor = symmetry.tensors.get(name)
            if tensor is not None:
                parts.append(
                    f"<text x='{x}' y='{y + 4}' fill='{COLOURS[tensor.role]}'>"
                    f"{for_html(name)}</text>"
                )
                x += 8 * len(name) + 12
    return "".join([*parts, "</svg>"])


def _edges(node: FlowNode, place: dict[str, int], symmetry: ScaleSymmetry) -> list[str]:
    end = place[node.name]
    edges: list[str] = []
    for name in dict.fromkeys(node.inputs):
        start = place.get(name)
        if start is None:
            continue
        colour = CARRYING if symmetry.flow[start].carries else AT_REST
        bend = 0 if end - start == 1 else min(12 + 2 * (end - start), _LEFT - 10)
        edges.append(
            f"<path d='M{_LEFT},{_y(start)} C{_LEFT - bend},{_y(start)} "
            f"{_LEFT - bend},{_y(end)} {_LEFT},{_y(end)}' fill='none' stroke='{colour}'/>"
        )
    return edges


def _y(row: int) -> int:
    return _ROW * (row + 1) - _ROW // 2
