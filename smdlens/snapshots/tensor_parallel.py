"""Slices of a tensor-parallel model put together along the axes that Megatron-LM cuts.

Files name no axis. The rules are those of Megatron's column- and row-parallel layers (Shoeybi et
al. 2019, section 3): the first layer of a block is cut by output, the second by input, embeddings
by vocabulary, norms not at all. A tensor of another name is refused rather than guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smdlens.errors import SnapshotCorruptError, SnapshotUnsupportedError
from smdlens.snapshots.chunks import Chunk, PieceBudget, join_chunks, slice_extents
from smdlens.snapshots.optimizer_state import match_optimizer
from smdlens.snapshots.records import DTYPE_BYTES, TensorRef
from smdlens.snapshots.resolve import is_tensor, tensor_ref
from smdlens.snapshots.weight_trees import RawTree, optimizer_of

_WHOLE = -1
_FIRST = frozenset(
    {"query_key_value", "linear_qkv", "linear_q", "linear_kv", "query", "key_value",
     "dense_h_to_4h", "linear_fc1", "word_embeddings", "output_layer", "lm_head"}
)  # fmt: skip
_SECOND = frozenset({"linear_proj", "linear_fc2", "dense_4h_to_h"})
_UNCUT = frozenset({"position_embeddings", "tokentype_embeddings", "router", "binary_head"})
_GATED = frozenset({"dense_h_to_4h", "linear_fc1"})
Gate = bool | None


def axis_of(name: str) -> int | None:
    """The axis a tensor is cut along; -1 for one that is not cut, None where that is not known."""
    parent, layer, leaf = (["", "", *name.split(".")])[-3:]
    if leaf in ("layer_norm_weight", "layer_norm_bias") or layer in _UNCUT:
        return _WHOLE
    if leaf not in ("weight", "bias"):
        return None
    if "norm" in layer or (layer == "dense" and parent in ("lm_head", "pooler")):
        return _WHOLE
    if layer in _SECOND or (layer == "dense" and parent.endswith("attention")):
        return 1 if leaf == "weight" else _WHOLE
    return 0 if layer in _FIRST else None


def joined(
    parts: Sequence[Mapping[str, Any]], gated: Gate, budget: PieceBudget, *, like: str = ""
) -> dict[str, TensorRef]:
    """Whole tensors by name.

    Args:
        parts: Each rank's slices by name, in the order of the ranks.
        gated: Whether the first layer of an MLP holds a gate and a value, one above the other, in
            every slice (SwiGLU); None where that is not known.
        budget: Pays for byte ranges; its subject is named in errors.
        like: What the tensors are, for errors ("exp_avg of ").

    Raises:
        SnapshotUnsupportedError: A name whose axis is not known.
        SnapshotCorruptError: Ranks with other tensors or shapes than the first.
    """
    found = {}
    for name, first in parts[0].items():
        refs = [tensor_ref(name, part[name]) for part in parts if name in part]
        if len(refs) != len(parts) or any(ref.dtype != first.dtype for ref in refs):
            raise _corrupt(budget, f"{like}{name}", "another tensor in another rank, or none")
        found[name] = _one(name, refs, gated, budget, f"{like}{name}")
    if any(len(part) != len(parts[0]) for part in parts):
        raise _corrupt(budget, f"{like}tensors", "tensors that the first rank lacks")
    return found


@dataclass(frozen=True, slots=True)
class NamedState:
    """A rank's optimizer: slots by weight (and `step`), groups with the names of their weights."""

    slots: Mapping[str, Mapping[str, Any]]
    groups: list[dict[str, Any]]


def named_state(optimizer: Any, weights: Mapping[str, Any]) -> NamedState | None:
    """A rank's optimizer by the names of its weights; None where those are not all decided.

    Args:
        optimizer: As saved, alone or inside the one of mixed precision.
        weights: The rank's own slices by name, in the model's order.
    """
    inner = optimizer.get("optimizer") if isinstance(optimizer, Mapping) else None
    held = optimizer_of(optimizer) or optimizer_of(inner)
    if held is None:
        return None
    names = {name: name for name in weights}
    match = match_optimizer(held, RawTree("model", weights, names, False), ordered=True)
    slots = {}
    for index, state in held["state"].items():
        name = match.names.get(index)
        if name is None or not isinstance(state, Mapping):
            return None
        shape = tuple(weights[name].shape)
        slots[name] = {
            k: v
            for k, v in state.items()
            if type(k) is str and (k == "step" or (is_tensor(v) and tuple(v.shape) == shape))
        }
    groups = []
    for group, members in zip(held["param_groups"], match.group_names, strict=True):
        if members is None or not isinstance(group, Mapping):
            return None
        groups.append({**group, "params": list(members)})
    return NamedState(slots, groups)


def _one(
    name: str, refs: list[TensorRef], gated: Gate, budget: PieceBudget, what: str
) -> TensorRef:
    shapes = {ref.shape for ref in refs}
    axis = axis_of(name)
    if axis == _WHOLE:
        if len(shapes) > 1:
            raise _corrupt(budget, what, f"shapes {sorted(shapes)}, though it is not cut")
        return refs[0]
    if axis is None or len(refs[0].shape) <= axis:
        raise _unknown(budget, what, "a tensor whose axis of cutting is known")
    if {(*s[:axis], *s[axis + 1 :]) for s in shapes} != {
        (*refs[0].shape[:axis], *refs[0].shape[axis + 1 :])
    }:
        raise _corrupt(budget, what, f"slices of shapes {sorted(shapes)}")
    pieces = [refs]
    if name.split(".")[-2] in _GATED and gated is not False:
        if gated is None:
            raise _unknown(budget, what, "the training arguments, which say whether it is gated")
        halves = [_halves(ref, budget, what) for ref in refs]
        pieces = [[first for first, _ in halves], [second for _, second in halves]]
    chunks, at = [], 0
    for line in pieces:
        for ref in line:
            corner = tuple(at if d == axis else 0 for d in range(len(ref.shape)))
            chunks.append(Chunk(corner, ref))
            at += ref.shape[axis]
    shape = tuple(at if d == axis else n for d, n in enumerate(refs[0].shape))
    return join_chunks(name, shape, refs[0].dtype, chunks, budget)


def _halves(ref: TensorRef, budget: PieceBudget, what: str) -> tuple[TensorRef, TensorRef]:
    """The upper and the lower rows."""
    rows = ref.shape[0]
    if rows % 2 or ref.strides is not None:
        raise _corrupt(budget, what, f"{rows} rows of a gate and a value")
    shape = (rows // 2, *ref.shape[1:])
    nbytes = math.prod(shape) * DTYPE_BYTES[ref.dtype]
    parts = [slice_extents(ref.extents, low, low + nbytes) for low in (0, nbytes)]
    upper, lower = (TensorRef(ref.name, shape, ref.dtype, p, None, ref.scale) for p in parts)
    return upper, lower


def _unknown(budget: PieceBudget, what: str, expected: str) -> SnapshotUnsupportedError:
    return SnapshotUnsupportedError(
        f"the model is cut into tensor-parallel slices, and how {what[:200]!r} is cut is not known",
        subject=budget.subject,
        expected=expected,
        remedy="Merge the slices with the trainer's own tools, or save with torch_dist.",
    )


def _corrupt(budget: PieceBudget, what: str, found: str) -> SnapshotCorruptError:
    return SnapshotCorruptError(
        f"the tensor-parallel slices of {what[:200]!r} do not fit together",
        subject=budget.subject,
        found=found[:300],
        remedy="Copy the folders of all ranks again, or leave it out.",
    )
