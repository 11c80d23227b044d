"""One operator of a PaddlePaddle program with what it is given, and the table of translations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smdlens.symmetry.keras_call import NotTranslated
from smdlens.symmetry.model_graph import Shape
from smdlens.symmetry.tape import Known, Operand, Tape, single


@dataclass(frozen=True, slots=True)
class PirCall:
    """An operator whose inputs are known; a missing input is None, a list of values a list."""

    tape: Tape
    op: str
    attributes: Mapping[str, Any]
    inputs: Sequence[Operand | list[Operand] | None]
    untrained: frozenset[str]

    def __getitem__(self, at: int) -> Operand:
        """An input that is one value."""
        value = self.inputs[at] if at < len(self.inputs) else None
        if value is None or isinstance(value, list):
            raise NotTranslated
        return value

    def optional(self, at: int) -> Operand | None:
        """An input that may be left out."""
        return self[at] if at < len(self.inputs) and self.inputs[at] is not None else None

    def listed(self, at: int) -> list[Operand]:
        """An input that is a list of values."""
        value = self.inputs[at]
        if not isinstance(value, list):
            raise NotTranslated
        return value

    def shape(self, at: int) -> Shape:
        """Shape of an input."""
        return self.tape.shape(self[at])

    def known(self, at: int) -> Known:
        """An input whose numbers must be known."""
        value = self[at]
        if isinstance(value, str):
            raise NotTranslated
        return value

    def integers(self, at: int, name: str = "") -> list[int]:
        """Whole numbers from an input or, where there is none, an attribute."""
        given = self.attributes.get(name)
        if isinstance(given, list) and at >= len(self.inputs):
            return [int(item) for item in given]
        return [int(n) for n in self.known(at).reshape(-1).tolist()]

    def number(self, at: int) -> float:
        """An input of one known number."""
        found = single(self.known(at))
        if found is None:
            raise NotTranslated
        return float(found)

    def listing(self, name: str, default: Sequence[int] = ()) -> list[int]:
        """A list of whole numbers."""
        given = self.attributes.get(name)
        return [int(item) for item in given] if isinstance(given, list) else list(default)

    def integer(self, name: str, default: int) -> int:
        """A whole number."""
        given = self.attributes.get(name)
        return int(given) if isinstance(given, int | float) else default

    def flag(self, name: str) -> bool:
        """A boolean."""
        return bool(self.attributes.get(name))

    @property
    def channels_first(self) -> bool:
        """Whether images have their channels second."""
        said = str(self.attributes.get("data_format", "NCHW"))
        if said not in ("NCHW", "NHWC", "NCDHW", "NDHWC", "NCL", "NLC", "AnyLayout"):
            raise NotTranslated
        return said.startswith("NC") or said == "AnyLayout"


Result = Operand | list[Operand]
OPERATORS: dict[str, Callable[[PirCall], Result]] = {}


def operator(*names: str) -> Callable[[Callable[[PirCall], Result]], Callable[[PirCall], Result]]:
    """Enters a translation under the names of its operators, without what marks writes in place."""

    def enter(function: Callable[[PirCall], Result]) -> Callable[[PirCall], Result]:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return enter
