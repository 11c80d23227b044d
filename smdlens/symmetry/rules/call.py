"""What a rule sees of one node, and the table that rules enter themselves into."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from smdlens.symmetry.engine import Engine, argument_values
from smdlens.symmetry.model_graph import Node, Ref, Shape
from smdlens.symmetry.values import Value

Result = Value | list[Value]


@dataclass(frozen=True, slots=True)
class Call:
    """One node with the values of its arguments."""

    engine: Engine
    node: Node
    values: Mapping[str, Result]

    @property
    def shape(self) -> Shape:
        """Shape of the (first) output."""
        return self.node.shapes[0]

    def has(self, name: str) -> bool:
        """Whether an argument is given and not None."""
        return self.node.arguments.get(name) is not None

    def value(self, name: str) -> Value:
        """An argument that is a tensor; a plain number becomes a constant of the output's rank."""
        argument = self.node.arguments[name]
        if isinstance(argument, Ref):
            found = self.values[argument.name]
            assert isinstance(found, Value)
            return found
        number = float(argument) if isinstance(argument, int | float) else 1.0
        return self.engine.scalar((1,) * len(self.shape), number)

    def optional(self, name: str) -> Value | None:
        """A tensor argument, None where it is missing."""
        return self.value(name) if self.has(name) else None

    def listed(self, name: str) -> list[Value]:
        """An argument that is a list of tensors."""
        argument = self.node.arguments[name]
        if isinstance(argument, Ref):
            found = self.values[argument.name]
            return found if isinstance(found, list) else [found]
        return argument_values({name: argument}, self.values)

    def is_tensor(self, name: str) -> bool:
        """Whether an argument is a tensor."""
        return isinstance(self.node.arguments.get(name), Ref)

    def number(self, name: str, default: float | None = None) -> float | None:
        """A number written into the graph; None where it is missing or only known at run time."""
        argument = self.node.arguments.get(name, default)
        return float(argument) if isinstance(argument, int | float) else None

    def integer(self, name: str, default: int) -> int:
        """A whole number; raises `NotCovered` where it is only known at run time."""
        argument = self.node.arguments.get(name, default)
        if argument is None:
            return default
        if not isinstance(argument, int):
            raise NotCovered
        return int(argument)

    def integers(self, name: str, default: list[int] | None = None) -> list[int]:
        """A list of whole numbers; a single one counts as a list."""
        argument = self.node.arguments.get(name)
        if argument is None:
            return list(default or [])
        items = list(argument) if isinstance(argument, list | tuple) else [argument]
        if not all(isinstance(item, int) for item in items):
            raise NotCovered
        return cast(list[int], items)

    def axes(self, name: str, rank: int) -> list[int]:
        """Axes counted from the front; all of them where the argument is missing or empty."""
        given = self.integers(name)
        return sorted({axis % rank for axis in given}) if given else list(range(rank))

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean."""
        argument = self.node.arguments.get(name)
        return default if argument is None else bool(argument)


class NotCovered(Exception):  # noqa: N818 - not an error: the sound default takes over
    """A rule does not know this use of its operator."""


Rule = Callable[[Call], Result]
RULES: dict[str, Rule] = {}


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Enters a rule into the table under the names of its operators."""

    def enter(function: Rule) -> Rule:
        for operator in operators:
            RULES[operator] = function
        return function

    return enter


def sound_default(call: Call) -> Result:
    """A function of what does not change does not change: every input must be of degree zero.

    It is right for any operator, so an operator without a rule costs recall and nothing else.
    """
    taint = 0
    for value in argument_values(call.node.arguments, call.values):
        taint |= call.engine.require_zero(value)
    results = [call.engine.constant(shape, taint=taint) for shape in call.node.shapes]
    return results if call.node.listed else results[0]
