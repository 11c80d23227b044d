"""What the translation of one ONNX operator sees and gives, and the table of translations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smdlens.symmetry.model_graph import Ref, Shape
from smdlens.symmetry.onnx_reader import OnnxNode


@dataclass(frozen=True, slots=True)
class Translation:
    """One operator of our table. `name` is set for steps on the way to the node's own output."""

    op: str
    arguments: dict[str, object]
    shapes: tuple[Shape, ...]
    name: str = ""
    listed: bool = False


class Translator:
    """What a translation sees of one node."""

    def __init__(
        self, node: OnnxNode, shapes: Mapping[str, Shape], known: Mapping[str, NDArray[np.generic]]
    ) -> None:
        self.node = node
        self.shapes = shapes
        self.known = known

    def has(self, at: int) -> bool:
        """Whether an optional input is there."""
        return at < len(self.node.inputs) and bool(self.node.inputs[at])

    def ref(self, at: int) -> Ref:
        """An input."""
        return Ref(self.node.inputs[at])

    def shape(self, at: int) -> Shape:
        """Shape of an input."""
        return self.shapes[self.node.inputs[at]]

    def scalar_or_ref(self, at: int) -> object:
        """An input; its number where it is one known element."""
        value = self.known.get(self.node.inputs[at])
        if value is not None and value.size == 1:
            return float(value.reshape(-1)[0])
        return self.ref(at)

    def numbers(self, at: int, attribute: str) -> list[int] | None:
        """Whole numbers from an input or, in older files, an attribute; None where left out."""
        given = self.node.attributes.get(attribute)
        if isinstance(given, list):
            return [int(item) for item in given]
        if not self.has(at):
            return None
        return [int(item) for item in self.known[self.node.inputs[at]].reshape(-1).tolist()]

    def integer(self, attribute: str, default: int) -> int:
        """A whole number."""
        value = self.node.attributes.get(attribute, default)
        return int(value) if isinstance(value, int | float) else default

    def integers(self, attribute: str) -> list[int]:
        """Whole numbers."""
        value = self.node.attributes.get(attribute)
        return [int(item) for item in value] if isinstance(value, list) else []

    def broadcast(self) -> Shape:
        """Shape of an elementwise operator."""
        return np.broadcast_shapes(*(self.shape(at) for at in range(len(self.node.inputs))))


Found = list[Translation] | None


OPERATORS: dict[str, Callable[[Translator], Found]] = {}


def onnx(*names: str) -> Callable[[Callable[[Translator], Found]], Callable[[Translator], Found]]:
    """Enters a translation into the table under the names of its operators."""

    def enter(function: Callable[[Translator], Found]) -> Callable[[Translator], Found]:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return enter
