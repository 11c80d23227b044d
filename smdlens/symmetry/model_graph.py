"""A traced network in our own few words: parameters, constants, nodes, outputs.

Importers (torch.export, .pt2, ONNX) translate into this; the solver reads nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ref:
    """A use of a value by the name of what made it."""

    name: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """A trained tensor. `aliases` are further names of the same (tied) tensor."""

    name: str
    shape: Shape
    dtype: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Constant:
    """A buffer, a lifted constant or an input: nothing that is trained.

    Attributes:
        name: Its name in the model ("" for an input without one).
        is_input: Whether it changes from batch to batch.
        is_zero: Whether it is known to be zero throughout (never said of a buffer).
    """

    name: str
    shape: Shape
    is_input: bool = False
    is_zero: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """One operator.

    Attributes:
        name: Name of the value it makes.
        op: Canonical operator name, ATen's without namespace and overload ("conv2d").
        arguments: By the operator's own argument names; `Ref`, plain values and lists of these.
            Arguments at their default may be missing.
        shapes: Shape of each output; one entry unless the operator returns several tensors.
        module: Path of the module it belongs to ("" at the top).
        floating: False where the result is of an integer or boolean type.
        listed: True where the result is a sequence, whose items `getitem` nodes pick.
    """

    name: str
    op: str
    arguments: Mapping[str, object]
    shapes: tuple[Shape, ...]
    module: str = ""
    floating: bool = True
    listed: bool = False


@dataclass(frozen=True, slots=True)
class ModelGraph:
    """Values by name: `parameters` and `constants` are the leaves, `nodes` are in order."""

    parameters: Mapping[str, Parameter]
    constants: Mapping[str, Constant]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    source: str


def references(value: object) -> Iterator[str]:
    """Names of the values that an argument uses."""
    if isinstance(value, Ref):
        yield value.name
    elif isinstance(value, list | tuple):
        for item in value:
            yield from references(item)


def live_nodes(graph: ModelGraph) -> tuple[Node, ...]:
    """The nodes that the outputs depend on; a dead branch constrains nothing."""
    wanted = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if node.name in wanted:
            kept.append(node)
            for argument in node.arguments.values():
                wanted.update(references(argument))
    return tuple(reversed(kept))
