"""TorchScript's operators on plain numbers, lists and texts."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from smdlens.errors import GraphError
from smdlens.symmetry.torchscript_values import DTYPES, Box, Device

_MOST_ITEMS = 1 << 16
_LARGEST = 1 << 64


def _power(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int) and abs(b) > 64:
        raise ValueError("too large a power")
    return a**b


def _divided(a: Any, b: Any, rounding_mode: str | None = None) -> Any:
    quotient = a / b
    if rounding_mode is None:
        return quotient
    return math.floor(quotient) if rounding_mode == "floor" else math.trunc(quotient)


def _added(a: Any, b: Any, alpha: Any = 1) -> Any:
    if isinstance(a, list) and isinstance(b, list):
        return a + b
    return a + alpha * b


def _appended(items: list[Any], item: Any) -> list[Any]:
    items.append(item)
    return items


def _extended(items: list[Any], more: list[Any]) -> None:
    items.extend(more)


def _multiplied(a: Any, b: Any) -> Any:
    for items, times in ((a, b), (b, a)):
        if isinstance(items, list | str) and (len(items) * max(int(times), 0) > _MOST_ITEMS):
            raise ValueError("too long a list")
    return a * b


def _reversed(low: int, high: int, step: int) -> int:
    return max(0, -(-(high - low) // step)) if step else 0


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": _added, "sub": lambda a, b, alpha=1: a - alpha * b,
    "rsub": lambda a, b, alpha=1: b - alpha * a, "reciprocal": lambda a: 1 / a,
    "lift_fresh": lambda a: a, "mul": _multiplied,
    "div": _divided, "floordiv": operator.floordiv, "floor_divide": operator.floordiv,
    "remainder": operator.mod, "pow": _power, "neg": operator.neg, "eq": operator.eq,
    "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt,
    "ge": operator.ge, "__is__": lambda a, b: a is b, "__isnot__": lambda a, b: a is not b,
    "__not__": operator.not_, "__and__": lambda a, b: a and b, "__or__": lambda a, b: a or b,
    "len": len, "format": lambda text, *_: text, "append": _appended, "extend": _extended,
    "list": list, "__contains__": lambda items, item: item in items,
    "__getitem__": operator.getitem, "__derive_index": lambda i, low, step: low + i * step,
    "__range_length": _reversed, "floor": math.floor, "ceil": math.ceil, "sqrt": math.sqrt,
    "log": math.log, "exp": math.exp, "abs": abs, "max": max, "min": min, "sum": sum,
    "Int": int, "Float": float, "Bool": bool, "ScalarImplicit": lambda a: a,
    "IntImplicit": int, "FloatImplicit": float, "str": str, "round": round, "copy": list,
    "warn": lambda *_, **__: None, "device": lambda *_: Device(), "values": list,
    "manual_seed": lambda *_: None, "is_scripting": lambda: True, "detach": lambda a: a,
    "tensor": lambda a, **__: a, "scalar_tensor": lambda a, **__: a, "to": lambda a, *_, **__: a,
    "clone": lambda a, *_, **__: a, "item": lambda a: a, "pop": lambda items, at=-1: items.pop(at),
    "rsqrt": lambda a: 1 / math.sqrt(a), "log2": math.log2, "cos": math.cos, "sin": math.sin,
    "logical_and": lambda a, b: bool(a and b), "logical_not": operator.not_,
    "slice": lambda items, low=0, high=None, step=1: items[low:high:step],
}  # fmt: skip


def scalar(op: str, arguments: list[Any], named: dict[str, Any]) -> Any:
    """The result of an operator none of whose arguments is a tensor.

    Raises:
        GraphError: It is not known, or asks for too much.
    """
    function = _FUNCTIONS.get(op)
    if function is None:
        raise GraphError(f"torch.{op} is not known as an operator on numbers")
    result = function(*arguments, **{k: v for k, v in named.items() if v is not None})
    if isinstance(result, int) and abs(result) > _LARGEST:
        raise GraphError("a number that is too large")
    if isinstance(result, list | str | tuple) and len(result) > _MOST_ITEMS:
        raise GraphError("a list that is too long")
    return result


def of_tensor(op: str, box: Box, rest: list[Any]) -> Any:
    """What a tensor's shape and type say; `NotImplemented` for another operator."""
    shape = [int(n) for n in box.meta.shape]
    if op == "size":
        return shape[rest[0]] if rest and rest[0] is not None else shape
    if op in ("dim", "len", "numel"):
        return {"dim": len(shape), "len": shape[0] if shape else 0, "numel": math.prod(shape)}[op]
    if op == "is_floating_point":
        return bool(box.meta.is_floating_point())
    if op == "__isnot__":
        return True
    if op == "__is__":
        return bool(rest) and rest[0] is box
    if op in ("dtype", "layout", "device", "is_cuda", "requires_grad", "is_quantized"):
        if op == "dtype":
            name = str(box.meta.dtype).removeprefix("torch.")
            return next(number for number, own in DTYPES.items() if own == name)
        return Device() if op == "device" else 0 if op == "layout" else False
    return NotImplemented
