"""The terminal tree: module, tensor, role, granularity, with whom, why."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.text import Text
from rich.tree import Tree

from smdlens.names import for_terminal
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


def render(symmetry: ScaleSymmetry, console: Console, title: str) -> None:
    """Prints the tree and a summary."""
    root = Tree(Text(for_terminal(title)), guide_style="dim")
    branches: dict[str, Tree] = {"": root}
    for tensor in symmetry.tensors.values():
        module, _, leaf = tensor.name.rpartition(".")
        line = Text(for_terminal(leaf), style="bold")
        line.append("  " + "x".join(map(str, tensor.shape)), style="dim")
        line.append("  " + described(tensor), style=_STYLES[tensor.role])
        entry = _branch(module, branches).add(line)
        for evidence in tensor.evidence:
            entry.add(Text(for_terminal(evidence.detail), style="dim"))
    console.print(root)
    console.print(Text(summary(symmetry)))
    for item in symmetry.disagreements:
        text = f"Disagreement: {for_terminal(item.tensor)}: {for_terminal(item.detail)}."
        console.print(Text(text, style="red"))
    for note in symmetry.notes:
        console.print(Text(f"Note: {for_terminal(note)}.", style="dim"))


def described(tensor: TensorSymmetry) -> str:
    """Role, granularity and company in a few words."""
    words = tensor.role.value.replace("_", " ")
    if tensor.granularity is not None:
        count = f"{tensor.groups} pieces, " if tensor.groups > 1 else ""
        words += f" ({count}per {tensor.granularity.value})"
    if tensor.joint_with:
        shown = ", ".join(for_terminal(name) for name in tensor.joint_with[:2])
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


def _branch(path: str, branches: dict[str, Tree]) -> Tree:
    if path not in branches:
        parent, _, leaf = path.rpartition(".")
        branches[path] = _branch(parent, branches).add(Text(for_terminal(leaf)))
    return branches[path]
