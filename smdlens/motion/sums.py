"""The sums of one tensor, of some of its elements or of several small tensors, and how they merge.

All arrays are float64 with one row per snapshot (S) or pair of neighbours (P = S - 1); M tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from smdlens.motion.chord import ChordSums
from smdlens.motion.layout import Layout

Float = NDArray[np.float64]


class SnapshotSum(IntEnum):
    """Columns of `TensorSums.snapshot`; ROUND2 is of the sampled elements, SAMPLED their w^2."""

    NONFINITE = 0
    ROUND2 = 1
    SAMPLED = 2
    WV = 3
    V2 = 4
    WU = 5
    U2 = 6
    VHAT = 7


class PairSum(IntEnum):
    """Columns of `TensorSums.pair`; S is not yet scaled to mean 1."""

    GRAD2 = 0
    GRAD_W = 1
    GRAD_V = 2
    S_SUM = 3
    S_W2_FROM = 4
    S_W2_TO = 5
    S_WU_FROM = 6
    S_WU_TO = 7
    S_U2_FROM = 8
    S_U2_TO = 9


def quiet() -> np.errstate:
    """Sums that overflow or have no value stay infinite or NaN and end as null, without a word."""
    return np.errstate(divide="ignore", invalid="ignore", over="ignore")


@dataclass(slots=True)
class TensorSums:
    """Everything measured of a tensor, or of several small ones, before it becomes rows.

    Attributes:
        w2: [S, channels] |w_c|^2, the channels of all tensors one after another.
        snapshot: [S, M, len(SnapshotSum)].
        clock: [S, outer * inner] sum of w over the channel axis, or None.
        chord: [P, channels].
        pair: [P, M, len(PairSum)].
        s_range: [P, M, 2] smallest and largest S.
        sample: [S, slots] the weights that are kept, of one tensor after another; zero where they
            lie in other blocks. NaN where not finite.
        grad2: [P, channels] |g_c|^2 of single updates; no rows where no pair gives a gradient.
    """

    w2: Float
    snapshot: Float
    clock: Float | None
    chord: ChordSums
    pair: Float
    s_range: Float
    sample: Float
    grad2: Float

    @classmethod
    def zeros(
        cls, snapshots: int, channels: int, clock: int | None, tensors: int = 1, slots: int = 0
    ) -> TensorSums:
        """Sums over nothing.

        Args:
            snapshots: S.
            channels: Channels covered.
            clock: Length of the clock vector, None where it is not wanted.
            tensors: M.
            slots: Weights that are kept.
        """
        pairs = max(snapshots - 1, 0)
        s_range = np.empty((pairs, tensors, 2))
        s_range[:] = np.inf, -np.inf
        return cls(
            np.zeros((snapshots, channels)),
            np.zeros((snapshots, tensors, len(SnapshotSum))),
            None if clock is None else np.zeros((snapshots, clock)),
            ChordSums.zeros(pairs, channels),
            np.zeros((pairs, tensors, len(PairSum))),
            s_range,
            np.zeros((snapshots, slots)),
            np.zeros((0, channels)),
        )

    def add(self, part: TensorSums, channel: int, clock: int) -> None:
        """Merge a part in place; parts must come in a fixed order.

        Args:
            part: Sums over some of the elements, same snapshots and tensors.
            channel: Where its channels begin.
            clock: Where its clock vector begins.
        """
        self.w2[:, channel : channel + part.w2.shape[1]] += part.w2
        self.snapshot += part.snapshot
        if self.clock is not None and part.clock is not None:
            self.clock[:, clock : clock + part.clock.shape[1]] += part.clock
        self.chord.add_at(channel, part.chord)
        self.pair += part.pair
        self.sample += part.sample
        if len(part.grad2):
            if not len(self.grad2):
                self.grad2 = np.zeros((len(part.grad2), self.w2.shape[1]))
            self.grad2[:, channel : channel + part.grad2.shape[1]] += part.grad2
        np.minimum(self.s_range[..., 0], part.s_range[..., 0], out=self.s_range[..., 0])
        np.maximum(self.s_range[..., 1], part.s_range[..., 1], out=self.s_range[..., 1])

    def of(self, tensors: Sequence[int], channels: NDArray[np.intp]) -> TensorSums:
        """The sums of some of several tensors that have as many channels, without the sample.

        Args:
            tensors: Which, M of them.
            channels: Where their channels lie, [M, channels of one].

        Returns:
            The same with the last axis split: w2 is [S, M, channels of one].
        """
        return TensorSums(
            np.take(self.w2, channels, 1),
            np.take(self.snapshot, tensors, 1),
            self.clock,
            self.chord.take(channels),
            np.take(self.pair, tensors, 1),
            np.take(self.s_range, tensors, 1),
            self.sample[:, :0],
            np.take(self.grad2, channels, 1),
        )


@dataclass(slots=True)
class TaskSums:
    """What one task returns: the sums of its blocks and where they belong in the tensor."""

    channel: int
    clock: int
    sums: TensorSums


def sums_for(layout: Layout, snapshots: int, clock: bool, slots: int) -> TensorSums:
    """Empty sums of a whole tensor."""
    size = layout.clock_size if clock else None
    return TensorSums.zeros(snapshots, layout.count, size, slots=slots)
