"""What a TorchScript program works with while it is followed: tensors without numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from smdlens.errors import GraphError

if TYPE_CHECKING:
    import torch

# torch's numbers of dtypes, as the source writes them.
DTYPES = {
    0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32",
    7: "float64", 8: "complex32", 9: "complex64", 10: "complex128", 11: "bool", 15: "bfloat16",
}  # fmt: skip


@dataclass(slots=True, eq=False)
class Box:
    """A tensor of the program: the node that makes it, and its shape and dtype.

    Attributes:
        name: Node or leaf; another one after a write in place.
        meta: A tensor without storage.
        shared: All tensors that are views of one memory, this one included.
        stale: Whether a write through another view changed it, which is not followed.
    """

    name: str
    meta: torch.Tensor
    shared: list[Box] = field(default_factory=list)
    stale: bool = False

    def used(self) -> str:
        """Name of the node, for an argument."""
        if self.stale:
            raise GraphError(
                "the program writes into a view of a tensor",
                remedy="Export the model with torch.export and run_decompositions({}) instead.",
            )
        return self.name

    def written(self, name: str) -> None:
        """Notes a write in place."""
        for other in self.shared:
            if other is not self:
                other.stale = True
        self.name = name

    def view_of(self, other: Box) -> None:
        """Notes that this shares the memory of another one."""
        if not other.shared:
            other.shared = [other]
        self.shared = other.shared
        self.shared.append(self)


@dataclass(frozen=True, slots=True)
class Device:
    """A device, of which nothing depends."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the source by its full name."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Module:
    """A module of the program: its place in the whole, its class, and its attributes."""

    path: str
    kind: str
    state: dict[str, Any]


class Unset:
    """A variable that no branch has given a value yet."""


def boxes(value: Any) -> list[Box]:
    """Every tensor in an argument."""
    if isinstance(value, Box):
        return [value]
    if isinstance(value, list | tuple):
        return [box for item in value for box in boxes(item)]
    return []
