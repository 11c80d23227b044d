"""An ONNX file -> `ModelGraph`: the same table of operators behind another front end.

Shapes are computed node by node, and what is known without the weights (shapes, axes, zeros that
stand in for a missing bias) is evaluated on the way. Nothing is run.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smdlens.containers.files import open_regular
from smdlens.errors import GraphError
from smdlens.symmetry.graph_errors import reading_graph
from smdlens.symmetry.model_graph import Constant, ModelGraph, Node, Parameter, Ref, Shape
from smdlens.symmetry.onnx_fold import folded
from smdlens.symmetry.onnx_operators import OPERATORS, Translation, Translator
from smdlens.symmetry.onnx_reader import FLOATING, OnnxGraph, OnnxNode, OnnxTensor, read_model

_MOST_BYTES = 1 << 31  # protobuf's own limit
_NORMS = frozenset({
    "BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization",
    "RMSNormalization", "LpNormalization", "ReduceL2", "Sqrt",
})  # fmt: skip
_DTYPE_NAMES = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}


def graph_of_onnx(path: Path) -> ModelGraph:
    """Reads an ONNX file.

    Raises:
        GraphError: It cannot be read, or its batch norms were folded into the convolutions.
    """
    with reading_graph(path, remedy="Use --model or a .pt2 file."):
        with open_regular(path) as file:
            if file.size >= _MOST_BYTES:
                raise GraphError("larger than a protobuf message can be")
            data = file.read(0, file.size)
        onnx = read_model(data)
        _refuse_folded(onnx, path)
        return _Importer(onnx).graph()


def _refuse_folded(onnx: OnnxGraph, path: Path) -> None:
    """Optimisers fold batch norms into convolutions, all of them or some.

    All: there are convolutions and no normalisation. Some: what a convolution gives is named after
    an item of a batch norm's result (torch.export's `getitem`), or its weight was made on export.
    """
    ops = {node.op for node in onnx.nodes}
    found = "convolutions and no normalisation"
    folded = [
        node.inputs[1]
        for node in onnx.nodes
        if node.op in ("Conv", "ConvTranspose")
        and (node.inputs[1].startswith("onnx::Conv") or node.outputs[0].startswith("getitem"))
    ]
    if folded:
        found = f"{len(folded)} convolutions with a norm inside, such as {folded[0]!r}"
    if folded or ("Conv" in ops and not ops & _NORMS):
        raise GraphError(
            "its batch norms seem to be folded into the convolutions",
            subject=str(path),
            expected="a graph with its normalisations",
            found=found,
            remedy='Export with torch.onnx.export(model, args, "model.onnx", dynamo=True, '
            "optimize=False); a file made for deployment does not say how a network was trained.",
        )


class _Importer:
    """One pass over the nodes of a file."""

    def __init__(self, onnx: OnnxGraph) -> None:
        self.onnx = onnx
        self.shapes: dict[str, Shape] = {n: shape for n, (_, shape) in onnx.types.items()}
        self.known: dict[str, NDArray[np.generic]] = {}
        self.parameters: dict[str, Parameter] = {}
        self.constants: dict[str, Constant] = {}
        self.nodes: list[Node] = []
        norms = [node.inputs for node in onnx.nodes if node.op == "BatchNormalization"]
        # Exporters store equal tensors once: a fresh variance may be the gain's vector of ones.
        trained = {name for inputs in norms for name in inputs[1:3]}
        self.statistics = {name for inputs in norms for name in inputs[3:5]} - trained

    def graph(self) -> ModelGraph:
        """The whole graph."""
        for name, (_, shape) in self.onnx.inputs.items():
            if name not in self.onnx.initializers:
                self.constants[name] = Constant("", shape, is_input=True)
        for tensor in self.onnx.initializers.values():
            self._initializer(tensor)
        for node in self.onnx.nodes:
            self._node(node)
        made = {node.name for node in self.nodes} | set(self.constants) | set(self.parameters)
        outputs = tuple(name for name in self.onnx.outputs if name in made and self._floats(name))
        if not outputs:
            raise GraphError("the model gives no floating-point tensor")
        return ModelGraph(self.parameters, self.constants, tuple(self.nodes), outputs, "onnx")

    def _floats(self, name: str) -> bool:
        described = self.onnx.types.get(name)
        return described is None or described[0] in FLOATING

    def _initializer(self, tensor: OnnxTensor) -> None:
        self.shapes[tensor.name] = tensor.dims
        trained = (
            tensor.dtype in FLOATING
            and tensor.dims != ()
            and tensor.name not in self.statistics
            and not tensor.name.startswith(("val_", "onnx::", "_to_copy", "/"))
        )
        if trained:
            dtype = _DTYPE_NAMES[tensor.dtype]
            self.parameters[tensor.name] = Parameter(tensor.name, tensor.dims, dtype)
            return
        if tensor.value is not None and tensor.name not in self.statistics:
            self.known[tensor.name] = tensor.value
        zero = tensor.is_zero and tensor.name not in self.statistics
        self.constants[tensor.name] = Constant(tensor.name, tensor.dims, is_zero=zero)

    def _node(self, node: OnnxNode) -> None:
        value = folded(node, self.known, self.shapes)
        if value is not None:
            name = node.outputs[0]
            self.known[name] = value
            self.shapes[name] = value.shape
            floating = bool(np.issubdtype(value.dtype, np.floating))
            zero = floating and not bool(value.any())
            self.constants[name] = Constant("", value.shape, is_zero=zero)
            return
        translator = Translator(node, self.shapes, self.known)
        operator = OPERATORS.get(node.op) if node.domain in ("", "ai.onnx") else None
        found = operator(translator) if operator is not None else None
        if found is None:
            found = self._unknown(node)
        self._append(node, found)

    def _unknown(self, node: OnnxNode) -> list[Translation]:
        """An operator without a translation: every input must be of degree zero."""
        shapes = []
        for name in node.outputs:
            if name and name not in self.shapes:
                raise GraphError(
                    f"the shape of what {node.op} gives is not known",
                    remedy="Run the file through onnx.shape_inference, or use --model.",
                )
            shapes.append(self.shapes.get(name, ()))
        arguments: dict[str, object] = {
            f"argument{at}": Ref(name) for at, name in enumerate(node.inputs) if name
        }
        return [Translation(f"onnx.{node.op}", arguments, tuple(shapes))]

    def _append(self, node: OnnxNode, found: list[Translation]) -> None:
        module = _module(node)
        outputs = [name for name in node.outputs if name]
        for at, step in enumerate(found):
            last = at == len(found) - 1
            listed = len(step.shapes) > 1 or step.listed
            name = step.name or outputs[0]
            own = f"{outputs[0]}!list" if listed else name
            self.nodes.append(
                Node(own, step.op, step.arguments, step.shapes, module, listed=listed)
            )
            if not listed:
                self.shapes[own] = step.shapes[0]
            if listed and last:
                for index, output in enumerate(node.outputs):
                    if output:
                        pick: dict[str, object] = {"self": Ref(own), "index": index}
                        self.shapes[output] = step.shapes[index]
                        self.nodes.append(
                            Node(output, "getitem", pick, (step.shapes[index],), module)
                        )


def _module(node: OnnxNode) -> str:
    """Path of the module, from the exporter's notes or the node's name."""
    scopes = node.metadata.get("pkg.torch.onnx.name_scopes", "")
    parts = [part.strip(" '\"[]") for part in scopes.split(",")]
    if len(parts) >= 2:
        return parts[-2]
    return node.name.strip("/").rpartition("/")[0].replace("/", ".")
