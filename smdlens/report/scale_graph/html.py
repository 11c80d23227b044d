"""One page: the table of tensors and a picture of where scales go, in order of execution."""

from __future__ import annotations

from collections.abc import Iterable

from smdlens.names import for_html
from smdlens.report.scale_graph.blocks import hidden_by, repeats
from smdlens.report.scale_graph.dot import AT_REST, CARRYING, COLOURS, ENDING
from smdlens.report.scale_graph.picture import Place, places, shortened
from smdlens.report.scale_graph.shortened import LEGEND, reasons, relative
from smdlens.report.scale_graph.tree import described, summary
from smdlens.symmetry.records import TensorSymmetry
from smdlens.symmetry.scale_symmetry import ScaleSymmetry

_ROW, _LEFT, _LETTER = 20, 170, 6.6
_STYLE = """body{font:14px/1.4 system-ui,sans-serif;margin:2em;color:#222;background:#fff}
table{border-collapse:collapse}td,th{padding:.15em .8em .15em 0;text-align:left;vertical-align:top}
th{border-bottom:1px solid #999}.w{color:#595959}.d{color:#c0392b}
.s{overflow-x:auto}svg text{font:11px system-ui,sans-serif}code{font-size:.95em}
td:first-child{white-space:nowrap}td.w{overflow-wrap:anywhere}
i{display:inline-block;width:.7em;height:.7em;border-radius:50%;margin-right:.4em}"""


def dumps(symmetry: ScaleSymmetry, title: str) -> str:
    """A self-contained page without scripts; equal blocks once, all tensors on request."""
    notes = "".join(f"<p class='w'>{for_html(note)}.</p>" for note in (*symmetry.notes, LEGEND))
    against = "".join(
        f"<p class='d'>Disagreement: {for_html(item.tensor)}: {for_html(item.detail)}.</p>"
        for item in symmetry.disagreements
    )
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{for_html(title)}</title>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<style>{_STYLE}</style><h1>{for_html(title)}</h1><p>{for_html(summary(symmetry))}</p>"
        f"{against}{notes}{_tables(symmetry)}<h2>Where scales go</h2>"
        "<p>Operators from top to bottom, the tensors they read to the right. "
        f"{_key(CARRYING)}the value grows when some tensor is scaled. {_key(AT_REST)}no scale is "
        f"left in it. {_key(ENDING)}a scale ends here. Blocks that are alike are drawn once; "
        "operators that only move data are left out.</p>"
        f"<div class='s'>{_picture(symmetry)}</div></html>\n"
    )


def _key(colour: str) -> str:
    return f"<i style='background:{colour}'></i>"


def _tables(symmetry: ScaleSymmetry) -> str:
    """The table without repeats, and, if there are any, the whole one folded away."""
    tensors = symmetry.tensors.values()
    blocks = repeats(symmetry)
    if not blocks:
        return _table(_row(tensor) for tensor in tensors)
    rows: list[str] = []
    said: set[str] = set()
    for tensor in tensors:
        repeat = hidden_by(blocks, tensor.name)
        if repeat is None:
            rows.append(_row(tensor))
        elif repeat.first not in said:
            said.add(repeat.first)
            text = f"{for_html(repeat.label)}: like {for_html(repeat.first)}"
            rows.append(f"<tr><td colspan='4'><b>{text}</b></td></tr>")
    whole = _table(_row(tensor) for tensor in tensors)
    count = len(symmetry.tensors)
    return f"{_table(rows)}<details><summary>All {count} tensors</summary>{whole}</details>"


def _table(rows: Iterable[str]) -> str:
    head = "<tr><th>Tensor</th><th>Shape</th><th>Role</th><th>Why</th></tr>"
    return f"<div class='s'><table>{head}{''.join(rows)}</table></div>"


def _row(tensor: TensorSymmetry) -> str:
    return (
        f"<tr><td>{_key(COLOURS[tensor.role])}{for_html(tensor.name)}</td>"
        f"<td>{'×'.join(map(str, tensor.shape))}</td><td>{for_html(described(tensor))}</td>"
        f"<td class='w'>{'<br>'.join(for_html(reason) for reason in reasons(tensor))}</td></tr>\n"
    )


def _picture(symmetry: ScaleSymmetry) -> str:
    shown = places(symmetry)
    rows = {place.name: at for at, place in enumerate(shown)}
    carrying = {place.name for place in shown if place.carries}
    parts: list[str] = []
    width = 0.0
    for place in shown:
        parts += _edges(place, rows, carrying)
    # Tensors stand to the right of the longest operator.
    column = _LEFT + 30 + _LETTER * max((len(p.op) + len(p.module) for p in shown), default=0)
    for place in shown:
        drawn, right = _entry(place, _y(rows[place.name]), column, symmetry)
        parts.append(drawn)
        width = max(width, right)
    height = _ROW * (len(shown) + 1)
    return (
        f"<svg width='{width + 20:.0f}' height='{height}' role='img' "
        f"aria-label='where scales go'>{''.join(parts)}</svg>"
    )


def _entry(place: Place, y: int, column: float, symmetry: ScaleSymmetry) -> tuple[str, float]:
    """Dot, words and tensors of one place, and where they end."""
    colour = CARRYING if place.carries else AT_REST
    ring = f" stroke='{ENDING}' stroke-width='3'" if place.ends else ""
    words = f"{for_html(place.op)} <tspan fill='#666'>{for_html(place.module)}</tspan>"
    parts = [
        f"<circle cx='{_LEFT}' cy='{y}' r='5' fill='{colour}'{ring}/>",
        f"<text x='{_LEFT + 14}' y='{y + 4}'>{words}</text>",
    ]
    x = column
    for name in place.parameters:
        fill, said = COLOURS[symmetry.tensors[name].role], relative(name, f"{place.module}.")
        parts.append(f"<text x='{x:.0f}' y='{y + 4}' fill='{fill}'>{for_html(said)}</text>")
        x += _LETTER * len(said) + 14
    if place.ends:
        ended = tuple(relative(name, f"{place.module}.") for name in place.ends)
        said = f"ends the scale of {shortened(ended)}"
        parts.append(f"<text x='{x:.0f}' y='{y + 4}' fill='{ENDING}'>{for_html(said)}</text>")
        x += _LETTER * len(said)
    return "".join(parts), x


def _edges(place: Place, rows: dict[str, int], carrying: set[str]) -> list[str]:
    end = rows[place.name]
    edges: list[str] = []
    for name in place.inputs:
        start = rows[name]
        if start >= end:
            continue
        colour = CARRYING if name in carrying else AT_REST
        bend = 0 if end - start == 1 else min(14 + 3 * (end - start), _LEFT - 10)
        edges.append(
            f"<path d='M{_LEFT},{_y(start)} C{_LEFT - bend},{_y(start)} "
            f"{_LEFT - bend},{_y(end)} {_LEFT},{_y(end)}' fill='none' stroke='{colour}' "
            "stroke-width='1.5'/>"
        )
    return edges


def _y(row: int) -> int:
    return _ROW * (row + 1) - _ROW // 2
