"""One StableHLO operator with what it is given, and what can be read off its text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from smdlens.symmetry.keras_call import NotTranslated
from smdlens.symmetry.model_graph import Shape
from smdlens.symmetry.stablehlo_text import Operator, TensorType
from smdlens.symmetry.tape import Known, Operand, Tape


@dataclass(frozen=True, slots=True)
class HloCall:
    """An operator whose operands are known."""

    tape: Tape
    operator: Operator
    inputs: Sequence[Operand]

    def __getitem__(self, at: int) -> Operand:
        """An operand."""
        if at >= len(self.inputs):
            raise NotTranslated
        return self.inputs[at]

    @property
    def type(self) -> TensorType:
        """Type of the (first) result."""
        return self.operator.types[0]

    @property
    def shape(self) -> Shape:
        """Shape of the (first) result."""
        return self.type.shape

    def known(self, at: int) -> Known:
        """An operand whose numbers must be known."""
        value = self[at]
        if isinstance(value, str):
            raise NotTranslated
        return value

    def integers(self, name: str, default: list[int] | None = None) -> list[int]:
        """`name = [1, 2]` or `name = array<i64: 1, 2>`."""
        match = re.search(
            rf"\b{name} = (?:array<i64(?:: ([^>]*))?>|\[([^\]]*)\])", self.operator.text
        )
        if match is None:
            if default is None:
                raise NotTranslated
            return default
        items = (match[1] or match[2] or "").split(",")
        return [int(item) for item in items if item.strip()]

    def integer(self, name: str, default: int) -> int:
        """`name = 3 : i64`."""
        match = re.search(rf"\b{name} = (-?\d+)", self.operator.text)
        return int(match[1]) if match else default

    def pairs(self, name: str, rank: int) -> list[tuple[int, int]]:
        """`name = [[1, 1], [0, 0]]` or `name = dense<...>`; zeros where it is missing."""
        match = re.search(rf"\b{name} = (?:dense<)?(\[\[.*?\]\]|-?\d+)", self.operator.text)
        if match is None:
            return [(0, 0)] * rank
        numbers = [int(item) for item in re.findall(r"-?\d+", match[1])]
        if len(numbers) == 1:
            numbers *= 2 * rank
        if len(numbers) != 2 * rank:
            raise NotTranslated
        return list(zip(numbers[::2], numbers[1::2], strict=True))


Result = Operand | list[Operand]
OPERATORS: dict[str, Callable[[HloCall], Result]] = {}


def operator(*names: str) -> Callable[[Callable[[HloCall], Result]], Callable[[HloCall], Result]]:
    """Enters a translation under the names of its operators, without their dialect."""

    def enter(function: Callable[[HloCall], Result]) -> Callable[[HloCall], Result]:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return enter
