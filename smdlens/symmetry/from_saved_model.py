"""A SavedModel's program -> `ModelGraph`: the same table of operators behind another front end.

The program is protobuf: operators and functions, which are followed from a signature's outputs and
never run. Which variable is which tensor of the checkpoint is said by the part of the program that
restores it. An operator that is not known sees every scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from smdlens.containers.files import contained, open_regular
from smdlens.containers.limits import DEFAULT_LIMITS
from smdlens.errors import GraphError
from smdlens.snapshots.records import TensorRef
from smdlens.snapshots.series import open_snapshot
from smdlens.symmetry.arithmetic_norms import with_norms
from smdlens.symmetry.graph_errors import reading_graph
from smdlens.symmetry.model_graph import ModelGraph, Shape
from smdlens.symmetry.saved_model_call import Handle
from smdlens.symmetry.saved_model_program import CALLS, Walk, is_floating
from smdlens.symmetry.saved_model_reader import (
    SavedProgram,
    TfNode,
    read_function,
    read_program,
)
from smdlens.symmetry.saved_model_tensor import OpenShape

PROGRAM = "saved_model.pb"
_COPIES = "_all_variables/"
_STATISTICS = ("running_mean", "running_var", "moving_mean", "moving_variance")


def graph_of_saved_model(folder: Path) -> ModelGraph:
    """The graph in a SavedModel folder.

    Raises:
        GraphError: It cannot be read, or holds no program with variables.
    """
    with reading_graph(folder):
        return read_saved_model(folder, open_snapshot(folder).tensors)


def read_saved_model(folder: Path, tensors: Mapping[str, TensorRef]) -> ModelGraph:
    """The graph in a SavedModel folder whose checkpoint is read already.

    Args:
        folder: The folder.
        tensors: Its checkpoint's tensors by the names they are shown under.

    Raises:
        GraphError: It cannot be read.
    """
    path = folder / PROGRAM
    with reading_graph(
        path,
        "program",
        expected="a file of tf.saved_model.save or model.export",
        remedy="Use --graph with an .onnx file of the model.",
    ):
        with open_regular(contained(folder, PROGRAM, subject=str(folder))) as file:
            if file.size > DEFAULT_LIMITS.pickle_bytes:
                raise GraphError(
                    "its program is too long",
                    subject=str(path),
                    expected=f"at most {DEFAULT_LIMITS.pickle_bytes} bytes",
                    found=f"{file.size} bytes",
                )
            data = file.read(0, file.size)
        return _graph(read_program(data), tensors)


def _graph(program: SavedProgram, tensors: Mapping[str, TensorRef]) -> ModelGraph:
    named = [name for name in program.signatures if not name.startswith("__")]
    if not named:
        raise GraphError(
            "the program has no signature",
            expected="one such as serving_default",
            remedy="Save it with signatures=, or with model.export().",
        )
    chosen = "serving_default" if "serving_default" in named else named[0]
    results = [name for name, kind in program.signatures[chosen] if is_floating(kind)]
    variables = _Variables(program, tensors)
    walk = Walk(program, variables.leaf)
    variables.walk = walk
    walk.untrained = variables.untrained
    outputs = walk.outputs(results)
    if not outputs or not walk.tape.parameters:
        raise GraphError("the program gives nothing that depends on this checkpoint's weights")
    return with_norms(walk.tape.graph(outputs, "saved-model"), walk.untrained)


class _Variables:
    """Which tensor of the checkpoint each variable of the program is."""

    walk: Walk

    def __init__(self, program: SavedProgram, tensors: Mapping[str, TensorRef]) -> None:
        self.tensors = tensors
        self.keys = dict(_restored(program))
        shown = {ref.name: name for name, ref in tensors.items()}
        by_name: dict[str, str] = {}
        for key, variable in program.variables.items():
            if key in shown:
                by_name.setdefault(variable.name, shown[key])
        self.shown = dict(shown)
        trained: dict[str, bool] = {}
        for key, variable in program.variables.items():
            # Keras' export lists every variable twice; the copy goes by the first one's name.
            name = by_name.get(variable.name) if variable.name else None
            if name is not None and (key not in shown or key.startswith(_COPIES)):
                self.shown[key] = name
            if key in self.shown and not key.startswith(_COPIES):
                own = self.shown[key]
                trained[own] = trained.get(own, False) or variable.trainable
        self.untrained = frozenset(name for name, moved in trained.items() if not moved)

    def leaf(self, handle: Handle, declared: OpenShape) -> str:
        """The leaf of a variable, with the axes that the program uses."""
        tape = self.walk.tape
        name = self.shown.get(self.keys.get(handle.name, ""))
        if name is None:
            if declared is None or min(declared, default=0) < 0:
                raise GraphError(f"the variable {handle.name!r} is not in the checkpoint")
            return tape.constant(f"variable/{handle.name}", declared)
        ref = self.tensors[name]
        if name.rsplit(".", 1)[-1] in _STATISTICS and len(ref.shape) == 1:
            return tape.constant(name, ref.shape)
        return tape.parameter(name, ref.shape, ref.dtype, _order(ref, declared))


def _order(ref: TensorRef, declared: OpenShape) -> list[int]:
    """Axes of a tensor as shown, in the order of the bytes."""
    if ref.strides is None:
        return []
    if declared is None or sorted(declared) != sorted(ref.shape):
        raise GraphError(f"{ref.name!r} has another shape in the program than in the checkpoint")
    order: list[int] = []
    stride = 1
    for size in reversed(declared):
        fits = [
            axis for axis, n in enumerate(ref.shape)
            if axis not in order and n == size and (ref.strides[axis] == stride or n == 1)
        ]  # fmt: skip
        if not fits:
            raise GraphError(f"{ref.name!r} lies in another order than the program says")
        order.insert(0, fits[0])
        stride *= size
    return order


def _restored(program: SavedProgram) -> Iterator[tuple[str, str]]:
    """Operator that holds a variable -> key in the checkpoint."""
    found: dict[str, str] = dict(_assigned(program.nodes, {}))
    for node in program.nodes.values():
        data = program.functions.get(node.function("f")) if node.op in CALLS else None
        if data is None or b"RestoreV2" not in data:
            continue
        function = read_function(data)
        given = [name for name in node.inputs if not name.startswith("^")]
        if len(given) == len(function.arguments):
            found |= dict(
                _assigned(function.nodes, dict(zip(function.arguments, given, strict=True)))
            )
    copies = {}
    for node in program.nodes.values():
        if node.op == "AssignVariableOp" and len(node.inputs) >= 2 and node.inputs[0] in found:
            read = program.nodes.get(node.inputs[1])
            if read is not None and read.op == "ReadVariableOp" and read.inputs:
                copies[read.inputs[0]] = found[node.inputs[0]]
    yield from ({**copies, **found}).items()
    for name, node in program.nodes.items():
        shared = node.text("shared_name")
        if node.op == "VarHandleOp" and name not in found and name not in copies and shared:
            same = [key for key, v in program.variables.items() if v.name == shared]
            if same:
                yield name, same[0]


def _assigned(nodes: Mapping[str, TfNode], given: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for node in nodes.values():
        if node.op not in ("AssignVariableOp", "Assign") or len(node.inputs) < 2:
            continue
        source = node.inputs[1]
        while (step := nodes.get(source.partition(":")[0])) is not None and step.op in (
            "Identity", "Cast",
        ):  # fmt: skip
            source = step.inputs[0]
        if step is None or step.op != "RestoreV2":
            continue
        names = nodes.get(step.inputs[1].partition(":")[0])
        place = source.rpartition(":")[2]
        keys = names.texts("value") if names is not None else []
        at = int(place) if place.isdigit() else 0
        if at < len(keys):
            yield given.get(node.inputs[0], node.inputs[0]), keys[at]


__all__ = ["PROGRAM", "Shape", "graph_of_saved_model", "read_saved_model"]
