"""Tensor names grouped into modules: the little structure that names alone carry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from smdlens.snapshots.records import TensorRef


@dataclass(frozen=True, slots=True)
class Module:
    """Tensors that share a prefix: `layer1.0.conv1` -> {"weight": ..., "bias": ...}.

    `order` is the place of its first tensor in the file.
    """

    path: str
    tensors: Mapping[str, TensorRef]
    order: int

    @property
    def leaf(self) -> str:
        """Last component of the path."""
        return self.path.rsplit(".", 1)[-1]

    @property
    def parent(self) -> str:
        """The path without its last component ("" at the top)."""
        return self.path.rpartition(".")[0]

    def full_name(self, local: str) -> str:
        """The tensor's name in the file."""
        return f"{self.path}.{local}" if self.path else local

    @property
    def weight(self) -> TensorRef | None:
        """The tensor called `weight`, if it has two or more dimensions."""
        found = self.tensors.get("weight")
        return found if found is not None and len(found.shape) >= 2 else None

    @property
    def batch_norm_channels(self) -> int | None:
        """Number of channels if this is a batch norm with running statistics, else None."""
        mean, var = self.tensors.get("running_mean"), self.tensors.get("running_var")
        if mean is None or var is None or len(var.shape) != 1 or mean.shape != var.shape:
            return None
        return var.shape[0]


def modules_of(tensors: Mapping[str, TensorRef]) -> tuple[Module, ...]:
    """Modules in file order."""
    members: dict[str, dict[str, TensorRef]] = {}
    first: dict[str, int] = {}
    for order, (name, ref) in enumerate(tensors.items()):
        path, _, local = name.rpartition(".")
        members.setdefault(path, {})[local] = ref
        first.setdefault(path, order)
    return tuple(Module(path, found, first[path]) for path, found in members.items())


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key in which `layer10` comes after `layer9`."""
    return tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part)
        for part in re.split(r"(\d+)", name)
        if part
    )


def is_sorted_file(tensors: Mapping[str, TensorRef]) -> bool:
    """True where names stand in alphabetical order, which says nothing about execution.

    safetensors files are written sorted. A module registers weight before bias and running_mean
    before running_var; a file with `bias` in front of its `weight` throughout was sorted.
    """
    names = list(tensors)
    seen: dict[str, int] = {name: at for at, name in enumerate(names)}
    pairs = [
        (seen[name], seen[f"{name[: -len('bias')]}weight"])
        for name in names
        if name.endswith("bias") and f"{name[: -len('bias')]}weight" in seen
    ]
    return bool(pairs) and all(bias < weight for bias, weight in pairs)
