"""Follows a TorchScript program: a small interpreter of its syntax trees over shapes.

Nothing is compiled or run: statements and expressions of the few kinds that torch writes are
walked, numbers are computed, operators on tensors become nodes. A branch or loop that depends on
the numbers in a tensor has no graph.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from smdlens.errors import GraphError
from smdlens.symmetry.torchscript_archive import Archive
from smdlens.symmetry.torchscript_objects import Objects, dotted, kind_of
from smdlens.symmetry.torchscript_scalars import of_tensor, scalar
from smdlens.symmetry.torchscript_tensors import Tensors
from smdlens.symmetry.torchscript_values import Box, Device, Function, Module, Unset, boxes

_MOST_STEPS = 500_000
_DEEPEST = 60
_CASTS = {"int": int, "float": float, "bool": bool, "str": str}
_IN_NAMES = ("annotate", "unchecked_cast")


class _Returned(Exception):  # noqa: N818 - control flow: a return inside nested statements
    def __init__(self, value: Any) -> None:
        self.value = value


class Walk:
    """One pass over the program for given inputs.

    Attributes:
        tensors: The graph so far.
        objects: What the archive holds.
    """

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.tensors = Tensors()
        self.objects = Objects(archive, self.tensors)
        self._steps = 0
        self._depth = 0

    def outputs(self, inputs: Sequence[Any]) -> list[Box]:
        """Tensors that the program gives, floating-point ones."""
        root = self.objects.module("", self.archive.root)
        self.objects.declare()
        result = self._method(root, "forward", list(inputs), {})
        found = boxes(list(result.values()) if isinstance(result, dict) else result)
        return [box for box in found if box.meta.is_floating_point()]

    def arguments(self) -> list[ast.arg]:
        """The arguments of the program, the module itself left out."""
        return self.objects.method(kind_of(self.archive.root), "forward").args.args[1:]

    def defaults(self) -> list[ast.expr]:
        """Values of the last arguments, where they may be left out."""
        return self.objects.method(kind_of(self.archive.root), "forward").args.defaults

    def _method(self, module: Module, name: str, given: list[Any], named: dict[str, Any]) -> Any:
        outer, self.tensors.module = self.tensors.module, module.path
        result = self._call(self.objects.method(module.kind, name), [module, *given], named)
        self.tensors.module = outer
        return result

    def _call(self, function: ast.FunctionDef, given: list[Any], named: dict[str, Any]) -> Any:
        if self._depth >= _DEEPEST:
            raise GraphError("functions inside each other without end")
        self._depth += 1
        names = [argument.arg for argument in function.args.args]
        defaults = function.args.defaults
        scope: dict[str, Any] = {}
        for name, value in zip(names[len(names) - len(defaults) :], defaults, strict=True):
            scope[name] = self._value(value, {})
        scope |= dict(zip(names, given, strict=False)) | named
        missing = [name for name in names if name not in scope]
        if missing or len(given) > len(names):
            raise GraphError(f"{function.name} is called with other arguments")
        try:
            self._run(function.body, scope)
        except _Returned as returned:
            return returned.value
        finally:
            self._depth -= 1
        return None

    def _run(self, statements: Sequence[ast.stmt], scope: dict[str, Any]) -> None:
        for statement in statements:
            self._steps += 1
            if self._steps > _MOST_STEPS:
                raise GraphError("a program that takes too long")
            if isinstance(statement, ast.Assign):
                self._assign(statement.targets[0], self._value(statement.value, scope), scope)
            elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
                self._assign(statement.target, self._value(statement.value, scope), scope)
            elif isinstance(statement, ast.Expr):
                self._value(statement.value, scope)
            elif isinstance(statement, ast.Return):
                value = statement.value
                raise _Returned(None if value is None else self._value(value, scope))
            elif isinstance(statement, ast.If):
                taken = self._truth(self._value(statement.test, scope))
                self._run(statement.body if taken else statement.orelse, scope)
            elif isinstance(statement, ast.For):
                for item in self._items(self._value(statement.iter, scope)):
                    self._assign(statement.target, item, scope)
                    self._run(statement.body, scope)
            elif isinstance(statement, ast.While):
                while self._truth(self._value(statement.test, scope)):
                    self._run(statement.body, scope)
            elif not isinstance(statement, ast.Pass):
                raise GraphError(f"a statement that is not read: {type(statement).__name__}")

    def _assign(self, target: ast.expr, value: Any, scope: dict[str, Any]) -> None:
        if isinstance(target, ast.Name):
            scope[target.id] = value
        elif isinstance(target, ast.Tuple):
            items = list(value) if isinstance(value, list | tuple) else []
            if len(items) != len(target.elts):
                raise GraphError("another number of values than names")
            for inner, item in zip(target.elts, items, strict=True):
                self._assign(inner, item, scope)
        elif isinstance(target, ast.Attribute):
            owner = self._value(target.value, scope)
            if not isinstance(owner, Module):
                raise GraphError("an assignment that is not read")
            owner.state[target.attr] = value
        else:
            raise GraphError("an assignment that is not read")

    @staticmethod
    def _truth(value: Any) -> bool:
        if isinstance(value, Box):
            raise GraphError(
                "a branch depends on the numbers in a tensor",
                remedy="Name the model with --model, or export it with torch.export.",
            )
        return bool(value)

    @staticmethod
    def _items(value: Any) -> Sequence[Any]:
        if isinstance(value, list | tuple | range):
            return value
        raise GraphError("a loop over something that is not read")

    def _value(self, node: ast.expr, scope: dict[str, Any]) -> Any:
        self._steps += 1
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            if node.id in scope:
                return scope[node.id]
            if node.id == "inf":
                return float("inf")
            raise GraphError(f"the name {node.id!r} has no value")
        if isinstance(node, ast.Call):
            return self._called(node, scope)
        if isinstance(node, ast.Attribute):
            return self._attribute(node, scope)
        if isinstance(node, ast.List):
            return [self._value(item, scope) for item in node.elts]
        if isinstance(node, ast.Tuple):
            return tuple(self._value(item, scope) for item in node.elts)
        if isinstance(node, ast.Dict):
            keys = [self._value(key, scope) for key in node.keys if key is not None]
            return dict(zip(keys, (self._value(v, scope) for v in node.values), strict=True))
        if isinstance(node, ast.Subscript):
            return self._value(node.value, scope)[self._value(node.slice, scope)]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
            inner = self._value(node.operand, scope)
            return -inner if isinstance(node.op, ast.USub) else not self._truth(inner)
        if isinstance(node, ast.IfExp):
            taken = self._truth(self._value(node.test, scope))
            return self._value(node.body if taken else node.orelse, scope)
        if isinstance(node, ast.BoolOp):
            stop = isinstance(node.op, ast.Or)
            for item in node.values:
                if self._truth(self._value(item, scope)) == stop:
                    return stop
            return not stop
        raise GraphError(f"an expression that is not read: {type(node).__name__}")

    def _attribute(self, node: ast.Attribute, scope: dict[str, Any]) -> Any:
        path = dotted(node)
        if path.startswith("__torch__."):
            return Function(path)
        if path.startswith("CONSTANTS.c"):
            return self.objects.constant(path[len("CONSTANTS.c") :])
        if path == "torch.inf":
            return float("inf")
        return self.objects.attribute(self._value(node.value, scope), node.attr)

    def _called(self, node: ast.Call, scope: dict[str, Any]) -> Any:
        function = node.func
        path = dotted(function)
        if path in _IN_NAMES and len(node.args) == 2:
            return self._value(node.args[1], scope)
        if path == "uninitialized":
            return Unset()
        given = [self._value(item, scope) for item in node.args]
        named = {key.arg: self._value(key.value, scope) for key in node.keywords if key.arg}
        if path == "getattr" and len(given) == 2:
            return self.objects.attribute(given[0], str(given[1]))
        if path == "range":
            return range(*(int(item) for item in given))
        if path in _CASTS and len(given) == 1:
            return given[0] if isinstance(given[0], Box) else _CASTS[path](given[0])
        if path.startswith("ops.prim."):
            return self._primitive(path[len("ops.prim.") :], given)
        if path.startswith(("torch.", "ops.")) and path.split(".")[0] not in scope:
            return self._operator(path.rpartition(".")[2], given, named)
        if isinstance(function, ast.Attribute) and not path.startswith("__torch__."):
            owner = self._value(function.value, scope)
            if isinstance(owner, Module):
                return self._method(owner, function.attr, given, named)
        found = self._value(function, scope)
        if isinstance(found, Function):
            definition = self.archive.definitions.get(found.name)
            if isinstance(definition, ast.FunctionDef):
                return self._call(definition, given, named)
            raise GraphError(f"{found.name} is not read")
        raise GraphError("a call that is not read")

    def _operator(self, op: str, given: list[Any], named: dict[str, Any]) -> Any:
        if given and isinstance(given[0], Box):
            found = of_tensor(op, given[0], given[1:])
            if found is not NotImplemented:
                return found
        held = boxes(given) + boxes(list(named.values()))
        lists = op in ("append", "len", "list", "__getitem__", "__contains__", "extend", "pop")
        lists = lists or op in ("__is__", "__isnot__")
        if (not held and op not in _MAKING) or (lists and given and type(given[0]) is not Box):
            return scalar(op, given, named)
        return self.tensors.called(op, given, named)

    @staticmethod
    def _primitive(name: str, given: list[Any]) -> Any:
        if name == "RaiseException":
            raise GraphError("the program refuses its inputs", found=str(given[0])[:200])
        if name in ("NumToTensor", "unchecked_unwrap_optional"):
            return given[0]
        if name == "data":
            return given[0]
        if name in ("min", "max"):
            return scalar(name, given, {})
        if given and isinstance(given[0], Box):
            found = of_tensor(name, given[0], given[1:])
            if found is not NotImplemented:
                return found
        if name in ("device", "Device"):
            return Device()
        raise GraphError(f"prim.{name} is not read")


_MAKING = frozenset({
    "zeros", "ones", "full", "empty", "arange", "linspace", "eye", "rand", "randn",
})  # fmt: skip
