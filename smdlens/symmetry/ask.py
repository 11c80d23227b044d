"""One question about one network, from a name, a file or a module."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from smdlens.errors import InputError
from smdlens.symmetry.graph_files import is_graph_file, load_graph
from smdlens.symmetry.loading import graph_of, load_inputs, load_model
from smdlens.symmetry.scale_symmetry import ScaleSymmetry, symmetry_of_graph


def symmetry_of(
    model: Any,
    inputs: Sequence[object] | None = None,
    input_fn: str | Callable[[], object] | None = None,
    *,
    verify: bool = False,
) -> ScaleSymmetry:
    """Scale symmetry of a graph file, a factory's name, a factory or a module.

    Raises:
        InputError: An input cannot be used, or `verify` is asked of a file.
        GraphError: The graph cannot be had.
    """
    if isinstance(model, str | os.PathLike) and is_graph_file(model):
        if verify:
            raise InputError(
                "a graph file cannot be verified",
                subject="option --verify",
                expected="a model that can be run: PKG.MOD:FACTORY",
                remedy="Files are read, never run.",
            )
        return symmetry_of_graph(load_graph(model, inputs))
    if isinstance(model, str) and ":" not in model:
        raise InputError(
            "neither a model nor a file that holds a network",
            subject=model,
            expected="PKG.MOD:FACTORY, or a graph file (.pt2, .onnx, .keras, ...)",
            remedy="A checkpoint of weights alone holds no network.",
        )
    args, kwargs = load_inputs(inputs, input_fn)
    return symmetry_of_call(model, args, kwargs, verify=verify)


def symmetry_of_call(
    model: Any,
    args: Sequence[object] = (),
    kwargs: Mapping[str, object] | None = None,
    *,
    verify: bool = False,
) -> ScaleSymmetry:
    """Scale symmetry of a module (or what makes one) under these arguments."""
    module = load_model(model)
    symmetry = symmetry_of_graph(graph_of(module, args, kwargs))
    if verify:
        from smdlens.symmetry.verify import verified

        symmetry = verified(symmetry, module, args, kwargs)
    return symmetry
