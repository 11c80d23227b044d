"""A TorchScript archive -> `ModelGraph`, from its source text; nothing in it is run.

Shapes start at the inputs: those the archive was traced with, those the user gives, or else the
first of the usual sizes that the program takes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from smdlens.errors import GraphError
from smdlens.symmetry.graph_errors import reading_graph
from smdlens.symmetry.model_graph import ModelGraph, Shape
from smdlens.symmetry.torchscript_archive import Archive, read_torchscript
from smdlens.symmetry.torchscript_walk import Walk

_BATCH, _TOKENS = 2, 16
_LENGTHS = 10  # of a sequence, to try
_SIZES = (32, 224, 28, 8, 64, 16, 96, 128, 256, 299, 384, 512)
Input = tuple[Shape, str]  # and dtype


def graph_of_torchscript(path: Path, inputs: Sequence[Input] = ()) -> ModelGraph:
    """Reads an archive of `torch.jit.save`.

    Args:
        path: The file.
        inputs: Shape and dtype of each input, where the user gives them.

    Raises:
        GraphError: It cannot be read, or the program cannot be followed.
    """
    with reading_graph(
        path, "program", remedy="Export the model with torch.export, or name it with --model."
    ):
        archive = read_torchscript(path)
        return _graph(archive, list(inputs))


def _graph(archive: Archive, given: list[Input]) -> ModelGraph:
    first: GraphError | None = None
    for inputs in _candidates(archive, given):
        try:
            return _followed(archive, inputs)
        except (GraphError, RuntimeError, ValueError, IndexError) as error:
            if not isinstance(error, GraphError):
                error = GraphError(f"{type(error).__name__}: {error}"[:200])
            first = first or error
    assert first is not None, "there is at least one candidate"
    raise GraphError(
        first.message, expected=first.expected, found=first.found,
        remedy=first.remedy or "Give the shapes of its inputs with --input.",
    ) from first  # fmt: skip


def _followed(archive: Archive, inputs: Sequence[Input]) -> ModelGraph:
    walk = Walk(archive)
    wanted = walk.arguments()
    made = [
        walk.tensors.source(argument.arg, *item)
        for argument, item in zip(wanted, inputs, strict=False)
    ]
    optional = len(walk.defaults())
    if len(made) < len(wanted) - optional:
        raise GraphError(
            f"the program takes {len(wanted)} inputs, of which {len(made)} are known",
            remedy="Give the shape of each with --input.",
        )
    outputs = tuple(dict.fromkeys(box.used() for box in walk.outputs(made)))
    tensors = walk.tensors
    if not outputs or not tensors.parameters:
        raise GraphError("the program gives nothing that depends on its parameters")
    parameters = {
        name: dataclasses.replace(parameter, aliases=tuple(walk.objects.aliases.get(name, ())))
        for name, parameter in tensors.parameters.items()
    }
    nodes = tuple(tensors.nodes)
    return ModelGraph(parameters, tensors.constants, nodes, outputs, "torchscript")


def _candidates(archive: Archive, given: list[Input]) -> Iterator[list[Input]]:
    """Inputs to try."""
    if given:
        yield given
        return
    if archive.inputs:
        yield [(tensor.shape, tensor.dtype) for tensor in archive.inputs]
        return
    weights = [shape for shape in _weights(archive) if len(shape) > 1 and 0 not in shape]
    first = weights[0] if weights else (1, 1)
    if len(first) > 2:
        space = len(first) - 2
        for size in _SIZES:
            for channels in dict.fromkeys((first[1], 3, 1)):
                yield [((_BATCH, channels, *(size for _ in range(space))), "float32")]
        return
    yield [((_BATCH, first[1]), "float32")]
    lengths = list(dict.fromkeys([_TOKENS, *(n for shape in weights for n in shape)]))[:_LENGTHS]
    for length in lengths:
        yield [((_BATCH, length), "int64")]
        for width in dict.fromkeys((first[1], *lengths)):
            yield [((_BATCH, length, width), "float32")]


def _weights(archive: Archive) -> Iterator[Shape]:
    from smdlens.snapshots.weight_trees import module_tensors

    for tensor in module_tensors(archive.root).values():
        yield tuple(getattr(tensor, "shape", ()))
