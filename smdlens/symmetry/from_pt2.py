"""A .pt2 file -> `ModelGraph`, from its JSON alone: nothing in the archive is unpickled or run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from smdlens.containers.files import open_regular
from smdlens.containers.limits import DEFAULT_LIMITS
from smdlens.containers.zip_directory import read_zip_directory, require_stored
from smdlens.errors import GraphError
from smdlens.symmetry.graph_errors import reading_graph
from smdlens.symmetry.model_graph import Constant, ModelGraph, Node, Parameter, Ref, Shape

# Numbers of torch's serialised dtypes that are floating or complex.
_FLOATING = {6: "float16", 7: "float32", 8: "float64", 9: "complex32", 10: "complex64",
             11: "complex128", 13: "bfloat16"}  # fmt: skip
_VIEWS = frozenset({
    "view", "reshape", "slice", "select", "transpose", "permute", "expand", "squeeze", "unsqueeze",
    "split", "chunk", "unbind", "t", "flatten", "unflatten", "alias", "detach", "diagonal",
    "narrow", "view_as", "expand_as", "split_with_sizes", "movedim", "contiguous", "to", "getitem",
    "numpy_T", "unfold",
})  # fmt: skip


def graph_of_pt2(path: Path) -> ModelGraph:
    """Reads an archive written by `torch.export.save`.

    Export in eval form, and functional (`ep.run_decompositions({})`) where the model writes into
    views: a file that was saved with such writes is refused.

    Raises:
        GraphError: It cannot be read, or is of another form.
    """
    with reading_graph(
        path,
        expected="an archive of torch.export.save",
        remedy="Save it again with the torch that is installed here, or use --model.",
    ):
        program, first_names = _program(path)
        return _translated(program, first_names, path)


def _program(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    with open_regular(path) as file:
        entries = read_zip_directory(file)
        names = [
            name
            for name in entries
            if name.endswith("models/model.json")
            or name.endswith("serialized_exported_program.json")
        ]
        if not names:
            raise GraphError(
                "no exported program is in it",
                subject=str(path),
                expected="an archive of torch.export.save",
                remedy="torch.export.save(torch.export.export(model.eval(), args), 'model.pt2')",
            )
        entry = require_stored(file, entries[names[0]])
        if entry.nbytes > DEFAULT_LIMITS.json_bytes:
            raise GraphError("its graph is too large", subject=str(path))
        program = json.loads(file.read(entry.offset, entry.nbytes))
        weights: dict[str, Any] = {}
        for name in entries:
            if name.endswith("data/weights/model_weights_config.json"):
                listed = require_stored(file, entries[name])
                if listed.nbytes <= DEFAULT_LIMITS.json_bytes:
                    weights = json.loads(file.read(listed.offset, listed.nbytes))["config"]
    if not isinstance(program, dict):
        raise TypeError("no object at the top")
    return program, _first_names(weights)


def _first_names(weights: Mapping[str, Any]) -> dict[str, str]:
    """Name of each stored weight -> first name of the same (tied) tensor."""
    first: dict[str, str] = {}
    names: dict[str, str] = {}
    for name, entry in weights.items():
        meta = entry["tensor_meta"]
        place = json.dumps([entry["path_name"], meta["storage_offset"], meta["sizes"]])
        names[name] = first.setdefault(place, name)
    return names


def _translated(
    program: Mapping[str, Any], first_names: Mapping[str, str], path: Path
) -> ModelGraph:
    module = program["graph_module"]
    graph, signature = module["graph"], module["signature"]
    values: Mapping[str, Any] = graph["tensor_values"]
    shapes = {name: _shape(meta) for name, meta in values.items()}
    parameters: dict[str, Parameter] = {}
    constants: dict[str, Constant] = {}
    for spec in signature["input_specs"]:
        kind, body = next(iter(spec.items()))
        for name in _tensors(body.get("arg")):
            shape = shapes.get(name, ())
            if kind == "parameter":
                dtype = _FLOATING.get(values[name]["dtype"], "float32")
                own = body["parameter_name"]
                first = first_names.get(own, own)
                further = tuple(n for n, f in first_names.items() if f == first and n != first)
                parameters[name] = Parameter(first, shape, dtype, further)
            else:
                label = body.get("buffer_name") or body.get("tensor_constant_name") or ""
                constants[name] = Constant(label, shape, kind == "user_input")
    nodes: list[Node] = []
    writes = _Writes(path)
    for node in graph["nodes"]:
        nodes.extend(map(writes.functional, _nodes(node, values, shapes)))
    made = {node.name for node in nodes}
    outputs = [
        name
        for spec in signature["output_specs"]
        for kind, body in spec.items()
        if kind in ("user_output", "loss_output")
        for name in map(writes.latest, _tensors(body["arg"]))
        if name in values and values[name]["dtype"] in _FLOATING
    ]
    losses = [
        name
        for spec in signature["output_specs"]
        for name in _tensors(spec.get("loss_output", {}).get("arg"))
    ]
    chosen = tuple(dict.fromkeys(losses or outputs))
    if not chosen or not all(n in made or n in parameters or n in constants for n in chosen):
        raise GraphError("the model gives no floating-point tensor", subject=str(path))
    return ModelGraph(parameters, constants, tuple(nodes), chosen, "pt2")


class _Writes:
    """Makes operators that write in place functional; refuses writes into views."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.newest: dict[str, str] = {}
        self.shared: set[str] = set()  # values that share memory with another

    def latest(self, name: str) -> str:
        """The value that a name stands for after all writes so far."""
        return self.newest.get(name, name)

    def functional(self, node: Node) -> Node:
        """The node with up-to-date arguments and without a write."""
        arguments = {name: self._renewed(item) for name, item in node.arguments.items()}
        writes = node.op.endswith("_") and not node.op.startswith("_")
        first = node.arguments.get("self", node.arguments.get("input"))
        if node.op in _VIEWS and isinstance(first, Ref):
            self.shared |= {node.name, first.name, self.latest(first.name)}
        if not writes:
            return dataclasses.replace(node, arguments=arguments)
        if not isinstance(first, Ref) or self.shared & {first.name, self.latest(first.name)}:
            raise GraphError(
                f"it was saved with writes into views ({node.op}), which hide what depends on what",
                subject=str(self.path),
                remedy="Save ep.run_decompositions({}) instead of ep.",
            )
        written = {first.name} | {k for k, v in self.newest.items() if v == self.latest(first.name)}
        self.newest.update(dict.fromkeys(written, node.name))
        return dataclasses.replace(node, op=node.op[:-1], arguments=arguments)

    def _renewed(self, item: object) -> object:
        if isinstance(item, Ref):
            return Ref(self.latest(item.name))
        return [self._renewed(inner) for inner in item] if isinstance(item, list) else item


def _shape(meta: Mapping[str, Any]) -> Shape:
    return tuple(_size(size) for size in meta["sizes"])


def _size(size: Mapping[str, Any]) -> int:
    if "as_int" in size:
        return int(size["as_int"])
    expression = size.get("as_expr", {})
    hint = expression.get("hint") or {}
    if "as_int" in hint:  # a dynamic size: the one it was traced with
        return int(hint["as_int"])
    raise ValueError("a size without a value")


def _tensors(argument: Any) -> Iterator[str]:
    """Names of tensors in a serialised argument."""
    if isinstance(argument, dict):
        for key, value in argument.items():
            if key == "as_tensor":
                yield value["name"]
            elif key in ("as_tensors", "as_nested_tensors", "as_optional_tensors"):
                yield from _tensors(value)
            elif key == "name" and len(argument) == 1:
                yield value
    elif isinstance(argument, list):
        for item in argument:
            yield from _tensors(item)


def _argument(argument: Mapping[str, Any]) -> object:
    kind, value = next(iter(argument.items()))
    if kind == "as_none":
        return None
    if kind == "as_tensor":
        return Ref(value["name"])
    if kind == "as_tensors":
        return [Ref(item["name"]) for item in value]
    if kind == "as_optional_tensors":
        return [_argument(item) for item in value]
    if kind in ("as_int", "as_float", "as_bool", "as_string", "as_ints", "as_floats", "as_bools"):
        return float(value) if kind == "as_float" else value
    if kind in ("as_sym_int", "as_sym_ints", "as_sym_float"):
        return _symbolic(value)
    return str(value)


def _symbolic(value: Any) -> object:
    if isinstance(value, list):
        return [_symbolic(item) for item in value]
    return value["as_int"] if "as_int" in value else str(value)


def _nodes(
    node: Mapping[str, Any], values: Mapping[str, Any], shapes: Mapping[str, Shape]
) -> Iterator[Node]:
    target = str(node["target"])
    parts = target.split(".")
    # torch.ops.aten.conv2d.default, or a name of another namespace.
    op = parts[3] if target.startswith("torch.ops.aten.") else ".".join(parts[2:-1]) or target
    arguments: dict[str, object] = {}
    for at, item in enumerate(node["inputs"]):
        arguments[item.get("name") or f"argument{at}"] = _argument(item["arg"])
    stack = str(node.get("metadata", {}).get("nn_module_stack", ""))
    module = stack.rsplit(";", 1)[-1].split(",")[1] if stack.count(",") >= 2 else ""
    names = list(_outputs(node["outputs"]))
    if not names:
        return
    name = str(node.get("name") or names[0])
    listed = len(names) > 1 or any("as_tensors" in output for output in node["outputs"])
    own_shapes = tuple(shapes.get(output, ()) for output in names)
    floating = names[0] in values and values[names[0]]["dtype"] in _FLOATING
    if not listed:
        yield Node(names[0], op, arguments, own_shapes, module, floating)
        return
    whole = f"{name}!"  # no torch name holds an exclamation mark
    yield Node(whole, op, arguments, own_shapes, module, True, True)
    for at, output in enumerate(names):
        pick: dict[str, object] = {"self": Ref(whole), "index": at}
        yield Node(output, "getitem", pick, (own_shapes[at],), module)


def _outputs(outputs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for output in outputs:
        yield from _tensors(output)
        for kind in ("as_int", "as_sym_int", "as_bool"):
            if isinstance(output.get(kind), dict) and "name" in output[kind]:
                yield output[kind]["name"]
