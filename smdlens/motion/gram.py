"""Every snapshot of a tensor against every other: one Gram matrix, block by block.

The matrix is taken of what each snapshot differs from the middle one by, element by element; the
middle one's own sums turn it back into angles. So small angles keep their digits: what cancels is
of the size of the motion, not of the weights (derived in docs/theory.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from smdlens.motion.layout import Block, Stripe
from smdlens.motion.plan import TensorPlan
from smdlens.motion.workspace import Workspace
from smdlens.snapshots.records import DTYPE_BYTES, TensorRef

Float = NDArray[np.float64]
# float64 elements of all snapshots in a block: 8 MiB, and long enough to be worth a read each.
_BLOCK = 1 << 20
_GATHERED_BLOCK = 1 << 24
_TASK_BLOCKS = 8
# Rounding of the sums shows as a squared angle; where that is above the first number it has to be
# so many times smaller than what is measured.
_SEEN, _CLEAR = 1e-12, 100.0


@dataclass(frozen=True, slots=True)
class GramTask:
    """Elements [low, high) of one tensor in every chosen snapshot."""

    tensor: int
    weights: tuple[TensorRef, ...]
    low: int
    high: int
    block_elements: int

    @property
    def nbytes(self) -> int:
        """Bytes that are read."""
        return (self.high - self.low) * sum(DTYPE_BYTES[s.dtype] for s in self.weights)


@dataclass(slots=True)
class GramSums:
    """Plain sums over elements; m is the middle snapshot, e_i what snapshot i adds to it.

    Attributes:
        ee: <e_i, e_j>, [S, S].
        me: <m, e_i>, [S].
        mm: |m|^2.
        lost: Snapshots with weights that are not finite; their entries mean nothing, bool [S].
    """

    ee: Float
    me: Float
    mm: float
    lost: NDArray[np.bool_]

    @classmethod
    def zeros(cls, snapshots: int) -> GramSums:
        """Sums over nothing."""
        shape = snapshots, snapshots
        return cls(np.zeros(shape), np.zeros(snapshots), 0.0, np.zeros(snapshots, dtype=bool))

    def add(self, part: GramSums) -> None:
        """Merge in place; parts must come in a fixed order."""
        self.ee += part.ee
        self.me += part.me
        self.mm += part.mm
        self.lost |= part.lost

    def turn2(self) -> Float:
        """2 (1 - cos) between snapshots i < j in row order; NaN where an end is zero or lost.

        NaN too where one is so much longer than another that rounding hides it.

        |w_i - w_j|^2 = E_ii + E_jj - 2 E_ij, and what the change of length takes of it is
        (|w_i| - |w_j|)^2 with |w_i|^2 - |w_j|^2 = 2 <m, e_i - e_j> + E_ii - E_jj.
        """
        own = np.diag(self.ee)
        norm = np.sqrt(np.maximum(self.mm + 2.0 * self.me + own, 0.0))
        norm[self.lost] = np.nan
        i, j = np.triu_indices(len(own), 1)
        distance2 = own[i] + own[j] - 2.0 * self.ee[i, j]
        with np.errstate(divide="ignore", invalid="ignore"):
            longer = (2.0 * (self.me[i] - self.me[j]) + own[i] - own[j]) / (norm[i] + norm[j])
            turned = np.maximum(distance2 - longer**2, 0.0) / (norm[i] * norm[j])
            shorter = np.minimum(norm[i], norm[j])
            noise = np.finfo(np.float64).eps * (own[i] + own[j]) / shorter**2
        hidden = (noise > _SEEN) & (turned < _CLEAR * noise)
        return np.where(np.isfinite(turned) & ~hidden, turned, np.nan)


def gram_tasks(tensor: int, plan: TensorPlan) -> list[GramTask]:
    """Cut one tensor into tasks; `plan` holds the chosen snapshots only."""
    weights = tuple(s.weights for s in plan.snapshots)
    total = _GATHERED_BLOCK if plan.gathered else _BLOCK
    size = max(total // len(weights), 1)
    step, numel = size * _TASK_BLOCKS, plan.layout.numel
    return [
        GramTask(tensor, weights, low, min(low + step, numel), size)
        for low in range(0, numel, step)
    ]


def run_gram_task(task: GramTask, space: Workspace) -> GramSums:
    """Sums over a task's blocks; on the CPU where a GPU has too little memory."""
    try:
        return _summed(task, space)
    except torch.OutOfMemoryError:
        space.give_way(0)
        return _summed(task, space.on_cpu())


def _summed(task: GramTask, space: Workspace) -> GramSums:
    total = GramSums.zeros(len(task.weights))
    rows: _Rows | None = None
    for low in range(task.low, task.high, task.block_elements):
        high = min(low + task.block_elements, task.high)
        block = Block(low, high, (Stripe(0, (1, 1, high - low)),))
        if rows is None or rows.size != block.size:
            rows = _Rows(task.weights, block.size, space)
        part = _sums(rows.differences(block))
        if not (np.isfinite(part.ee).all() and np.isfinite(part.me).all()):
            # Read again: the reference may have carried what is not finite into every row.
            part = _careful_sums(rows.weights(block))
        total.add(part)
    return total


class _Rows:
    """One block of every snapshot, as rows."""

    def __init__(self, weights: tuple[TensorRef, ...], size: int, space: Workspace) -> None:
        self.size = size
        self._rows = space.buffer("gram", len(weights) * size).view(len(weights), size)
        self._each = list(self._rows)
        self._loaders = [
            space.loader(source, size, row) for source, row in zip(weights, self._each, strict=True)
        ]

    def weights(self, block: Block) -> torch.Tensor:
        """The weights of every snapshot."""
        for load in self._loaders:
            load(block)
        return self._rows

    def differences(self, block: Block) -> torch.Tensor:
        """Every snapshot minus the middle one; in the place of that itself."""
        middle = len(self._each) // 2
        reference = self._each[middle]
        self._loaders[middle](block)
        for index, (load, row) in enumerate(zip(self._loaders, self._each, strict=True)):
            if index != middle:
                load(block)
                row.sub_(reference)
        return self._rows


def _careful_sums(rows: torch.Tensor) -> GramSums:
    """The same from the mean of the finite ones; those that are not become zero."""
    lost = ~torch.isfinite(rows).all(1)
    rows[lost] = 0.0
    mean = rows.mean(0)
    rows.sub_(mean)
    ee = torch.mm(rows, rows.t()).cpu().numpy()
    me = torch.mv(rows, mean).cpu().numpy()
    return GramSums(ee, me, float(torch.dot(mean, mean)), lost.cpu().numpy())


def _sums(rows: torch.Tensor) -> GramSums:
    """From `_Rows.differences`: what the middle one differs from itself by is zero."""
    ee, middle = torch.mm(rows, rows.t()).cpu().numpy(), len(rows) // 2
    me, mm = ee[middle].copy(), float(ee[middle, middle])
    me[middle] = 0.0
    ee[middle] = ee[:, middle] = 0.0
    return GramSums(ee, me, mm, np.zeros(len(ee), dtype=bool))
