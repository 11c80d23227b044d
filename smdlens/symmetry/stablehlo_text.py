"""The text of a StableHLO program (MLIR) -> functions and operators; nothing is run.

One operator per line, or several lines where it holds regions. Types are written behind every
operator, names of arguments in `loc(...)` where the program was lowered with them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smdlens.errors import GraphError
from smdlens.symmetry.model_graph import Shape

MOST_TEXT = 64 << 20
MOST_OPERATORS = 300_000
_ALIAS = re.compile(r'#(loc\d*) = loc\("((?:[^"\\]|\\.)*)"')
_FUNCTION = re.compile(r"\s*func\.func (?:public |private )?@([\w.$-]+|\"[^\"]*\")\((.*)$")
_ARGUMENT = re.compile(r"%(\w+): tensor<([^<>]*(?:<[^<>]*>)?[^<>]*)>")
_OPERATOR = re.compile(r'\s*(?:%(\w+)(?::(\d+))? = )?"?([\w.]+)"?(.*)$', re.DOTALL)
_TENSOR = re.compile(r"tensor<([^<>]*)>")
_NAME = re.compile(r"%(\w+)(?:#(\d+))?")
_RESULT = re.compile(r'jax\.result_info = "((?:[^"\\]|\\.)*)"')
_DENSE = re.compile(r"dense<(.*)>\s*$", re.DOTALL)
_SMALL = 1 << 16
_NUMPY = {"f64": "<f8", "f32": "<f4", "f16": "<f2", "i64": "<i8", "i32": "<i4", "i16": "<i2",
          "i8": "i1", "ui64": "<u8", "ui32": "<u4", "ui16": "<u2", "ui8": "u1", "i1": "?",
          "bf16": "<f4"}  # fmt: skip
DTYPES = {"f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True, slots=True)
class TensorType:
    """Shape and element type ("f32")."""

    shape: Shape
    element: str

    @property
    def floating(self) -> bool:
        """Whether its elements have fractions."""
        return self.element in DTYPES


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator: names of its results, what is written behind it, names that it uses."""

    result: str
    count: int
    op: str
    text: str
    names: tuple[str, ...]
    types: tuple[TensorType, ...]


@dataclass(frozen=True, slots=True)
class HloFunction:
    """A function: arguments with types and names in the caller's tree, and its operators."""

    arguments: tuple[tuple[str, TensorType, str], ...]
    results: tuple[str, ...]
    operators: tuple[Operator, ...]
    returned: tuple[str, ...]


def read_program(text: str) -> Mapping[str, HloFunction]:
    """The functions by name.

    Raises:
        GraphError: Text of another form.
    """
    aliases = {match[1]: match[2] for match in _ALIAS.finditer(text)}
    functions: dict[str, HloFunction] = {}
    lines = iter(text.splitlines())
    total = 0
    for line in lines:
        match = _FUNCTION.match(line)
        if match is None:
            continue
        operators: list[Operator] = []
        returned: tuple[str, ...] = ()
        for statement in _statements(lines):
            total += 1
            if total > MOST_OPERATORS:
                raise GraphError("too many operators")
            found = _operator(statement)
            if found.op in ("return", "func.return", "stablehlo.return"):
                returned = found.names
            else:
                operators.append(found)
        signature, arrow, results = match[2].rpartition(") -> ")
        arguments = tuple(_arguments(signature if arrow else match[2], aliases))
        notes = tuple(m[1] for m in _RESULT.finditer(results if arrow else ""))
        functions[match[1].strip('"')] = HloFunction(arguments, notes, tuple(operators), returned)
    return functions


def _statements(lines: Iterator[str]) -> Iterator[str]:
    """Operators of a function's body, each with its regions, without locations."""
    held: list[str] = []
    depth = 0
    for line in lines:
        bare = _without_location(line)
        if not held and bare.strip() == "}":
            return
        if not bare.strip() or bare.lstrip().startswith("//"):
            continue
        follows = bare.lstrip().startswith(("cond {", "reducer(", "} do", "do {"))
        if held and depth == 0 and not follows:
            yield "\n".join(held)
            held = []
            if bare.strip() == "}":
                return
        held.append(bare)
        depth += _braces(bare)
        if depth < 0:
            raise GraphError("brackets that do not match")
    raise GraphError("the text ends inside a function")


def _braces(line: str) -> int:
    plain = re.sub(r'"(?:[^"\\]|\\.)*"', "", line)
    return plain.count("{") - plain.count("}")


def _without_location(line: str) -> str:
    """A line without the `loc(...)` at its end."""
    at = line.rfind(" loc(")
    while at >= 0 and line.rstrip().endswith(")"):
        if _closes(line, at + 4) == len(line.rstrip()) - 1:
            return line[:at]
        at = line.rfind(" loc(", 0, at)
    return line


def _closes(line: str, at: int) -> int:
    """Where the bracket that opens at a place closes; texts are stepped over."""
    depth, inside, place = 0, False, at
    while place < len(line):
        letter = line[place]
        if letter == "\\" and inside:
            place += 1
        elif letter == '"':
            inside = not inside
        elif not inside and letter in "(":
            depth += 1
        elif not inside and letter in ")":
            depth -= 1
            if depth == 0:
                return place
        place += 1
    return -1


def _operator(statement: str) -> Operator:
    match = _OPERATOR.match(statement)
    if match is None:
        raise GraphError("a line that is not read", found=statement.strip()[:100])
    body = match[4]
    # The types stand behind everything, or in front of regions with a heading of their own.
    head, newline, tail = body.partition("\n")
    headed = newline != "" and not tail.rpartition("\n")[2].lstrip().startswith("})")
    before, colon, types = (head if headed else body).rpartition(" : ")
    if not colon:
        before, types = body, ""
    elif headed:
        before = f"{before}\n{tail}"
    _, arrow, behind = types.rpartition("->")
    found = [tensor_type(item) for item in _TENSOR.findall(behind if arrow else types)]
    count = int(match[2] or 1)
    kept = found if arrow or match[3].endswith("return") else found[-1:]
    names = tuple(f"{n}#{at}" if at else n for n, at in _NAME.findall(before))
    if len(kept) < count:  # a call of an operator with types of its operands alone
        kept = found
    return Operator(match[1] or "", count, match[3], before, names, tuple(kept))


def tensor_type(text: str) -> TensorType:
    """`2x3xf32`."""
    *sizes, element = text.partition(",")[0].split("x")
    if not all(size.isdigit() for size in sizes):
        raise GraphError(
            "a size that is only known at run time",
            found=f"tensor<{text[:60]}>",
            remedy="Lower the program for inputs of fixed shapes.",
        )
    shape = tuple(map(int, sizes))
    if len(shape) > 16 or math.prod(shape) > 1 << 40:
        raise GraphError("an impossible shape", found=f"tensor<{text[:60]}>")
    return TensorType(shape, element.strip())


def _arguments(text: str, aliases: Mapping[str, str]) -> Iterator[tuple[str, TensorType, str]]:
    starts = list(_ARGUMENT.finditer(text))
    for at, match in enumerate(starts):
        end = starts[at + 1].start() if at + 1 < len(starts) else len(text)
        rest = text[match.end() : end]
        named = re.search(r'loc\("((?:[^"\\]|\\.)*)"', rest)
        alias = re.search(r"loc\(#(loc\d*)\)", rest)
        name = named[1] if named else aliases.get(alias[1], "") if alias else ""
        yield match[1], tensor_type(match[2]), name


def literal(operator: Operator) -> NDArray[Any] | None:
    """The numbers of a constant; one that repeats takes no space. None where they are large."""
    (kind,) = operator.types
    match = _DENSE.search(operator.text.strip())
    if match is None or kind.element not in _NUMPY:
        return None
    content, dtype = match[1].strip(), np.dtype(_NUMPY[kind.element])
    if content.startswith('"'):
        data = bytes.fromhex(content.strip('"').removeprefix("0x"))
        if math.prod(kind.shape) > _SMALL or len(data) != math.prod(kind.shape) * dtype.itemsize:
            return None
        return np.frombuffer(data, dtype).reshape(kind.shape)
    if not content.startswith("["):
        return np.broadcast_to(_number(content, dtype, kind.element), kind.shape)
    if math.prod(kind.shape) > _SMALL:
        return None
    items = [item for item in re.split(r"[\[\],\s]+", content) if item]
    values: NDArray[Any] = np.stack([_number(item, dtype, kind.element) for item in items])
    return values.reshape(kind.shape)


def _number(text: str, dtype: np.dtype[Any], element: str) -> NDArray[Any]:
    if text in ("true", "false"):
        return np.asarray(text == "true", dtype)
    if text.startswith("0x") and dtype.kind == "f":
        data = bytes.fromhex(text[2:])[::-1]
        if element == "bf16":
            data = b"\0\0" + data
        return np.frombuffer(data, dtype).reshape(())
    return np.asarray(float(text) if dtype.kind == "f" else int(text, 0), dtype)
