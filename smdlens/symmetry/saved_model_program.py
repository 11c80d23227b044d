"""Walks through a SavedModel's program: calls are followed, nothing is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from smdlens.errors import GraphError
from smdlens.symmetry import saved_model_layers, saved_model_movement
from smdlens.symmetry.keras_call import NotTranslated
from smdlens.symmetry.model_graph import Shape
from smdlens.symmetry.saved_model_call import OPEN, OPERATORS, Handle, Result, TfCall, evaluated
from smdlens.symmetry.saved_model_reader import (
    FLOATING,
    SavedProgram,
    TfFunction,
    TfNode,
    read_function,
)
from smdlens.symmetry.saved_model_tensor import OpenShape
from smdlens.symmetry.tape import Operand, Tape

__all__ = ["Walk", "saved_model_layers", "saved_model_movement"]

CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_VARIABLES = ("VarHandleOp", "VariableV2", "Variable")
_NAMED = {"y": 0, "batch_mean": 1, "batch_variance": 2, "reserve_space_1": 3,
          "reserve_space_2": 4, "reserve_space_3": 5}  # fmt: skip
_BATCH = 2
_DEEPEST = 40
_MOST_STEPS = 500_000

Held = Operand | Handle


@dataclass(slots=True)
class _Frame:
    """One call: its operators, what it was given, and the results so far."""

    nodes: Mapping[str, TfNode]
    given: Mapping[str, Held]
    depth: int
    done: dict[str, list[Held]] = field(default_factory=dict)


class Walk:
    """Translates what some outputs need.

    Args:
        program: The file.
        read: The leaf of a variable by its holder and declared shape.
    """

    def __init__(self, program: SavedProgram, read: Callable[[Handle, OpenShape], str]) -> None:
        self.program = program
        self.tape = Tape()
        self.read = read
        self.untrained: frozenset[str] = frozenset()
        self._functions: dict[str, TfFunction] = {}
        self._declared: dict[str, OpenShape] = {}
        self._steps = 0

    def outputs(self, names: list[str]) -> list[str]:
        """Names of the values on the tape."""
        top = _Frame(self.program.nodes, {}, 0)
        return [self.tape.leaf(self._plain(self._value(top, name))) for name in names]

    def _plain(self, held: Held) -> Operand:
        """A value; of a variable what it holds."""
        if isinstance(held, Handle):
            return self.read(held, self._declared.get(held.name))
        return held

    def _value(self, frame: _Frame, name: str) -> Held:
        """What a name of a frame stands for; its operators are done in order, without recursion."""
        waiting = [_operator(name)]
        active: set[str] = set()
        while waiting:
            own = waiting[-1]
            if own in frame.given or own in frame.done:
                waiting.pop()
                continue
            node = frame.nodes.get(own)
            if node is None:
                raise GraphError(f"the operator {own!r} is not in the program")
            needed = [_operator(i) for i in node.inputs if not i.startswith("^")]
            missing = [i for i in needed if i not in frame.given and i not in frame.done]
            if not missing:
                frame.done[own] = self._done(frame, node)
                waiting.pop()
            elif own in active:
                raise GraphError("operators that wait for each other: loops are not read")
            else:
                active.add(own)
                waiting += missing
        return _picked(frame, name)

    def _done(self, frame: _Frame, node: TfNode) -> list[Held]:
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise GraphError("too many operators")
        inputs = [_picked(frame, name) for name in node.inputs if not name.startswith("^")]
        if node.op in CALLS:
            return self._called(frame, node, inputs)
        if node.op in _VARIABLES:
            self._declared[node.name] = node.shape("shape")
            return [Handle(node.name)]
        if node.op == "Const":
            _, shape, known = node.tensor("value")
            if known is not None:
                return [known]
            return [self.tape.constant(f"literal/{len(self.tape.constants)}", shape)]
        if node.op in ("Placeholder", "PlaceholderWithDefault"):
            return [self._source(node)]
        values = [self._plain(value) for value in inputs]
        if node.op in ("Shape", "ShapeN"):
            return [np.asarray(self.tape.shape(value), np.int64) for value in values]
        if node.op in ("Rank", "Size"):
            shape = self.tape.shape(values[0])
            size = len(shape) if node.op == "Rank" else int(np.prod(shape, dtype=np.int64))
            return [np.asarray(size, np.int64)]
        self.tape.module = node.name.rpartition("/")[0]
        return self._translated(TfCall(self.tape, node, values, self.untrained))

    def _translated(self, call: TfCall) -> list[Held]:
        if call.inputs and not any(isinstance(value, str) for value in call.inputs):
            known = evaluated(call)
            if known is not None:
                return [known]
        translate = OPERATORS.get(call.node.op)
        before = len(self.tape.nodes)
        result: Result | None = None
        if translate is not None:
            try:
                result = translate(call)
            except NotTranslated:
                self.tape.undo(before)
        if result is None:
            return self._unknown(call)
        return list(result) if isinstance(result, list) else [result]

    def _unknown(self, call: TfCall) -> list[Held]:
        """A function of all its inputs that sees every scale."""
        shapes = call.node.shapes("_output_shapes")
        closed = [_closed(shape) for shape in shapes]
        if call.node.op in OPERATORS and not closed and call.inputs:
            closed = [call.shape(0)]
        if not closed or None in closed:
            raise GraphError(
                f"the shape of what the operator {call.node.op} gives is not known",
                found=call.node.name,
                remedy="Use --graph with an .onnx file of the model.",
            )
        made: list[Held] = []
        for shape in closed:
            assert shape is not None
            made.append(self.tape.unknown(f"tf.{call.node.op}", call.inputs, shape))
        return made

    def _source(self, node: TfNode) -> str:
        shapes = node.shapes("_output_shapes")
        said = node.shape("shape") or (shapes[0] if shapes else None)
        shape = _closed(said)
        if shape is None:
            raise GraphError(f"the input {node.name!r} is of unknown shape")
        return self.tape.constant(node.name, shape, is_input=True)

    def _called(self, frame: _Frame, node: TfNode, inputs: list[Held]) -> list[Held]:
        name = node.function("f")
        if frame.depth >= _DEEPEST:
            raise GraphError("functions inside each other without end")
        if name not in self._functions:
            data = self.program.functions.get(name)
            if data is None:
                raise GraphError(f"the function {name!r} is not in the file")
            self._functions[name] = read_function(data)
        function = self._functions[name]
        if len(function.arguments) != len(inputs):
            raise GraphError(f"the function {name!r} is called with other arguments")
        given = dict(zip(function.arguments, inputs, strict=True))
        inner = _Frame(function.nodes, given, frame.depth + 1)
        return [self._value(inner, result) for result in function.results]


def _operator(name: str) -> str:
    return name.partition(":")[0]


def _picked(frame: _Frame, name: str) -> Held:
    """An output of an operator: `name`, `name:1` or, inside functions, `name:y:1`."""
    own, *where = name.split(":")
    if own in frame.given:
        return frame.given[own]
    results = frame.done[own]
    at = int(where[-1]) if where else 0
    if len(where) == 2:
        at += _NAMED.get(where[0], 0)
    if not 0 <= at < len(results):
        raise GraphError(f"{name!r} is no output that is known")
    return results[at]


def _closed(said: OpenShape) -> Shape | None:
    """A shape with its open sizes filled in; None where it is of any rank."""
    if said is None:
        return None
    return tuple(n if n >= 0 else (OPEN if at else _BATCH) for at, n in enumerate(said))


def is_floating(kind: int) -> bool:
    """Whether a type is one of numbers with a fraction."""
    return kind in FLOATING
