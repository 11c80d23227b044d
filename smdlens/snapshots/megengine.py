"""MegEngine's states in our terms: statistics without their axes of one, grouped kernels joined.

A checkpoint is a pickled dict of NumPy arrays; batch norms keep (1, C, 1, 1), and the kernel of a
grouped convolution is (groups, outputs per group, inputs per group, height, width). The optimizer's
state has torch's form and torch's momentum: v = m v + g.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from smdlens.snapshots.records import TensorRef

NOTE = "MegEngine: statistics shown without axes of one, grouped kernels as output, input, spatial"
_STATISTICS = ("running_mean", "running_var")
_DEEPEST = 4


def looks_like_megengine(root: Any, depth: int = 0) -> bool:
    """Whether a tree has running statistics of shape (1, C, 1, 1)."""
    if type(root) is TensorRef or not isinstance(root, Mapping) or depth > _DEEPEST:
        return False
    return any(
        (type(v) is TensorRef and type(k) is str and _is_statistic(k, v))
        or looks_like_megengine(v, depth + 1)
        for k, v in root.items()
    )


def from_megengine(root: Mapping[Any, Any]) -> dict[Any, Any]:
    """The same content with every tensor in torch's shape."""
    kernels = frozenset(_pointwise(root, 0))
    shown = {k: _shown(k, v, root, kernels, 0) for k, v in root.items()}
    return {**shown, "conversion": NOTE}


def _is_statistic(name: str, ref: TensorRef) -> bool:
    return name.rpartition(".")[2] in _STATISTICS and _per_channel(ref.shape)


def _per_channel(shape: tuple[int, ...]) -> bool:
    return len(shape) in (4, 5) and shape[0] == 1 and set(shape[2:]) == {1}


def _is_kernel(name: Any, ref: TensorRef, siblings: Mapping[Any, Any]) -> bool:
    """Whether a tensor of shape (1, C, 1, 1) is a kernel with one output: no statistics beside."""
    parent, _, leaf = name.rpartition(".") if type(name) is str else ("", "", "")
    mean = f"{parent}.running_mean" if parent else "running_mean"
    return leaf == "weight" and _per_channel(ref.shape) and mean not in siblings


def _pointwise(value: Any, depth: int) -> Iterator[tuple[int, ...]]:
    """Shapes of such kernels."""
    if isinstance(value, Mapping) and depth <= _DEEPEST:
        for name, item in value.items():
            if type(item) is TensorRef:
                if _is_kernel(name, item, value):
                    yield item.shape
            else:
                yield from _pointwise(item, depth + 1)


def _shown(
    name: Any, value: Any, siblings: Any, kernels: frozenset[tuple[int, ...]], depth: int
) -> Any:
    if type(value) is TensorRef:
        # A slot has no siblings that tell what it belongs to: it is left where both may be.
        named = isinstance(siblings, Mapping) and type(name) is str and "." in name
        kernel = _is_kernel(name, value, siblings) if named else value.shape in kernels
        return value if kernel else _as_torch_has_it(value)
    if depth > _DEEPEST:
        return value
    if isinstance(value, Mapping):
        return {k: _shown(k, v, value, kernels, depth + 1) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_shown(None, v, None, kernels, depth + 1) for v in value)
    return value


def _as_torch_has_it(ref: TensorRef) -> TensorRef:
    shape = ref.shape
    if ref.strides is not None:
        return ref
    if _per_channel(shape):
        return TensorRef(ref.name, (shape[1],), ref.dtype, ref.extents)
    if len(shape) == 5:
        joined = (shape[0] * shape[1], *shape[2:])
        return TensorRef(ref.name, joined, ref.dtype, ref.extents)
    return ref
