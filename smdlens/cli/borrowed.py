"""Commands that take the options of another command, so that each option is written once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Any, get_type_hints

Command = Callable[..., None]


def borrow_options(source: Command, *, without: Collection[str]) -> Callable[[Command], Command]:
    """Gives a command that ends in `**options` the parameters of `source` in their place.

    Args:
        source: The command whose parameters are borrowed.
        without: Names of parameters that are not.
    """
    hints = get_type_hints(source, include_extras=True)

    def borrow(command: Command) -> Command:
        own = inspect.signature(command).parameters
        kept = [p for p in own.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        taken = [
            parameter.replace(annotation=hints[name])
            for name, parameter in inspect.signature(source).parameters.items()
            if name not in own and name not in without
        ]
        types: dict[str, Any] = get_type_hints(command, include_extras=True)
        own_typed = [p.replace(annotation=types[p.name]) for p in kept]
        parameters = [*own_typed, *taken]
        vars(command)["__signature__"] = inspect.Signature(parameters)
        command.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
        return command

    return borrow
