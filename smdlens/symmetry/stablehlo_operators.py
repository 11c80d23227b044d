"""StableHLO's operators in our terms."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from smdlens.symmetry import tape_layers as layers
from smdlens.symmetry.keras_call import NotTranslated
from smdlens.symmetry.model_graph import Ref
from smdlens.symmetry.stablehlo_call import HloCall, Result, operator
from smdlens.symmetry.tape import Known, single

_PLAIN = {
    "abs": "abs", "negate": "neg", "sqrt": "sqrt", "rsqrt": "rsqrt", "exponential": "exp",
    "exponential_minus_one": "expm1", "log": "log", "log_plus_one": "log1p", "tanh": "tanh",
    "logistic": "sigmoid", "sine": "sin", "cosine": "cos", "tan": "tan", "sign": "sign",
    "floor": "floor", "ceil": "ceil", "round_nearest_even": "round", "cbrt": "cbrt",
    "round_nearest_afz": "round", "erf": "erf", "erfc": "erfc", "square": "square",
    "erf_inv": "erfinv", "lgamma": "lgamma",
}  # fmt: skip
_BINARY = {"add": "add", "subtract": "sub", "multiply": "mul", "divide": "div",
           "maximum": "maximum", "minimum": "minimum"}  # fmt: skip
_NUMPY: Mapping[str, Callable[..., Any]] = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "maximum": np.maximum,
    "minimum": np.minimum, "negate": np.negative, "sqrt": np.sqrt, "abs": np.abs,
    "exponential": np.exp, "log": np.log, "rsqrt": lambda x: 1 / np.sqrt(x), "power": np.power,
    "divide": lambda a, b: a / b if a.dtype.kind == "f" else a // b, "and": np.logical_and,
    "or": np.logical_or, "not": np.logical_not, "floor": np.floor, "sign": np.sign,
}  # fmt: skip
_MOST = 1 << 16


def evaluated(call: HloCall) -> Known | None:
    """The numbers of an operator on known ones; repeated numbers stay repeated."""
    name = call.operator.op.rpartition(".")[2]
    values = [call.known(at) for at in range(len(call.inputs))]
    with np.errstate(all="ignore"):
        if name == "convert":
            kinds = {"f64": "f8", "i64": "i8", "i32": "i4", "i1": "?", "f16": "f2"}
            kind = np.dtype(kinds.get(call.type.element, "f4"))
            only = single(values[0])
            if only is not None:
                return np.broadcast_to(np.asarray(only, kind), call.shape)
            return values[0].astype(kind)
        if name == "broadcast_in_dim" and single(values[0]) is not None:
            return np.broadcast_to(np.asarray(single(values[0]), values[0].dtype), call.shape)
        if name == "reshape" and single(values[0]) is not None:
            return np.broadcast_to(np.asarray(single(values[0]), values[0].dtype), call.shape)
        if name not in _NUMPY:
            return None
        numbers = [single(value) for value in values]
        if all(number is not None for number in numbers):
            small = [np.asarray(n, v.dtype) for n, v in zip(numbers, values, strict=True)]
            return np.broadcast_to(np.asarray(_NUMPY[name](*small)), call.shape)
        if math.prod(call.shape) > _MOST:
            return None
        return np.asarray(_NUMPY[name](*values))


@operator(*_PLAIN)
def plain(call: HloCall) -> Result:
    """Element by element."""
    return call.tape.alone(_PLAIN[call.operator.op.rpartition(".")[2]], call[0])


@operator(*_BINARY)
def binary(call: HloCall) -> Result:
    """Element by element, of two values; softmax where it is spelled out."""
    op = _BINARY[call.operator.op.rpartition(".")[2]]
    a, b = call[0], call[1]
    if op in ("maximum", "minimum"):
        neutral = -math.inf if op == "maximum" else math.inf
        for x, y in ((a, b), (b, a)):
            if not isinstance(y, str) and single(y) == neutral:
                return x
    if op in ("div", "sub") and isinstance(a, str) and isinstance(b, str):
        found = _softmax(call, op, a, b)
        if found is not None:
            return found
    return call.tape.binary(op, a, b)


def _softmax(call: HloCall, op: str, a: str, b: str) -> str | None:
    """exp(x) / sum(exp(x)), or x - log(sum(exp(x))); x may be without its largest element."""
    tape = call.tape
    logarithm = tape.logarithm_of(b) if op == "sub" else b
    source, axes = (tape.sum_of(logarithm) if logarithm else None) or ("", ())
    exponent = tape.exponents.get(source)
    if exponent is None or len(axes) != 1 or source != (a if op == "div" else source):
        return None
    if op == "sub" and exponent != a:
        return None
    return layers.softmax(tape, tape.without_peak(exponent, axes), axes[0], log=op == "sub")


@operator("exponential")
def exponential(call: HloCall) -> Result:
    """Remembered: divided by its sum it is a softmax."""
    made = call.tape.alone("exp", call[0])
    call.tape.exponents[made] = call.tape.leaf(call[0])
    return made


@operator("log")
def logarithm(call: HloCall) -> Result:
    """Remembered: that of a sum of exponents belongs to a softmax."""
    made = call.tape.alone("log", call[0])
    call.tape.logarithms[made] = call.tape.leaf(call[0])
    return made


@operator("power")
def power(call: HloCall) -> Result:
    """To a known power."""
    exponent = single(call.known(1))
    if exponent is None:
        raise NotTranslated
    return call.tape.alone("pow", call[0], exponent=float(exponent))


@operator("broadcast_in_dim")
def broadcast_in_dim(call: HloCall) -> Result:
    """Axes of the operand placed among those of the result."""
    dims = call.integers("dims", call.integers("broadcast_dimensions", []))
    own = call.tape.shape(call[0])
    if len(dims) != len(own) or dims != sorted(set(dims)):
        raise NotTranslated
    shape = [1] * len(call.shape)
    for axis, n in zip(dims, own, strict=True):
        shape[axis] = n
    return call.tape.expand(call.tape.view(call[0], tuple(shape)), call.shape)


@operator("reshape")
def reshape(call: HloCall) -> Result:
    """The same elements in another shape."""
    return call.tape.view(call[0], call.shape)


@operator("transpose")
def transpose(call: HloCall) -> Result:
    """Axes in another order."""
    return call.tape.permute(call[0], call.integers("dims", call.integers("permutation", [])))


@operator("convert", "optimization_barrier", "reduce_precision")
def convert(call: HloCall) -> Result:
    """Another width; whole numbers made of others see them."""
    if call.operator.op.endswith("barrier"):
        return list(call.inputs)
    if not call.type.floating:
        raise NotTranslated
    return call[0]


@operator("concatenate")
def concatenate(call: HloCall) -> Result:
    """One after the other."""
    return call.tape.cat(call.inputs, call.integer("dim(?:ension)?", 0))


@operator("slice")
def slice_(call: HloCall) -> Result:
    """`[0:2, 1:8:2]`."""
    match = re.search(r"\[([\d:,\s]*)\]", call.operator.text)
    if match is None:
        raise NotTranslated
    value = call.tape.leaf(call[0])
    for axis, part in enumerate(match[1].split(",")):
        low, high, *step = map(int, part.split(":"))
        value = call.tape.slice(value, axis, low, high, *step)
    return value


@operator("pad")
def pad(call: HloCall) -> Result:
    """New positions of one known number at both ends."""
    low, high, inner = (call.integers(name) for name in ("low", "high", "interior"))
    filling = single(call.known(1))
    if any(inner) or filling is None:
        raise NotTranslated
    pairs = list(zip(low, high, strict=True))
    return layers.padded(call.tape, call[0], pairs, float(filling))


@operator("reverse")
def reverse(call: HloCall) -> Result:
    """Axes backwards."""
    dims = call.integers("dims")
    return call.tape.node("flip", {"self": call.tape.ref(call[0]), "dims": dims}, call.shape)


@operator("select")
def select(call: HloCall) -> Result:
    """One or the other; what is not finite has every degree, as zero has."""
    shape = call.shape
    sides: list[object] = []
    for at in (1, 2):
        value = call[at]
        number = None if isinstance(value, str) else single(value)
        endless = number is not None and not math.isfinite(float(number))
        sides.append(0.0 if endless else call.tape.ref(value))
    condition = call[0]
    if call.tape.shape(condition) != shape:
        raise NotTranslated
    arguments = {"condition": Ref(call.tape.leaf(condition)), "self": sides[0], "other": sides[1]}
    return call.tape.node("where", arguments, shape)


@operator("compare")
def compare(call: HloCall) -> Result:
    """A comparison."""
    match = re.search(r"\b(EQ|NE|LT|LE|GT|GE)\b", call.operator.text)
    if match is None:
        raise NotTranslated
    return call.tape.binary(match[1].lower(), call[0], call[1])


@operator("clamp")
def clamp(call: HloCall) -> Result:
    """Between known bounds."""
    low, high = single(call.known(0)), single(call.known(2))
    if low is None or high is None:
        raise NotTranslated
    return call.tape.alone("clamp", call[1], min=float(low), max=float(high))
