"""The terminal tree: module, tensor, role, granularity, with whom, why."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.text import Text
from rich.tree import Tree

from smdlens.names import for_terminal
from smdlens.report.scale_graph.blocks import Repeat, hidden_by, repeats
from smdlens.report.scale_graph.shortened import LEGEND, SHARED, reasons, relative
from smdlens.symmetry.records import TensorSymmetry
from smdlens.symmetry.scale_symmetry import ScaleSymmetry
from smdlens.vocabulary import Role
from smdlens.wording import count_of

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {
    Role.SCALE_INVARIANT: "green",
    Role.PARTLY_SCALE_INVARIANT: "green",
    Role.JOINTLY_SCALE_INVARIANT: "cyan",
    Role.IRRELEVANT: "yellow",
    Role.NOT_SCALE_INVARIANT: "dim",
    Role.UNKNOWN: "red",
}


def render(symmetry: ScaleSymmetry, console: Console, title: str, *, verbose: bool = False) -> None:
    """Prints the tree and a summary; blocks that are alike once, unless `verbose`."""
    root = Tree(Text(for_terminal(title)), guide_style="dim")
    branches: dict[str, Tree] = {"": root}
    blocks = () if verbose else repeats(symmetry)
    said: set[str] = set()
    alone, chains = _modules_of_one(symmetry), _chains(symmetry)
    shortens = False
    for tensor in symmetry.tensors.values():
        repeat = hidden_by(blocks, tensor.name)
        if repeat is not None:
            if repeat.first not in said:
                said.add(repeat.first)
                _say_repeat(repeat, branches, chains)
            continue
        module, leaf = _place(tensor.name, alone)
        line = Text(for_terminal(leaf), style="bold")
        line.append("  " + ("x".join(map(str, tensor.shape)) or "scalar"), style="dim")
        line.append("  " + described(tensor), style=_STYLES[tensor.role])
        entry = _branch(module, branches, chains).add(line)
        for reason in reasons(tensor):
            shortens = shortens or SHARED in reason
            entry.add(Text(for_terminal(reason), style="dim"))
    console.print(root)
    console.print(Text(summary(symmetry)))
    for item in symmetry.disagreements:
        text = f"Disagreement: {for_terminal(item.tensor)}: {for_terminal(item.detail)}."
        console.print(Text(text, style="red"))
    if shortens:
        console.print(Text(f"{LEGEND}.", style="dim"))
    for note in symmetry.notes:
        console.print(Text(f"Note: {for_terminal(note)}.", style="dim"))


def _modules_of_one(symmetry: ScaleSymmetry) -> frozenset[str]:
    """Modules with one tensor and nothing else: `q_proj.weight` is one line."""
    inside = Counter(
        name[:at] for name in symmetry.tensors for at, letter in enumerate(name) if letter == "."
    )
    return frozenset(path for path, count in inside.items() if count == 1)


def _place(name: str, alone: frozenset[str]) -> tuple[str, str]:
    """Module under which a tensor is shown, and its name there."""
    module, _, leaf = name.rpartition(".")
    while module in alone:
        module, _, parent = module.rpartition(".")
        leaf = f"{parent}.{leaf}"
    return module, leaf


def _say_repeat(repeat: Repeat, branches: dict[str, Tree], chains: frozenset[str]) -> None:
    parent, _, own = repeat.first.rpartition(".")
    last = repeat.others[-1].rpartition(".")[2]
    first = repeat.others[0].rpartition(".")[2]
    which = first if len(repeat.others) == 1 else f"{first} to {last}"
    text = Text(for_terminal(which), style="bold")
    text.append(f"  like {for_terminal(own)}", style="dim")
    _branch(parent, branches, chains).add(text)


def described(tensor: TensorSymmetry) -> str:
    """Role, granularity and company in a few words."""
    words = tensor.role.value.replace("_", " ")
    if tensor.granularity is not None:
        count = f"{tensor.groups} pieces, " if tensor.groups > 1 else ""
        words += f" ({count}per {tensor.granularity.value})"
    if tensor.joint_with:
        shown = ", ".join(
            for_terminal(relative(name, tensor.name)) for name in tensor.joint_with[:2]
        )
        more = f" and {len(tensor.joint_with) - 2} more" if len(tensor.joint_with) > 2 else ""
        words += f" with {shown}{more}"
    return words


def summary(symmetry: ScaleSymmetry) -> str:
    """How many tensors have which role."""
    counts = Counter(tensor.role for tensor in symmetry.tensors.values())
    parts = [f"{counts[role]} {role.value.replace('_', ' ')}" for role in Role if counts[role]]
    return (
        f"{count_of(len(symmetry.tensors), 'tensor')}: {', '.join(parts)} (from {symmetry.source})."
    )


def _chains(symmetry: ScaleSymmetry) -> frozenset[str]:
    """Modules that hold one module and nothing else: `encoder.layers` is one line."""
    children: dict[str, set[str]] = {}
    leaves: set[str] = set()
    for name in symmetry.tensors:
        parts = name.split(".")
        for depth in range(1, len(parts)):
            children.setdefault(".".join(parts[:depth]), set()).add(parts[depth])
        leaves.add(name)
    return frozenset(
        path
        for path, own in children.items()
        if len(own) == 1 and f"{path}.{next(iter(own))}" not in leaves
    )


def _branch(path: str, branches: dict[str, Tree], chains: frozenset[str]) -> Tree:
    if path not in branches:
        parent, _, label = path.rpartition(".")
        while parent in chains:
            parent, _, above = parent.rpartition(".")
            label = f"{above}.{label}"
        branches[path] = _branch(parent, branches, chains).add(Text(for_terminal(label)))
    return branches[path]
