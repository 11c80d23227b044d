"""Names and axes of other frameworks as torch has them; values are not touched.

A kernel of Keras or Flax is stored spatial..., in, out; it is shown as out, in, spatial..., which
strides express without moving a byte. Names become torch's where a layer has one of a kind.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable

from smdlens.snapshots.records import TensorRef

Path = tuple[str, ...]
_LEAVES = {
    "kernel": "weight", "depthwise_kernel": "weight", "embedding": "weight",
    "embeddings": "weight", "scale": "weight", "gamma": "weight", "beta": "bias",
    "mean": "running_mean", "var": "running_var", "moving_mean": "running_mean",
    "moving_variance": "running_var", "_mean": "running_mean", "_variance": "running_var",
    "weights": "weight", "biases": "bias",
    "moving_var": "running_var",
}  # fmt: skip
KERNELS = frozenset({"kernel", "depthwise_kernel", "pointwise_kernel", "recurrent_kernel"})
_DEPTHWISE = re.compile(r"depthwise|(?:^|_)dw(?:$|[_\d])")


def torch_names(paths: Iterable[Path]) -> dict[Path, str]:
    """Path in the framework's tree -> dotted name; names that would meet stay as they are."""
    paths = list(paths)
    renamed = {path: (*path[:-1], _LEAVES.get(path[-1], path[-1])) for path in paths}
    counts = Counter(renamed.values())
    return {path: ".".join(new if counts[new] == 1 else path) for path, new in renamed.items()}


def output_first(path: Path, ref: TensorRef) -> TensorRef:
    """A kernel with its output axis first; any other tensor as it is."""
    n = len(ref.shape)
    if path[-1] not in KERNELS or n < 2 or ref.strides is not None or ref.numel == 0:
        return ref
    parent = path[-2] if len(path) > 1 else ""
    if n == 3 and parent in ("query", "key", "value"):  # (in, heads, size of a head)
        order: tuple[int, ...] = (1, 2, 0)
    elif n == 3 and parent in ("out", "attention_output"):  # (heads, size of a head, out)
        order = (2, 0, 1)
    elif path[-1] == "depthwise_kernel" or (ref.shape[-1] == 1 and _DEPTHWISE.search(parent)):
        # Keras 3 calls it kernel as well: (spatial..., in, multiplier)
        order = (n - 2, n - 1, *range(n - 2))
    else:
        order = (n - 1, n - 2, *range(n - 2))
    dense = [math.prod(ref.shape[axis + 1 :]) for axis in range(n)]
    shape = tuple(ref.shape[axis] for axis in order)
    strides = tuple(dense[axis] for axis in order)
    return TensorRef(ref.name, shape, ref.dtype, ref.extents, strides, ref.scale)
