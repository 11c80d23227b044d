"""Solution -> sentences: why a tensor has its role, naming the node that decides."""

from __future__ import annotations

from smdlens.symmetry.degrees import Reason
from smdlens.symmetry.forms import Form
from smdlens.symmetry.model_graph import Node
from smdlens.symmetry.solve import Solution

_NORM_WORDS = {
    "batch_norm": "batch norm",
    "layer_norm": "layer norm",
    "group_norm": "group norm",
    "instance_norm": "instance norm",
    "rms_norm": "RMS norm",
    "weight_norm": "weight normalisation",
}


def place(node: Node) -> str:
    """A node as a user may find it: `layer1.0.add`."""
    op = node.op.strip("_")
    return f"`{node.module}.{op}`" if node.module else f"`{op}`"


def norm_kind(node: Node) -> str:
    """Kind of a normalising node, one word."""
    for word in _NORM_WORDS:
        if word in node.op:
            return word
    return "quotient"


def why_invariant(node: Node) -> str:
    """The normalisation that takes the scale away."""
    kind = norm_kind(node)
    name = _NORM_WORDS.get(kind)
    if name is None:
        return f"divided by its own size at {place(node)}"
    return f"normalised by {name} `{node.module}`" if node.module else f"normalised by {name}"


def why_irrelevant(node: Node | None) -> str:
    """Where the value vanishes."""
    if node is None:
        return "its value vanishes before it reaches an output"
    kind = norm_kind(node)
    if kind != "quotient":
        at = f" `{node.module}`" if node.module else ""
        return f"the mean that {_NORM_WORDS[kind]}{at} subtracts holds it"
    if "softmax" in node.op or "attention" in node.op:
        return f"adds the same to all scores of a row, which {place(node)} does not see"
    return f"vanishes at {place(node)}"


def why_not(solution: Solution, at: int) -> str:
    """The first constraint that scaling the tensor alone would break."""
    reason = solution.blocking[at]
    where = place(reason.node)
    if reason.kind == "output":
        return "not invariant: its scale reaches the output"
    if reason.kind == "homogeneous":
        return f"not invariant: meets {where}, which sees the scale of what comes in"
    others = _others(solution, at, reason)
    if others:
        return f"not invariant: meets {where} with {others}"
    return f"not invariant: meets {where} with something of fixed scale"


def _others(solution: Solution, at: int, reason: Reason) -> str:
    form = solution.blocking_forms.get(at, ())
    names = _modules(solution, form, at)
    shown = ", ".join(f"`{name}`" for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _modules(solution: Solution, form: Form, at: int) -> list[str]:
    names: dict[str, None] = {}
    own = solution.parameters[at].name.rpartition(".")[0]
    for variable, _ in form:
        if variable != at:
            name = solution.parameters[variable].name
            module = name.rpartition(".")[0]
            names.setdefault(name if module in ("", own) else module)
    return sorted(names, key=lambda name: name.rpartition(".")[0] == own)


def why_pieces(reason: Reason | None) -> str | None:
    """What ties the channels of a piece together."""
    return None if reason is None else f"channels are tied at {place(reason.node)}"
