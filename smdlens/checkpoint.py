"""One checkpoint opened on its own: what it holds, and its tensors on demand."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smdlens.errors import InputError

if TYPE_CHECKING:
    import torch

    from smdlens.snapshots.records import Snapshot, TensorRef


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint of any format smdlens reads, with tensor names as the report shows them.

    Opening reads headers only; `read` and `slots` read one tensor's bytes and run nothing.
    """

    path: str
    snapshot: Snapshot

    @property
    def format(self) -> str:
        """`torch-zip`, `safetensors`, ..."""
        return self.snapshot.format

    @property
    def step(self) -> int | None:
        """Optimizer updates done when it was saved; None when the file does not say."""
        return self.snapshot.step

    @property
    def epoch(self) -> float | None:
        """Epoch it carries, if any."""
        return self.snapshot.epoch

    @property
    def param_groups(self) -> tuple[dict[str, Any], ...]:
        """Per group lr, weight_decay, momentum ... as saved, and `tensors`: names or None."""
        optimizer = self.snapshot.optimizer
        groups = optimizer.groups if optimizer else ()
        return tuple({**group.values, "tensors": group.names} for group in groups)

    @property
    def tensors(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Name -> (shape, dtype) in file order."""
        return {name: (ref.shape, ref.dtype) for name, ref in self.snapshot.tensors.items()}

    def read(self, name: str) -> torch.Tensor:
        """The tensor `name`: contiguous, as stored, on the CPU.

        Raises:
            InputError: No tensor of that name.
            SnapshotError: Its bytes cannot be read.
        """
        return _load(self._find(self.snapshot.tensors, name))

    def slots(self, name: str) -> dict[str, torch.Tensor]:
        """Optimizer buffers of the tensor `name` by slot (`momentum`, `first_moment` ...).

        Empty where the checkpoint has none for it. Conventions are torch's.

        Raises:
            InputError: No tensor of that name.
            SnapshotError: Their bytes cannot be read.
        """
        self._find(self.snapshot.tensors, name)
        optimizer = self.snapshot.optimizer
        held = optimizer.slots.get(name, {}) if optimizer else {}
        return {str(slot): _load(ref) for slot, ref in held.items()}

    def _find(self, tensors: Mapping[str, TensorRef], name: str) -> TensorRef:
        if name not in tensors:
            raise InputError(
                "no tensor of this name",
                subject=self.path,
                found=repr(name),
                remedy="`.tensors` lists the names.",
            )
        return tensors[name]


def _load(ref: TensorRef) -> torch.Tensor:
    from smdlens.motion.tensors import load

    return load(ref)


def open_checkpoint(path: str | os.PathLike[str], *, weights: str | None = None) -> Checkpoint:
    """Opens one checkpoint file or folder.

    Args:
        path: The checkpoint.
        weights: Dotted path of the weight tree inside it; chosen by the reader unless given.

    Raises:
        SnapshotError: It cannot be read; the subclass says why.
    """
    from smdlens.snapshots.series import open_snapshot

    return Checkpoint(os.fspath(path), open_snapshot(Path(path), weights_key=weights))
