"""An MXNet symbol (PREFIX-symbol.json) -> `ModelGraph`: the same table of operators.

The symbol is a list of nodes; read as data, nothing is built. Shapes of weights come from the
checkpoint (or from the symbol, where Gluon wrote them), the size of an image from what the network
can take: the first of the usual sizes that fits its dense layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smdlens.containers.json_header import parse_json, read_json
from smdlens.errors import GraphError, SnapshotError
from smdlens.snapshots.mxnet import names_of_symbol
from smdlens.snapshots.series import open_snapshot
from smdlens.symmetry.keras_call import Builder, NotTranslated
from smdlens.symmetry.model_graph import ModelGraph, Shape
from smdlens.symmetry.mxnet_operators import KEEP_SHAPE, SymbolCall, translated

_BATCH = 2
_SIZES = (32, 28, 224, 8, 16, 64, 96, 128, 256, 299, 227, 300, 320, 416, 512)
_MOST_NODES = 100_000
_STATISTICS = ("running_mean", "running_var")
# Operators whose last inputs are no part of the network's value.
_LABELLED = ("SoftmaxOutput", "LinearRegressionOutput", "MAERegressionOutput")


def graph_of_mxnet_file(path: Path) -> ModelGraph:
    """The graph in a symbol file, with the shapes of the .params files beside it.

    Raises:
        GraphError: It cannot be read, or its weights' shapes are nowhere.
    """
    try:
        symbol = read_json(str(path))
        tensors = _shapes_beside(path)
    except SnapshotError as error:
        raise GraphError(error.message, subject=str(path), remedy=error.remedy) from error
    return _graph(symbol, tensors, str(path))


def graph_of_mxnet(text: str, tensors: Mapping[str, Shape], subject: str) -> ModelGraph:
    """The graph of a symbol.

    Args:
        text: The symbol, JSON as MXNet writes it.
        tensors: Shapes of the checkpoint's tensors by the names they are shown under.
        subject: The file, for errors.

    Raises:
        GraphError: A form that is not known.
    """
    try:
        symbol = parse_json(text.encode(), subject=subject)
    except SnapshotError as error:
        raise GraphError(error.message, subject=subject) from error
    return _graph(symbol, tensors, subject)


def _shapes_beside(path: Path) -> dict[str, Shape]:
    prefix = path.name.removesuffix(".json").removesuffix("-symbol")
    for file in sorted(path.parent.glob("*.params")):
        if file.name.startswith(prefix):
            return {name: ref.shape for name, ref in open_snapshot(file).tensors.items()}
    return {}


def _graph(symbol: Any, tensors: Mapping[str, Shape], subject: str) -> ModelGraph:
    try:
        nodes, heads = symbol["nodes"], symbol["heads"]
        if len(nodes) > _MOST_NODES:
            raise ValueError("too many nodes")
        return _fitting(nodes, heads, tensors)
    except GraphError as error:
        raise GraphError(
            error.message, subject=subject, expected=error.expected, remedy=error.remedy
        ) from error
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, OverflowError,
            ZeroDivisionError) as error:  # fmt: skip
        raise GraphError(
            f"the symbol is of a form that is not known ({type(error).__name__}: {error})",
            subject=subject,
            remedy="Use --graph with an .onnx file of the model.",
        ) from error


def _fitting(nodes: list[Any], heads: list[Any], tensors: Mapping[str, Shape]) -> ModelGraph:
    """The graph for the first size of an image that leaves the fewest operators unknown."""
    best: tuple[int, ModelGraph] | None = None
    for size in _SIZES:
        model = _Symbol(nodes, tensors, size)
        graph = model.graph(heads)
        if best is None or model.unknown < best[0]:
            best = model.unknown, graph
        if model.unknown == 0 or not model.has_images:
            break
    assert best is not None, "there is at least one size"
    return best[1]


class _Symbol:
    """One pass over the nodes."""

    def __init__(self, nodes: list[Any], tensors: Mapping[str, Shape], size: int) -> None:
        self.nodes = nodes
        self.size = size
        self.unknown = 0
        self.has_images = False
        leaves = [str(n["name"]) for n in nodes if n["op"] == "null"]
        self.names = names_of_symbol(leaves)
        self.shapes = {**{self.names[k]: s for k, s in self._written().items()}, **tensors}
        self.builder = Builder(self.shapes)
        self.values: list[str] = []

    def graph(self, heads: list[Any]) -> ModelGraph:
        if not any(name in self.shapes for name in self.names.values()):
            raise GraphError(
                "the shapes of its weights are not known",
                expected="the .params file of the checkpoint beside the symbol",
            )
        for place, node in enumerate(self.nodes):
            self.values.append(self._leaf(place) if node["op"] == "null" else self._node(node))
        outputs = tuple(dict.fromkeys(self.values[int(head[0])] for head in heads))
        builder = self.builder
        return ModelGraph(
            builder.parameters, builder.constants, tuple(builder.nodes), outputs, "mxnet"
        )

    def _written(self) -> dict[str, Shape]:
        """Shapes that Gluon writes beside its parameters."""
        found = {}
        for node in self.nodes:
            text = _attributes(node).get("__shape__")
            sizes = tuple(
                int(n) for n in str(text).strip("()[] ").split(",") if n.strip().isdigit()
            )
            if node["op"] == "null" and text is not None and sizes and 0 not in sizes:
                found[str(node["name"])] = sizes
        return found

    def _leaf(self, place: int) -> str:
        name = self.names[str(self.nodes[place]["name"])]
        if name in self.shapes:
            statistic = name.endswith(_STATISTICS)
            made = self.builder.constant(name) if statistic else self.builder.parameter(name)
            assert made is not None, "its shape is known"
            return made
        return self.builder.source(name, self._input_shape(place))

    def _input_shape(self, place: int) -> Shape:
        """Shape of an input, from the weight of the operator that takes it."""
        for node in self.nodes:
            inputs = node["inputs"]
            if not inputs or int(inputs[0][0]) != place or len(inputs) < 2:
                continue
            other = self.names.get(str(self.nodes[int(inputs[1][0])]["name"]), "")
            weight = self.shapes.get(other)
            if weight is None:
                continue
            if node["op"] == "Convolution":
                groups = int(_attributes(node).get("num_group", 1))
                self.has_images = True
                return (_BATCH, weight[1] * groups, *(self.size for _ in weight[2:]))
            if node["op"] == "FullyConnected":
                return (_BATCH, weight[1])
            if node["op"] == "Embedding":
                return (_BATCH, 16)
            if node["op"] == "BatchNorm":
                self.has_images = True
                return (_BATCH, weight[0], self.size, self.size)
        return (_BATCH,)

    def _node(self, node: Mapping[str, Any]) -> str:
        op = str(node["op"])
        inputs = [self.values[int(source[0])] for source in node["inputs"]]
        if any(int(source[1]) > 0 for source in node["inputs"] if not self._is_leaf(source)):
            raise GraphError(f"{op} takes a second output, which is not read")
        if op in _LABELLED:
            inputs = inputs[:1]
        call = SymbolCall(self.builder, str(node["name"]), op, _attributes(node), tuple(inputs))
        before = len(self.builder.nodes)
        try:
            return translated(call)
        except NotTranslated:
            del self.builder.nodes[before:]
        self.unknown += 1
        return self._sound_default(call)

    def _is_leaf(self, source: Any) -> bool:
        return bool(self.nodes[int(source[0])]["op"] == "null")

    def _sound_default(self, call: SymbolCall) -> str:
        """A function of all its inputs that sees every scale."""
        shape: Shape | None = call.shape if call.op in KEEP_SHAPE else None
        weight = self.builder.shapes.get(call.inputs[1]) if len(call.inputs) > 1 else None
        if call.op == "FullyConnected" and weight is not None:
            shape = (_BATCH, weight[0])
        elif call.op == "Convolution" and weight is not None:
            shape = (_BATCH, weight[0], *call.shape[2:])
        if shape is None:
            raise GraphError(
                f"the shape of what the operator {call.op} gives is not known",
                remedy="Use --graph with an .onnx file of the model.",
            )
        arguments = {f"argument{at}": call.ref(at) for at in range(len(call.inputs))}
        return call.node(f"mxnet.{call.op}", arguments, shape)


def _attributes(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings of a node; early versions call them `attr` or `param`."""
    found: dict[str, Any] = {}
    for key in ("param", "attr", "attrs"):
        held = node.get(key)
        found |= held if isinstance(held, dict) else {}
    return found
