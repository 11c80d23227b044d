"""The modules of a TorchScript archive, their attributes and constants, while it is followed."""

from __future__ import annotations

import ast
from typing import Any

from smdlens.containers.inert_values import Opaque, PickledTensor
from smdlens.errors import GraphError
from smdlens.symmetry.torchscript_archive import Archive
from smdlens.symmetry.torchscript_scalars import of_tensor
from smdlens.symmetry.torchscript_tensors import Tensors
from smdlens.symmetry.torchscript_values import Box, Module

_MOST_MODULES = 20_000


class Objects:
    """What the program finds in the archive.

    Attributes:
        aliases: Parameter -> further names of the same (tied) tensor.
    """

    def __init__(self, archive: Archive, tensors: Tensors) -> None:
        self.archive = archive
        self.tensors = tensors
        self.aliases: dict[str, list[str]] = {}
        self._leaves: dict[Any, Box] = {}
        self._modules: dict[str, Module] = {}

    def module(self, path: str, held: Opaque) -> Module:
        """A module by its place."""
        if path not in self._modules:
            if not isinstance(held.state, dict):
                raise GraphError(f"the module {path!r} has no attributes")
            self._modules[path] = Module(path, kind_of(held), dict(held.state))
        return self._modules[path]

    def method(self, kind: str, method: str) -> ast.FunctionDef:
        """A method of a class."""
        found = self.archive.definitions.get(kind)
        for item in found.body if isinstance(found, ast.ClassDef) else ():
            if isinstance(item, ast.FunctionDef) and item.name == method:
                return item
        raise GraphError(f"the class {kind} has no method {method!r}")

    def declare(self) -> None:
        """Every parameter of the module in its order, whether or not it is used."""
        pending = [("", self.archive.root)]
        for path, held in pending:
            if len(pending) > _MOST_MODULES:
                raise GraphError("too many modules")
            trained = _listed(self.archive.definitions.get(kind_of(held)), "__parameters__")
            inner = []
            for name, item in held.state.items() if isinstance(held.state, dict) else ():
                own = f"{path}.{name}" if path else str(name)
                if isinstance(item, Opaque) and isinstance(item.state, dict):
                    inner.append((own, item))
                elif name in trained:
                    self._tensor(item, own, True)
            pending += inner

    def constant(self, place: str) -> Any:
        """`CONSTANTS.c0`, `c1`, ...; one element is a number."""
        at = int(place) if place.isdigit() else -1
        if not 0 <= at < len(self.archive.constants):
            raise GraphError(f"the constant {place!r} is not in the archive")
        if at in self.archive.numbers:
            return self.archive.numbers[at]
        held = self.archive.constants[at]
        return self._tensor(held, f"CONSTANTS.c{at}", False)

    def attribute(self, owner: Any, name: str) -> Any:
        """An attribute of a module or of what a tensor is."""
        if isinstance(owner, Box):
            found = of_tensor(name, owner, [])
            if found is not NotImplemented:
                return found
        if not isinstance(owner, Module) or name not in owner.state:
            raise GraphError(f"the attribute {name!r} is not in the archive")
        held = owner.state[name]
        path = f"{owner.path}.{name}" if owner.path else name
        if isinstance(held, Opaque) and isinstance(held.state, dict):
            return self.module(path, held)
        trained = name in _listed(self.archive.definitions.get(owner.kind), "__parameters__")
        return self._tensor(held, path, trained)

    def _tensor(self, held: Any, name: str, trained: bool) -> Any:
        if isinstance(held, Opaque) and held.module == "torch.jit._pickle" and held.args:
            held = held.args[0]  # a list, with a note on its type
        if isinstance(held, list):
            return [self._tensor(item, f"{name}.{at}", False) for at, item in enumerate(held)]
        if not isinstance(held, PickledTensor):
            return held
        key = (held.storage.key, held.offset, held.shape, held.strides, name[:9] == "CONSTANTS")
        if key not in self._leaves:
            self._leaves[key] = self.tensors.leaf(name, held.shape, held.dtype, trained=trained)
        elif trained:
            first = self._leaves[key].name
            others = self.aliases.setdefault(first, [])
            if name != first and name not in others:
                others.append(name)
        return self._leaves[key]


def kind_of(held: Opaque) -> str:
    """Full name of an object's class."""
    return f"{held.module}.{held.name}"


def dotted(node: ast.expr) -> str:
    """`a.b.c` as text; "" for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([node.id, *reversed(parts)])


def _listed(definition: ast.AST | None, name: str) -> set[str]:
    """The texts of a list in a class, such as `__parameters__`."""
    for item in definition.body if isinstance(definition, ast.ClassDef) else ():
        if not isinstance(item, ast.Assign) or dotted(item.targets[0]) != name:
            continue
        if isinstance(item.value, ast.List):
            return {str(e.value) for e in item.value.elts if isinstance(e, ast.Constant)}
    return set()
