"""A network from what the user named: a factory to import and run, or a graph file to read.

Importing a factory runs the user's own code; it happens for `--model` and `--input-fn` and for
nothing else, and never for a name that a file mentions.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smdlens.errors import GraphError, InputError
from smdlens.symmetry.model_graph import ModelGraph

if TYPE_CHECKING:
    from torch import nn

Inputs = tuple[tuple[object, ...], dict[str, object]]
_SHAPE = re.compile(r"(\d+(?:x\d+)*)(?::(float32|float64|int64|int32|bool))?")


def load_model(model: str | Callable[[], object] | nn.Module) -> nn.Module:
    """The module that a name, a factory or the module itself stands for.

    Raises:
        InputError: The name has not the form PKG.MOD:FACTORY.
        GraphError: It cannot be imported, raises, or gives no torch module.
    """
    from torch import nn

    subject = model if isinstance(model, str) else getattr(model, "__name__", type(model).__name__)
    made: object = _imported(model, "--model") if isinstance(model, str) else model
    if not isinstance(made, nn.Module) and callable(made):
        made = _called(made, subject)
    if not isinstance(made, nn.Module):
        raise GraphError(
            "the factory gives no model",
            subject=subject,
            expected="a torch.nn.Module",
            found=type(made).__name__,
        )
    return made


def load_inputs(
    inputs: Sequence[object] | None, input_fn: str | Callable[[], object] | None
) -> Inputs:
    """Arguments for one call of the model.

    Args:
        inputs: Shapes such as "1x3x224x224" or "1x16:int64", or the arguments themselves.
        input_fn: PKG.MOD:FUNC or a function that returns (args, kwargs), or args alone.

    Raises:
        InputError: A shape or the function's result has another form.
        GraphError: The function cannot be imported or raises.
    """
    if input_fn is None:
        return tuple(map(_argument, inputs or ())), {}
    function = _imported(input_fn, "--input-fn") if isinstance(input_fn, str) else input_fn
    subject = input_fn if isinstance(input_fn, str) else getattr(input_fn, "__name__", "input_fn")
    result = _called(function, subject)
    if (
        isinstance(result, tuple)
        and len(result) == 2
        and isinstance(result[0], tuple | list)
        and isinstance(result[1], dict)
    ):
        return tuple(result[0]), dict(result[1])
    if isinstance(result, dict):
        return (), dict(result)
    return (tuple(result) if isinstance(result, tuple | list) else (result,)), {}


def input_shapes(inputs: Sequence[object] | None) -> list[tuple[tuple[int, ...], str]]:
    """Shape and dtype of each input, from "1x3x224x224" or a tensor; errors as `load_inputs`."""
    made = [_argument(item) for item in inputs or ()]
    return [
        (tuple(map(int, getattr(x, "shape", ()))), str(getattr(x, "dtype", "")).rpartition(".")[2])
        for x in made
    ]


def _argument(item: object) -> object:
    if not isinstance(item, str):
        return item
    import torch

    match = _SHAPE.fullmatch(item.strip())
    if match is None:
        raise InputError(
            "this value cannot be used",
            subject="option --input",
            expected="a shape such as 1x3x224x224, or 1x16:int64 for token numbers",
            found=repr(item),
        )
    shape = tuple(int(size) for size in match[1].split("x"))
    dtype = getattr(torch, match[2] or "float32")
    generator = torch.Generator().manual_seed(0)
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator, dtype=dtype)
    return torch.ones(shape, dtype=dtype)


def _imported(name: str, option: str) -> Any:
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise InputError(
            "this value cannot be used",
            subject=f"option {option}",
            expected="PKG.MOD:NAME, such as models.resnet:resnet50",
            found=repr(name),
        )
    here = str(Path.cwd())
    if here not in sys.path:  # as `python -m` would have it
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:
        raise GraphError(
            f"cannot be imported: {_brief(error)}",
            subject=f"{option} {name}",
            remedy="Run smdlens where `import` finds the module, or install its package here.",
        ) from error
    return found


def _called(function: Any, subject: str) -> Any:
    try:
        return function()
    except (Exception, SystemExit) as error:
        arguments = isinstance(error, TypeError) and "argument" in str(error)
        raise GraphError(
            f"raised {_brief(error)}",
            subject=subject,
            expected="a function that needs no arguments" if arguments else None,
            remedy="Wrap it in a function without arguments."
            if arguments
            else "Call it in Python to see where.",
        ) from error


def _brief(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def graph_of(
    model: object, args: Sequence[object] = (), kwargs: Mapping[str, object] | None = None
) -> ModelGraph:
    """Traces a model; see `from_torch.graph_of_module`."""
    from smdlens.symmetry.from_torch import graph_of_module

    return graph_of_module(load_model(model), args, kwargs)  # type: ignore[arg-type]
