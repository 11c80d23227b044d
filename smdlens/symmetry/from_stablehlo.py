"""A StableHLO program as text -> `ModelGraph`: what JAX lowers, with the names of its arguments.

Arguments whose place in the caller's tree holds `params` are trained, those under `batch_stats` are
statistics, the others inputs; without such places any argument with a place of its own is trained.
Names and axes are those under which checkpoints of Flax are shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from smdlens.containers.files import open_regular
from smdlens.errors import GraphError
from smdlens.snapshots.foreign_names import output_first, torch_names
from smdlens.snapshots.records import TensorRef
from smdlens.symmetry import stablehlo_layers, stablehlo_operators
from smdlens.symmetry.arithmetic_norms import with_norms
from smdlens.symmetry.graph_errors import reading_graph
from smdlens.symmetry.keras_call import NotTranslated
from smdlens.symmetry.model_graph import ModelGraph
from smdlens.symmetry.stablehlo_call import OPERATORS, HloCall
from smdlens.symmetry.stablehlo_text import (
    DTYPES,
    MOST_OPERATORS,
    MOST_TEXT,
    HloFunction,
    Operator,
    TensorType,
    literal,
    read_program,
)
from smdlens.symmetry.tape import Operand, Tape

_BYTECODE = b"ML\xefR"
_STEP = re.compile(r"\[['\"]?([^'\"\]]+)['\"]?\]|\.(\w+)")
_STATISTICS = ("batch_stats", "BatchStat")
_LEAVES = ("running_mean", "running_var")
_DEEPEST = 60
Place = tuple[str, ...]


def graph_of_stablehlo(path: Path) -> ModelGraph:
    """Reads a program as JAX writes it.

    Raises:
        GraphError: It cannot be read, or does not say which argument is which parameter.
    """
    with reading_graph(path, "text"):
        with open_regular(path) as file:
            if file.size > MOST_TEXT:
                raise GraphError("the text is too long", expected=f"at most {MOST_TEXT} bytes")
            data = file.read(0, file.size)
        if data.startswith(_BYTECODE):
            raise GraphError(
                "MLIR bytecode is not read",
                expected="the program as text",
                remedy="Write exported.mlir_module(), or lowered.as_text(debug_info=True).",
            )
        functions = read_program(data.decode("utf-8"))
        main = functions.get("main")
        if main is None:
            raise GraphError("the program has no function @main")
        return _graph(main, functions)


def _graph(main: HloFunction, functions: Mapping[str, HloFunction]) -> ModelGraph:
    walk = _Walk(functions)
    given = _leaves(walk.tape, main)
    results = walk.called(main, given, 0)
    kept = [
        walk.tape.leaf(value)
        for at, value in enumerate(results)
        if not set(_place(_note(main, at))) & set(_STATISTICS) and walk.floats(value)
    ]
    if not kept or not walk.tape.parameters:
        raise GraphError("the program gives nothing that depends on its parameters")
    return with_norms(walk.tape.graph(tuple(dict.fromkeys(kept)), "stablehlo"))


def _note(main: HloFunction, at: int) -> str:
    return main.results[at] if at < len(main.results) else ""


def _place(name: str) -> Place:
    """`v['params']['conv1']['kernel']` as ("v", "params", "conv1", "kernel")."""
    head = re.match(r"\w+", name)
    steps = [a or b for a, b in _STEP.findall(name)]
    return (head[0] if head else "", *steps)


def _leaves(tape: Tape, main: HloFunction) -> list[Operand]:
    """The arguments as parameters, statistics and inputs."""
    places = [_place(name) for _, _, name in main.arguments]
    marked = any("params" in place for place in places)
    paths: list[Place | None] = []
    kinds: list[str] = []  # the innermost mark of an argument's place
    for place, (_, kind, _) in zip(places, main.arguments, strict=True):
        inner = [at for at, part in enumerate(place) if part in ("params", *_STATISTICS)]
        own = place[inner[-1] + 1 :] if inner else (() if marked else place[1:])
        own = own[:-1] if own and own[-1] == "value" else own
        paths.append(own if own and kind.floating else None)
        kinds.append(place[inner[-1]] if inner else "")
    if not any(paths):
        raise GraphError(
            "the text does not say which argument is which parameter",
            expected="""locations such as loc("params['conv1']['kernel']")""",
            remedy="Write exported.mlir_module(), or lowered.as_text(debug_info=True).",
        )
    names = torch_names([path for path in paths if path])
    made: list[Operand] = []
    for path, mark, (name, kind, _) in zip(paths, kinds, main.arguments, strict=True):
        if path is None:
            made.append(tape.constant(name, kind.shape, is_input=True))
        elif names[path].rpartition(".")[2] in _LEAVES or mark in _STATISTICS:
            made.append(tape.constant(names[path], kind.shape))
        else:
            made.append(_parameter(tape, names[path], path, kind))
    return made


def _parameter(tape: Tape, name: str, path: Place, kind: TensorType) -> str:
    numbered = TensorRef(name, kind.shape, DTYPES[kind.element], ())
    shown = output_first(path, numbered)
    if shown.strides is None:
        return tape.parameter(name, kind.shape, DTYPES[kind.element])
    # Which axis went where: the same turn on a shape of distinct sizes.
    distinct = TensorRef(name, tuple(range(2, 2 + len(kind.shape))), "float32", ())
    if kind.shape[-1] == 1:
        distinct = TensorRef(name, (*distinct.shape[:-1], 1), "float32", ())
    turned = output_first(path, distinct).shape
    order = [turned.index(size) for size in distinct.shape]
    return tape.parameter(name, shown.shape, DTYPES[kind.element], order)


class _Walk:
    """Follows the program from its arguments."""

    def __init__(self, functions: Mapping[str, HloFunction]) -> None:
        self.functions = functions
        self.tape = Tape()
        self._whole: set[str] = set()  # values that are no floats
        self._steps = 0

    def floats(self, value: Operand) -> bool:
        """Whether a value is of numbers with fractions."""
        if isinstance(value, str):
            return value not in self._whole
        return value.dtype.kind == "f"

    def called(self, function: HloFunction, given: Sequence[Operand], depth: int) -> list[Operand]:
        """Results of a function."""
        if depth > _DEEPEST:
            raise GraphError("functions inside each other without end")
        if len(given) != len(function.arguments):
            raise GraphError("a function is called with other arguments")
        values: dict[str, Operand] = {
            name: value for (name, _, _), value in zip(function.arguments, given, strict=True)
        }
        for operator in function.operators:
            self._steps += 1
            if self._steps > MOST_OPERATORS:
                raise GraphError("too many operators")
            results = self._done(operator, values, depth)
            for at, value in enumerate(results):
                kind = operator.types[min(at, len(operator.types) - 1)]
                if isinstance(value, str) and not kind.floating:
                    self._whole.add(value)
                if operator.result:
                    values[f"{operator.result}#{at}"] = value
            if operator.result and results:
                values[operator.result] = results[0]
        return [values[name] for name in function.returned]

    def _done(self, operator: Operator, values: Mapping[str, Operand], depth: int) -> list[Operand]:
        op = operator.op.rpartition(".")[2]
        if op == "call":
            name = operator.text.partition("@")[2].partition("(")[0].strip('"')
            if name not in self.functions:
                raise GraphError(f"the function @{name} is not in the text")
            given = [values[item] for item in operator.names]
            return self.called(self.functions[name], given, depth + 1)
        if op == "constant":
            known = literal(operator)
            if known is not None:
                return [known]
            return [
                self.tape.constant(f"literal/{len(self.tape.constants)}", operator.types[0].shape)
            ]
        # Regions use values from outside, and have some of their own.
        used = list(dict.fromkeys(name for name in operator.names if name in values))
        inputs = [values[name] for name in operator.names if name in values]
        call = HloCall(self.tape, operator, inputs)
        if op == "iota":
            return [self._unread(operator)]
        if inputs and not any(isinstance(value, str) for value in inputs):
            folded = stablehlo_operators.evaluated(call)
            if folded is not None and folded.shape == operator.types[0].shape:
                return [folded]
        before = len(self.tape.nodes)
        translate = OPERATORS.get(op)
        if translate is not None and operator.op.startswith(("stablehlo.", "chlo.", "mhlo.")):
            try:
                result = translate(call)
            except NotTranslated:
                self.tape.undo(before)
            else:
                made = result if isinstance(result, list) else [result]
                if [self.tape.shape(v) for v in made] == [t.shape for t in operator.types]:
                    return made
        wanted = [values[name] for name in used]
        return [self.tape.unknown(f"hlo.{op}", wanted, kind.shape) for kind in operator.types]

    def _unread(self, operator: Operator) -> str:
        """A constant whose numbers are not looked at."""
        return self.tape.constant(f"literal/{len(self.tape.constants)}", operator.types[0].shape)


__all__ = ["graph_of_stablehlo", "stablehlo_layers"]
