"""One call of one Keras layer while the graph is built: its inputs, settings, weights and nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smdlens.symmetry.model_graph import Constant, Node, Parameter, Ref, Shape

_SAME = frozenset({"linear", "identity"})
_HOMOGENEOUS = frozenset({"relu", "leaky_relu", "abs"})


class NotTranslated(Exception):  # noqa: N818 - not an error: the sound default takes over
    """A layer in a form that has no translation."""


class Builder:
    """The graph so far.

    Args:
        tensors: Shapes of the checkpoint's tensors by name.
    """

    def __init__(self, tensors: Mapping[str, Shape]) -> None:
        self.tensors = tensors
        self.parameters: dict[str, Parameter] = {}
        self.constants: dict[str, Constant] = {}
        self.nodes: list[Node] = []
        self.shapes: dict[str, Shape] = {}
        self._count = 0

    def node(self, module: str, op: str, arguments: Mapping[str, Any], shape: Shape) -> str:
        """Add an operator; returns the name of its result."""
        self._count += 1
        name = f"{module or 'model'}:{self._count}"
        given = {key: value for key, value in arguments.items() if value is not None}
        self.nodes.append(Node(name, op, given, (shape,), module))
        self.shapes[name] = shape
        return name

    def parameter(self, name: str) -> str | None:
        """The checkpoint's tensor of this name as a leaf of the graph; None where there is none."""
        shape = self.tensors.get(name)
        if shape is None:
            return None
        self.parameters.setdefault(name, Parameter(name, shape, "float32"))
        self.shapes[name] = shape
        return name

    def constant(self, name: str) -> str | None:
        """The checkpoint's statistic of this name as a constant; None where there is none."""
        shape = self.tensors.get(name)
        if shape is None:
            return None
        self.constants.setdefault(name, Constant(name, shape))
        self.shapes[name] = shape
        return name

    def source(self, name: str, shape: Shape) -> str:
        """An input of the network."""
        key = f"input:{name}"
        self.constants[key] = Constant("", shape, is_input=True)
        self.shapes[key] = shape
        return key


@dataclass(frozen=True, slots=True)
class LayerCall:
    """A call.

    Attributes:
        builder: Where nodes go.
        path: Names of models, then the layer's.
        kind: Its class.
        config: Its settings.
        inputs: Names of the values it is given.
        trainable: Whether it and the models around it are trained.
    """

    builder: Builder
    path: tuple[str, ...]
    kind: str
    config: Mapping[str, Any]
    inputs: tuple[str, ...]
    trainable: bool

    @property
    def first(self) -> str:
        """The first input."""
        if not self.inputs:
            raise NotTranslated
        return self.inputs[0]

    @property
    def channels_first(self) -> bool:
        """Whether images have their channels second."""
        return bool(self.setting("data_format") == "channels_first")

    def setting(self, name: str, default: Any = None) -> Any:
        """A setting; the default where it is missing."""
        return self.config.get(name, default)

    def shape(self, name: str) -> Shape:
        """Shape of a value."""
        return self.builder.shapes[name]

    @staticmethod
    def ref(name: str) -> Ref:
        """A use of a value."""
        return Ref(name)

    def node(self, op: str, arguments: Mapping[str, Any], shape: Shape) -> str:
        """Add an operator."""
        return self.builder.node(".".join(self.path), op, arguments, shape)

    def parameter(self, leaf: str, *inner: str) -> Ref | None:
        """A weight of the layer, None where it has no such one."""
        name = self.builder.parameter(".".join((*self.path, *inner, leaf)))
        return None if name is None else Ref(name)

    def needed(self, leaf: str, *inner: str) -> str:
        """Name of a weight that the layer must have."""
        found = self.parameter(leaf, *inner)
        if found is None:
            raise NotTranslated
        return found.name

    def constant(self, leaf: str) -> Ref | None:
        """A statistic of the layer, None where it has no such one."""
        name = self.builder.constant(".".join((*self.path, leaf)))
        return None if name is None else Ref(name)

    def permuted(self, name: str, order: list[int]) -> str:
        """A value with its axes in another order."""
        if order == list(range(len(order))):
            return name
        shape = tuple(self.shape(name)[axis] for axis in order)
        return self.node("permute", {"self": Ref(name), "dims": order}, shape)

    def reshaped(self, name: str, shape: Shape) -> str:
        """A value in another shape."""
        own = self.shape(name)
        if own == shape:
            return name
        if math.prod(own) != math.prod(shape):
            raise NotTranslated
        return self.node("reshape", {"self": Ref(name)}, shape)

    def channels_second(self) -> str:
        """The first input, an image with its channels second."""
        rank = len(self.shape(self.first))
        if self.channels_first or rank < 3:
            return self.first
        return self.permuted(self.first, [0, rank - 1, *range(1, rank - 1)])

    def channels_back(self, name: str) -> str:
        """An image with its channels where the layer has them."""
        rank = len(self.shape(name))
        if self.channels_first or rank < 3:
            return name
        return self.permuted(name, [0, *range(2, rank), 1])

    def activated(self, name: str, activation: Any = None) -> str:
        """A value after the layer's activation (or the one given)."""
        said = self.setting("activation") if activation is None else activation
        if isinstance(said, Mapping):
            inner = said.get("config")
            said = inner if isinstance(inner, str) else said.get("class_name")
        if said is None or said in _SAME:
            return name
        shape = self.shape(name)
        if said == "softmax":
            return self.node("softmax", {"self": Ref(name), "dim": -1}, shape)
        op = said if said in _HOMOGENEOUS else f"keras.{said}"
        return self.node(op, {"self": Ref(name)}, shape)
