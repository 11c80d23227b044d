"""A PaddlePaddle 3 program (inference.json) -> `ModelGraph`: the same table of operators.

The file is JSON: one list of operators with their inputs, attributes and types, read as data.
Parameters have Paddle's own names in it (conv2d_0.w_0); a checkpoint's table of names says which of
its tensors they are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from smdlens.containers.json_header import read_json
from smdlens.errors import GraphError
from smdlens.snapshots.paddle import is_linear
from smdlens.symmetry import paddle_movement, paddle_operators
from smdlens.symmetry.arithmetic_norms import with_norms
from smdlens.symmetry.graph_errors import reading_graph
from smdlens.symmetry.keras_call import NotTranslated
from smdlens.symmetry.model_graph import ModelGraph, Shape
from smdlens.symmetry.paddle_call import OPERATORS, PirCall
from smdlens.symmetry.tape import Operand, Tape

_BATCH, _OPEN = 2, 32
_MOST_OPERATORS = 200_000
_FLOATING = ("f16", "f32", "f64", "bf16")
_NAMES = {"f16": "float16", "f32": "float32", "f64": "float64", "bf16": "bfloat16"}
_STATISTICS = (".w_1", ".w_2")  # of a batch norm
Value = Operand | list[Operand]


def graph_of_paddle(path: Path) -> ModelGraph:
    """Reads a program as `paddle.jit.save` writes it since version 3.

    Raises:
        GraphError: It cannot be read.
    """
    with reading_graph(path, "program", expected="a .json file of paddle.jit.save, PaddlePaddle 3"):
        content = read_json(str(path), allow_nan=True)
        (region,) = content["program"]["regions"]
        (block,) = region["blocks"]
        return _Walk().graph(block["ops"])


def with_file_names(graph: ModelGraph, names: Mapping[str, str]) -> ModelGraph:
    """The graph with a checkpoint's names.

    Args:
        graph: One of `graph_of_paddle`.
        names: Paddle's own name of a parameter -> the name that the checkpoint's tensor has.
    """
    return dataclasses.replace(
        graph,
        parameters={
            key: dataclasses.replace(parameter, name=names.get(parameter.name, parameter.name))
            for key, parameter in graph.parameters.items()
        },
        constants={
            key: dataclasses.replace(constant, name=names.get(constant.name, constant.name))
            for key, constant in graph.constants.items()
        },
    )


class _Walk:
    """One pass over the operators."""

    def __init__(self) -> None:
        self.tape = Tape()
        self.values: dict[int, Value] = {}
        self.untrained: set[str] = set()
        self.outputs: list[str] = []

    def graph(self, operators: list[Any]) -> ModelGraph:
        if len(operators) > _MOST_OPERATORS:
            raise GraphError("too many operators")
        for operator in operators:
            self._done(operator)
        if not self.outputs or not self.tape.parameters:
            raise GraphError("the program gives nothing that depends on its parameters")
        graph = self.tape.graph(tuple(dict.fromkeys(self.outputs)), "paddle")
        return with_norms(graph, frozenset(self.untrained))

    def _done(self, operator: Mapping[str, Any]) -> None:
        kind = str(operator["#"])
        if kind == "p":
            self._parameter(operator)
            return
        op = kind.partition(".")[2].rstrip("_")
        attributes = {item["N"]: _plain(item["AT"]) for item in operator.get("A", ())}
        self.tape.module = str(attributes.get("struct_name", "")).strip("/").replace("/", ".")
        given = [self.values.get(item["%"]) for item in operator.get("I", ())]
        results = operator.get("O", ())
        if op == "data":
            shape = _closed(_type(results[0])[1])
            name = str(attributes.get("name", len(self.values)))
            self.values[results[0]["%"]] = self.tape.constant(name, shape, is_input=True)
            return
        if op == "fetch":
            if isinstance(given[0], str) and _type(results[0])[0] in _FLOATING:
                self.outputs.append(given[0])
            return
        if op == "combine":
            self.values[results[0]["%"]] = list(_ones(given))
            return
        if op in ("split", "slice") and kind.startswith("0."):  # of lists, not of tensors
            whole = given[0]
            items = whole if isinstance(whole, list) else []
            places = [int(attributes.get("index", 0))] if op == "slice" else range(len(results))
            for result, at in zip(results, places, strict=True):
                self.values[result["%"]] = items[at]
            return
        self._translated(op, attributes, given, operator)

    def _parameter(self, operator: Mapping[str, Any]) -> None:
        name, result = str(operator["A"][3]), operator["O"]
        kind, sizes = _type(result)
        shape = _closed(sizes)
        trained = bool(operator.get("OA", [0, 0, 1])[-1])
        if kind not in _FLOATING or (not trained and name.endswith(_STATISTICS)):
            made = self.tape.constant(name, shape)
        elif len(shape) == 2 and is_linear(name):
            made = self.tape.parameter(name, shape[::-1], _NAMES[kind], [1, 0])
        else:
            made = self.tape.parameter(name, shape, _NAMES[kind])
        if not trained:
            self.untrained.add(name)
        self.values[result["%"]] = made

    def _translated(
        self, op: str, attributes: Mapping[str, Any], given: list[Value | None],
        operator: Mapping[str, Any],
    ) -> None:  # fmt: skip
        results = operator.get("O", ())
        call = PirCall(self.tape, op, attributes, given, frozenset(self.untrained))
        translate = OPERATORS.get(op)
        before = len(self.tape.nodes)
        made: Value | None = None
        if translate is not None and "regions" not in operator:
            try:
                made = translate(call)
            except NotTranslated:
                self.tape.undo(before)
        if made is None:
            self._unknown(op, operator)
            return
        if isinstance(made, list) and len(results) == len(made) > 1:
            for result, value in zip(results, made, strict=True):
                self.values[result["%"]] = value
            return
        # Further results are masks, statistics and the like, which no network uses as values.
        self.values[results[0]["%"]] = made
        for result in results[1:]:
            kind, shape = _type(result)
            if kind:
                unread = self.tape.unknown(f"pd.{op}", list(_ones(given)), _closed(shape))
                self.values[result["%"]] = unread

    def _unknown(self, op: str, operator: Mapping[str, Any]) -> None:
        """A function of all that it or its regions use, and that sees every scale."""
        inputs: list[Operand] = []
        for place in dict.fromkeys(_used(operator)):
            value = self.values.get(place)
            inputs += value if isinstance(value, list) else [] if value is None else [value]
        for result in operator.get("O", ()):
            kind, shape = _type(result)
            if kind:
                made = self.tape.unknown(f"pd.{op}", inputs, _closed(shape))
                self.values[result["%"]] = made
            elif "t_vec" in str(result.get("TT", {}).get("#", "")):
                self.values[result["%"]] = [
                    self.tape.unknown(f"pd.{op}", inputs, _closed(item["D"][1]))
                    for item in result["TT"]["D"]
                ]


def _ones(values: list[Value | None]) -> Iterator[Operand]:
    for value in values:
        if value is not None and not isinstance(value, list):
            yield value


def _used(item: Any) -> Iterator[int]:
    """Numbers of the values that an operator or one in its regions takes."""
    pending = [item]
    while pending:
        at = pending.pop()
        if isinstance(at, dict):
            for key, inner in at.items():
                if key == "I":
                    yield from (entry["%"] for entry in inner)
                elif key != "O":
                    pending.append(inner)
        elif isinstance(at, list):
            pending += at


def _type(result: Mapping[str, Any]) -> tuple[str, list[int]]:
    """Element type ("f32") and sizes of a value; "" for one that is no tensor."""
    kind = result.get("TT") or {}
    if not str(kind.get("#", "")).endswith("t_dtensor"):
        return "", []
    element, sizes = kind["D"][0], kind["D"][1]
    return str(element["#"]).rpartition("t_")[2], [int(n) for n in sizes]


def _closed(sizes: list[int]) -> Shape:
    """A shape with its open sizes filled in."""
    shape = tuple(n if n >= 0 else (_OPEN if at else _BATCH) for at, n in enumerate(sizes))
    if len(shape) > 16 or math.prod(shape) > 1 << 40:
        raise ValueError("an impossible shape")
    return shape


def _plain(value: Any) -> Any:
    """An attribute as plain data."""
    content = value.get("D") if isinstance(value, dict) else value
    if isinstance(content, list):
        return [_plain(item) if isinstance(item, dict) else item for item in content]
    return content


__all__ = ["graph_of_paddle", "paddle_movement", "paddle_operators", "with_file_names"]
