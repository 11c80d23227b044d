"""The variables of a SavedModel's object graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from smdlens.containers.protobuf import ProtobufError, fields, raw, text, whole
from smdlens.symmetry.saved_model_tensor import require

_MOST_OBJECTS = 400_000


@dataclass(frozen=True, slots=True)
class TfVariable:
    """What the object graph says of a variable."""

    name: str
    trainable: bool


def variables_of(data: bytes) -> Iterator[tuple[str, TfVariable]]:
    """Checkpoint key -> variable, by the shortest way from the root of the object graph.

    Where the root lists what is trained, the list decides: a layer may be frozen afterwards.
    """
    objects: list[tuple[list[tuple[str, int]], TfVariable | None]] = []
    for number, value in fields(data):
        if number != 1:
            continue
        children, variable = [], None
        for inner, item in fields(raw(value)):
            if inner == 1:
                parts = dict(fields(raw(item)))
                children.append((text(parts.get(2, b"")), whole(parts.get(1, 0))))
            elif inner == 7:
                said = {n: v for n, v in fields(raw(item)) if n in (3, 6)}
                variable = TfVariable(text(said.get(6, b"")), bool(said.get(3, 0)))
        objects.append((children, variable))
        require(len(objects) <= _MOST_OBJECTS, "too many objects")
    listed = dict(objects[0][0]).get("trainable_variables", -1) if objects else -1
    trained = {child for _, child in objects[listed][0]} if 0 <= listed < len(objects) else None
    seen, waiting = {0}, [(0, "")] if objects else []
    for at, path in waiting:
        if at >= len(objects):
            raise ProtobufError("an object that is not there")
        children, variable = objects[at]
        if variable is not None:
            if trained is not None and not path.startswith("_all_variables/"):
                variable = replace(variable, trainable=at in trained)
            yield f"{path}/.ATTRIBUTES/VARIABLE_VALUE", variable
        for name, child in children:
            if child not in seen:
                seen.add(child)
                local = name.replace(".", "..").replace("/", ".S")
                waiting.append((child, f"{path}/{local}" if path else local))
