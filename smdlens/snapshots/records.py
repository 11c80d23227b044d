"""What a checkpoint holds, as plain frozen records: names, shapes and byte extents, never values.

Reading headers yields these records; weights stay on disk until motion/ asks for bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from smdlens.containers.files import FileStamp
from smdlens.vocabulary import SkipReason

# Storage width in bytes by dtype name; names are torch's without the `torch.` prefix.
DTYPE_BYTES: Mapping[str, int] = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
    "complex64": 8,
    "complex128": 16,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
    "bool": 1,
}
MEASURED_DTYPES = frozenset(
    {"float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"}
)


@lru_cache(maxsize=1 << 12)
def shared(shape: tuple[int, ...]) -> tuple[int, ...]:
    """One tuple for all equal shapes: they come again in many tensors and in every snapshot."""
    return shape


@dataclass(frozen=True, slots=True)
class Packed:
    """How bytes lie in a file that are not stored as they are.

    Attributes:
        stored: Bytes in the file.
        filters: Names of the filters they went through when written, in order.
        unpacked: Bytes that undoing the filters gives.
        skip: How many of those lie before the extent's own.
        inside: Where the stored bytes are themselves part of a packed block, how that is packed.
    """

    stored: int
    filters: tuple[str, ...]
    unpacked: int
    skip: int = 0
    inside: Packed | None = None


@dataclass(frozen=True, slots=True)
class Extent:
    """A range of bytes of one regular file.

    Attributes:
        path: The file.
        offset: Where they begin in it.
        nbytes: How many they are; with `packed`, after unpacking.
        packed: What has to be undone; None for bytes stored as they are.
    """

    path: str
    offset: int
    nbytes: int
    packed: Packed | None = None

    def part(self, low: int, high: int) -> Extent:
        """Bytes [low, high) of the extent."""
        if self.packed is None:
            return Extent(self.path, self.offset + low, high - low)
        packed = replace(self.packed, skip=self.packed.skip + low)
        return Extent(self.path, self.offset, high - low, packed)

    def holding(self, filters: tuple[str, ...], unpacked: int) -> Extent:
        """The bytes that undoing `filters` on all of this extent gives."""
        if not filters:
            return self
        packed = Packed(self.nbytes, filters, unpacked, inside=self.packed)
        return Extent(self.path, self.offset, unpacked, packed)


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor on disk: shape, storage dtype and where its bytes lie.

    Attributes:
        name: The name as the file has it, prefixes included.
        shape: Logical shape, as the framework shows it.
        dtype: Key of `DTYPE_BYTES`.
        extents: Byte ranges that, joined in order, hold the tensor's elements (or, with
            `strides`, the span of storage that the strides walk over, element 0 first).
        strides: Element strides when the elements are not dense in row-major order; else None.
        scale: Factor that turns stored values into ours (an optimizer's buffer in another
            framework's convention).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    extents: tuple[Extent, ...]
    strides: tuple[int, ...] | None = None
    scale: float = 1.0

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements (not of a larger storage they may be a view of)."""
        return self.numel * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class WeightTree:
    """One mapping of names to tensors inside a checkpoint: `model`, `ema`, the top level ("")."""

    key: str
    tensors: Mapping[str, TensorRef]
    averaged: bool = False


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """One optimizer parameter group as saved: plain scalars, and the tensors it covers.

    `names` are canonical tensor names of the snapshot's weights; None where the file does not
    say and order and shapes do not decide. `values` holds lr, weight_decay, momentum, betas,
    eps, initial_lr, decoupled_weight_decay ... as Python scalars or tuples (0-d tensors resolved).
    """

    index: int
    values: Mapping[str, Any]
    names: tuple[str, ...] | None
    count: int


@dataclass(frozen=True, slots=True)
class OptimizerRecord:
    """Optimizer state of one checkpoint, in our conventions (torch's: step = -lr * momentum).

    Attributes:
        key: Dotted path inside the file.
        groups: Parameter groups in order.
        slots: Canonical tensor name -> slot name (`Slot` values) -> where the buffer lies.
        updates: Canonical tensor name -> number of updates its moments have seen (Adam's `step`).
        name: Class name when some file gives it ("SGD", "AdamW"), else None.
        note: How names were found ("param_names", "order and shape", "unmapped: ...").
    """

    key: str
    groups: tuple[GroupRecord, ...]
    slots: Mapping[str, Mapping[str, TensorRef]]
    updates: Mapping[str, int] = field(default_factory=dict)
    name: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One checkpoint of a run, headers only.

    Attributes:
        step: Updates done when it was saved ("after s updates"); None when only epochs are known.
        epoch: Epoch it carries, if any.
        step_source: Where the step comes from ("key 'global_step'", "file name", ...).
        files: Files it consists of, relative to the run folder.
        format: "torch-zip", "safetensors", ...
        tensors: Canonical name (wrapper prefixes stripped) -> tensor of the chosen weight tree.
        tree_key: Dotted path of the chosen tree; `tree_note` says why it was chosen.
        trees: Every candidate tree (key, number of tensors, averaged), for the report.
        optimizer: Optimizer state, if saved.
        scalars: Everything else in the file that is plain data (numbers, strings, lists, dicts):
            `lr_scheduler`, `args`, `hyper_parameters`, `epoch`, ...; foreign objects appear as
            the dict of their state. Hostile content is possible: treat as data only.
        stamps: Path of each file with tensor bytes -> its stamp when the headers were read; bytes
            read from a file whose stamp differs may belong to other tensors.
        network: The model's description as JSON, where the checkpoint holds Keras' or MXNet's; the
            path of the program in a SavedModel, TorchScript, .pt2 or ONNX file.
    """

    step: int | None
    epoch: float | None
    step_source: str
    files: tuple[str, ...]
    format: str
    tensors: Mapping[str, TensorRef]
    tree_key: str
    tree_note: str
    trees: tuple[tuple[str, int, bool], ...]
    optimizer: OptimizerRecord | None
    scalars: Mapping[str, Any] = field(default_factory=dict)
    stamps: Mapping[str, FileStamp] = field(default_factory=dict)
    network: str | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file of the run that is not part of the series, and why."""

    file: str
    reason: SkipReason
    detail: str


@dataclass(frozen=True, slots=True)
class SnapshotSeries:
    """The snapshots of one run in order of their step, plus what was left out.

    Attributes:
        path: As given by the user.
        snapshots: Usable snapshots, strictly increasing on the axis.
        skipped: Files left out, each with a reason.
        axis: "steps", or "epochs" when nothing turns epochs into steps.
        notes: Observations worth a finding (restart, duplicates with other weights, ...).
    """

    path: str
    snapshots: tuple[Snapshot, ...]
    skipped: tuple[Skipped, ...]
    axis: str = "steps"
    notes: tuple[str, ...] = ()

    @property
    def steps(self) -> tuple[int, ...]:
        """Step (or, on the epoch axis, epoch) of each snapshot."""
        return tuple(
            int(s.step if s.step is not None else round(s.epoch or 0)) for s in self.snapshots
        )
