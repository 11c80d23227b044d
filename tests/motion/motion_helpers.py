"""Runs made by hand: raw binary files and the records that point into them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from smdlens.hyper.records import HyperParameters, Optimizer, ParamGroup, RateSegment
from smdlens.snapshots.records import (
    DTYPE_BYTES,
    Extent,
    OptimizerRecord,
    Snapshot,
    SnapshotSeries,
    TensorRef,
)
from smdlens.symmetry.records import NormBehind, ScaleGroups, TensorSymmetry
from smdlens.vocabulary import Granularity, OptimizerKind, Role


@dataclass
class Saved:
    """One snapshot to write: weights, buffers by tensor and slot, Adam's update counts."""

    step: int
    tensors: Mapping[str, torch.Tensor]
    slots: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    updates: Mapping[str, int] = field(default_factory=dict)


def write_series(
    folder: Path, saved: Sequence[Saved], *, pieces: int = 1, axis: str = "steps"
) -> SnapshotSeries:
    """Write each snapshot to one file of raw bytes; each tensor in `pieces` extents."""
    snapshots = []
    for entry in saved:
        path = folder / f"step_{entry.step}.bin"
        with path.open("wb") as file:
            file.write(b"\x00" * 13)  # nothing is aligned by luck
            refs = {k: _write(file, str(path), k, t, pieces) for k, t in entry.tensors.items()}
            slots = {
                k: {s: _write(file, str(path), k, t, pieces) for s, t in v.items()}
                for k, v in entry.slots.items()
            }
        optimizer = OptimizerRecord("optimizer", (), slots, entry.updates) if slots else None
        snapshots.append(
            Snapshot(
                step=entry.step,
                epoch=None,
                step_source="file name",
                files=(path.name,),
                format="raw",
                tensors=refs,
                tree_key="",
                tree_note="",
                trees=(),
                optimizer=optimizer,
            )
        )
    return SnapshotSeries(str(folder), tuple(snapshots), (), axis)


def _write(file: Any, path: str, name: str, tensor: torch.Tensor, pieces: int) -> TensorRef:
    dtype = str(tensor.dtype).removeprefix("torch.")
    width = DTYPE_BYTES[dtype]
    dense = tensor.is_contiguous()
    span = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    flat = tensor.as_strided((span if tensor.numel() else 0,), (1,))
    extents = []
    for part in torch.tensor_split(flat, pieces):
        extents.append(Extent(path, file.tell(), part.numel() * width))
        file.write(part.contiguous().view(torch.uint8).numpy().tobytes())
        file.write(b"\xff" * 5)
    strides = None if dense else tuple(tensor.stride())
    return TensorRef(name, tuple(tensor.shape), dtype, tuple(extents), strides)


def symmetry_of(
    name: str,
    shape: Sequence[int],
    *,
    role: Role = Role.SCALE_INVARIANT,
    axis: int | None = 0,
    groups: int | None = None,
    **more: Any,
) -> TensorSymmetry:
    """A tensor's answer; every index of the axis a channel of its own unless told."""
    count = groups if groups is not None else (1 if axis is None else shape[axis])
    granularity = Granularity.CHANNEL if count > 1 else Granularity.TENSOR
    return TensorSymmetry(
        name=name,
        shape=tuple(shape),
        dtype="float32",
        role=role,
        granularity=granularity,
        axis=axis,
        groups=count,
        evidence=(),
        **more,
    )


def groups_of(*tensors: TensorSymmetry) -> ScaleGroups:
    return ScaleGroups({t.name: t for t in tensors}, "declared")


def batch_norm(prefix: str) -> NormBehind:
    return NormBehind("batch_norm", f"{prefix}.weight", f"{prefix}.bias", f"{prefix}.running_var")


def hyper_of(
    *,
    kind: OptimizerKind = OptimizerKind.SGD,
    names: Sequence[str] = (),
    lr: float = 0.1,
    weight_decay: float = 5e-4,
    momentum: float | None = 0.9,
    dampening: float = 0.0,
    betas: tuple[float, float] | None = None,
    eps: float | None = None,
    decoupled: bool = False,
    amsgrad: bool | None = None,
    epsilon: float = 1e-5,
) -> HyperParameters:
    """One parameter group with constant rates."""
    group = ParamGroup(0, "all", tuple(names), weight_decay, momentum, betas, "test")
    return HyperParameters(
        optimizer=Optimizer(
            kind, None, momentum, False, dampening, betas, eps, decoupled, amsgrad, "test"
        ),
        groups=(group,),
        schedule=(RateSegment(0, 0, 10_000, lr, None, weight_decay, "test"),),
        epsilon=epsilon,
    )


def rows(frame: Any, tensor: str) -> list[dict[str, Any]]:
    """The rows of one tensor as dicts."""
    return [row for row in frame.to_dicts() if row["tensor"] == tensor]
