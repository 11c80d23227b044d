"""One TensorFlow operator with what it is given, and the table of translations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from smdlens.symmetry.keras_call import NotTranslated
from smdlens.symmetry.model_graph import Shape
from smdlens.symmetry.saved_model_reader import TfNode
from smdlens.symmetry.tape import Known, Operand, Tape


@dataclass(frozen=True, slots=True)
class Handle:
    """A variable by the operator that holds it."""

    name: str


@dataclass(frozen=True, slots=True)
class TfCall:
    """An operator whose inputs are known."""

    tape: Tape
    node: TfNode
    inputs: Sequence[Operand]
    untrained: frozenset[str]  # parameters that the trainer leaves alone

    def __getitem__(self, at: int) -> Operand:
        """An input."""
        if at >= len(self.inputs):
            raise NotTranslated
        return self.inputs[at]

    def shape(self, at: int) -> Shape:
        """Shape of an input."""
        return self.tape.shape(self[at])

    def known(self, at: int) -> Known:
        """An input whose numbers must be known."""
        value = self[at]
        if isinstance(value, str):
            raise NotTranslated
        return value

    def integers(self, at: int) -> list[int]:
        """An input of known whole numbers."""
        value = self.known(at)
        if value.dtype.kind not in "iub":
            raise NotTranslated
        return [int(n) for n in value.reshape(-1).tolist()]

    @property
    def channels_first(self) -> bool:
        """Whether images have their channels second."""
        said = self.node.text("data_format", "NHWC")
        if said not in ("NHWC", "NCHW", "NDHWC", "NCDHW"):
            raise NotTranslated
        return said.startswith("NC")

    def spatial(self, name: str, space: int) -> list[int]:
        """An attribute with a number per axis: those of the spatial axes."""
        said = self.node.integers(name) or [1] * (space + 2)
        if len(said) != space + 2:
            raise NotTranslated
        axes = range(2, space + 2) if self.channels_first else range(1, space + 1)
        if any(n != 1 for at, n in enumerate(said) if at not in axes):
            raise NotTranslated
        return [said[at] for at in axes]


Result = Operand | list[Operand]
Translate = Callable[[TfCall], Result]
OPERATORS: dict[str, Translate] = {}
FOLDS: dict[str, Callable[[TfCall], Any]] = {}
OPEN = 32  # any size of an axis that the file leaves open
MOST_KNOWN = 1 << 16  # elements of what is evaluated


def operator(*names: str) -> Callable[[Translate], Translate]:
    """Enters a translation under the names of its operators."""

    def enter(function: Translate) -> Translate:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return enter


def evaluated(call: TfCall) -> Known | None:
    """The numbers of an operator all of whose inputs are known; None where they are not."""
    fold = FOLDS.get(call.node.op)
    if fold is None:
        return None
    try:
        with np.errstate(all="ignore"):
            result = np.asarray(fold(call))
    except (ValueError, TypeError, IndexError, ZeroDivisionError, OverflowError, MemoryError):
        return None
    return result if result.size <= MOST_KNOWN else None
