"""Repeated blocks of a network: equal layers are shown once, with their number."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass, field

from smdlens.symmetry.records import TensorSymmetry
from smdlens.symmetry.scale_symmetry import ScaleSymmetry

# Numbers in a reason (layer numbers, measured values) do not make two blocks differ.
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[-+]?\d+)?")
_FEWEST = 2


@dataclass(frozen=True, slots=True)
class Repeat:
    """Blocks that say what `first` says.

    Attributes:
        first: Path of the block that is shown.
        others: Paths of those that are not, in order.
    """

    first: str
    others: tuple[str, ...]

    @property
    def label(self) -> str:
        """`layers.1 to layers.23`."""
        last = self.others[-1].rpartition(".")[2]
        return self.others[0] if len(self.others) == 1 else f"{self.others[0]} to {last}"


@dataclass(slots=True)
class _Module:
    tensors: list[tuple[str, Hashable]] = field(default_factory=list)
    children: dict[str, _Module] = field(default_factory=dict)

    def key(self) -> Hashable:
        """Equal for modules of one structure whose tensors have one answer."""
        return tuple(self.tensors), tuple((name, c.key()) for name, c in self.children.items())


def repeats(symmetry: ScaleSymmetry) -> tuple[Repeat, ...]:
    """Numbered siblings that come one after another and are alike, outermost first."""
    root = _Module()
    for tensor in symmetry.tensors.values():
        *path, leaf = tensor.name.split(".")
        module = root
        for name in path:
            module = module.children.setdefault(name, _Module())
        module.tensors.append((leaf, _answer(tensor)))
    found: list[Repeat] = []
    _search(root, "", found)
    return tuple(found)


def _search(module: _Module, path: str, found: list[Repeat]) -> None:
    run: list[str] = []
    before: Hashable = None

    def close() -> None:
        if len(run) >= _FEWEST:
            found.append(Repeat(run[0], tuple(run[1:])))

    for name, child in module.children.items():
        own = f"{path}{name}"
        key = child.key() if name.isdecimal() else None
        if key is not None and key == before:
            run.append(own)
            continue
        close()
        run, before = [own], key
        _search(child, f"{own}.", found)
    close()


def _answer(tensor: TensorSymmetry) -> Hashable:
    said = " ".join(item.detail for item in tensor.evidence)
    together = tuple(_NUMBER.sub("#", name) for name in tensor.joint_with[:2])
    return (
        tensor.shape, tensor.role, tensor.granularity, tensor.groups, tensor.parts, together,
        _NUMBER.sub("#", said),
    )  # fmt: skip


def hidden_by(found: tuple[Repeat, ...], name: str) -> Repeat | None:
    """The repeat that a tensor or module is part of without being shown, if any."""
    for repeat in found:
        for other in repeat.others:
            if name == other or name.startswith(f"{other}."):
                return repeat
    return None
