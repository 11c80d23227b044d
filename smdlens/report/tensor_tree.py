"""A readable tree of tensor names: single branches joined, repeated blocks shown once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from smdlens.snapshots.records import TensorRef


@dataclass(slots=True)
class _Node:
    tensor: TensorRef | None = None
    children: dict[str, _Node] = field(default_factory=dict)
    # Shape of the whole subtree; equal keys are equal blocks.
    key: Any = None
    count: int = 0
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class TreeLine:
    """A line of the tree.

    Attributes:
        depth: Indentation level.
        name: Part of the name below its parent.
        tensor: The tensor of a leaf, else None.
        repeats: How many equal blocks the line stands for.
        vectors: Length of the vectors of a module that holds nothing else (a normalisation's
            weight, bias and statistics); such a module is one line. None elsewhere.
        count: Tensors it stands for, all repeats together.
        nbytes: Their bytes.
    """

    depth: int
    name: str
    tensor: TensorRef | None
    repeats: int
    count: int
    nbytes: int
    vectors: int | None = None


def tensor_tree(tensors: Mapping[str, TensorRef]) -> list[TreeLine]:
    """The lines of the tree, tensors in file order.

    Successive numbered siblings of the same structure (names, shapes, dtypes) become one line
    `3-11`; below it stands one of them.
    """
    root = _Node()
    for name, ref in tensors.items():
        node = root
        parts = name.split(".")
        # A name of thousands of dots would nest as deep; its rest stays in one piece.
        if len(parts) > _DEEPEST:
            parts = [*parts[:_DEEPEST], ".".join(parts[_DEEPEST:])]
        for part in parts:
            node = node.children.setdefault(part, _Node())
        node.tensor = ref
    _summarise(root)
    return list(_lines(root, 0))


_DEEPEST = 32


def _summarise(node: _Node) -> None:
    for child in node.children.values():
        _summarise(child)
    own = node.tensor
    children = node.children.values()
    node.count = sum(c.count for c in children) + (own is not None)
    node.nbytes = sum(c.nbytes for c in children) + (own.nbytes if own is not None else 0)
    parts = tuple((name, child.key) for name, child in node.children.items())
    node.key = hash((own.shape, own.dtype, parts) if own is not None else parts)


def _lines(node: _Node, depth: int) -> Iterator[TreeLine]:
    names = list(node.children)
    at = 0
    while at < len(names):
        end = at + 1
        child = node.children[names[at]]
        while end < len(names) and _continues(node, names[end - 1], names[end]):
            end += 1
        repeats = end - at
        label = names[at] if repeats == 1 else f"{names[at]}–{names[end - 1]}"
        if repeats == 1:
            while child.tensor is None and len(child.children) == 1:
                (name, child), *_ = child.children.items()
                label += f".{name}"
        vectors = _only_vectors(child)
        count, nbytes = child.count * repeats, child.nbytes * repeats
        yield TreeLine(depth, label, child.tensor, repeats, count, nbytes, vectors)
        if vectors is None:
            yield from _lines(child, depth + 1)
        at = end


def _continues(node: _Node, before: str, name: str) -> bool:
    """Whether a sibling is the next equal block of a numbered sequence."""
    if not (_is_number(before) and _is_number(name) and int(name) == int(before) + 1):
        return False
    one, other = node.children[before], node.children[name]
    return bool(one.children) and one.key == other.key


def _only_vectors(node: _Node) -> int | None:
    """Length of a module's vectors, if it holds several of one length, perhaps a counter too."""
    if node.tensor is not None or node.count < 2:
        return None
    held = [child.tensor for child in node.children.values() if not child.children]
    shapes = {ref.shape for ref in held if ref is not None and ref.shape}
    if len(held) < len(node.children) or len(shapes) != 1:
        return None
    (shape,) = shapes
    return shape[0] if len(shape) == 1 else None


def _is_number(name: str) -> bool:
    return len(name) < 9 and name.isascii() and name.isdecimal()


def elements(tensors: Mapping[str, TensorRef]) -> int:
    """Number of elements of all tensors."""
    return sum(math.prod(ref.shape) for ref in tensors.values())
