"""What a shim is: a name a pickle may give a meaning to, with the one thing it builds."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Protocol

from smdlens.containers.inert_values import (
    InlineBytes,
    Opaque,
    OpaqueGlobal,
    PickledTensor,
    Storage,
    StorageKind,
    TorchDtype,
)
from smdlens.containers.limits import Limits


class Budget(Protocol):
    """What a shim needs of the interpreter: a way to pay for what it copies."""

    limits: Limits

    def charge(self, objects: int) -> None:
        """Pay for `objects` new objects."""

    def call(self, function: Any, args: Any) -> Any:
        """Apply another shim, or make a placeholder of its name."""


Builder = Callable[[Budget, tuple[Any, ...]], Any]


class Shim:
    """A name with a meaning. Files can only cause `build` to be applied to plain arguments."""

    __slots__ = ("build", "name")

    def __init__(self, name: str, build: Builder) -> None:
        self.name = name
        self.build = build


def checked_key(key: object) -> Hashable:
    """A dict or set key whose hash is cheap and hard to collide; TypeError otherwise.

    Hashing a tuple walks all it holds, so nested tuples that share parts would cost exponential
    time; integers beyond the hash modulus collide at will.
    """
    kind = type(key)
    if kind is str or kind is bytes or key is None or kind is bool or kind is float:
        return key
    if type(key) is int:
        if key.bit_length() > 60:
            raise ValueError("an integer key that is too large")
        return key
    if type(key) is tuple:
        if len(key) > 16:
            raise ValueError("a tuple key that is too long")
        return tuple(part if type(part) is str else _flat_key(part) for part in key)
    if type(key) is InlineBytes and key.data is not None:
        return key.data
    if kind in (Opaque, OpaqueGlobal, PickledTensor, TorchDtype, Shim, StorageKind, Storage):
        return key
    raise TypeError(f"a key of kind {kind.__name__}")


def _flat_key(part: Any) -> Hashable:
    if type(part) is tuple:
        raise TypeError("a nested tuple as key")
    return checked_key(part)


def integers(value: Any) -> tuple[int, ...]:
    """A tuple of non-negative integers, as sizes and strides must be."""
    for item in value:
        if type(item) is not int or item < 0:
            raise ValueError("a size or stride that is not a non-negative integer")
    return value if type(value) is tuple else tuple(value)
