"""The sums of one tensor (or of a task's share of it), and how they merge.

All arrays are float64 with one row per snapshot (S) or pair of neighbours (P = S - 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from smdlens.motion.chord import ChordSums
from smdlens.motion.layout import Layout

Float = NDArray[np.float64]


class SnapshotSum(IntEnum):
    """Columns of `TensorSums.snapshot`."""

    NONFINITE = 0
    ROUND2 = 1
    WV = 2
    V2 = 3
    WU = 4
    U2 = 5
    VHAT = 6


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
    """Everything measured of one tensor before it becomes rows.

    Attributes:
        w2: [S, channels] |w_c|^2.
        snapshot: [S, len(SnapshotSum)].
        clock: [S, outer * inner] sum of w over the channel axis, or None.
        chord: [P, channels].
        pair: [P, len(PairSum)].
        s_range: [P, 2] smallest and largest S.
    """

    w2: Float
    snapshot: Float
    clock: Float | None
    chord: ChordSums
    pair: Float
    s_range: Float

    @classmethod
    def zeros(cls, snapshots: int, channels: int, clock: int | None) -> TensorSums:
        """Sums over nothing.

        Args:
            snapshots: S.
            channels: Channels covered.
            clock: Length of the clock vector, None where it is not wanted.
        """
        pairs = max(snapshots - 1, 0)
        return cls(
            np.zeros((snapshots, channels)),
            np.zeros((snapshots, len(SnapshotSum))),
            None if clock is None else np.zeros((snapshots, clock)),
            ChordSums.zeros(pairs, channels),
            np.zeros((pairs, len(PairSum))),
            np.full((pairs, 2), (np.inf, -np.inf)),
        )

    def add(self, part: TensorSums, channel: int, clock: int) -> None:
        """Merge a part in place; parts must come in a fixed order.

        Args:
            part: Sums over some of the elements, same snapshots.
            channel: Where its channels begin.
            clock: Where its clock vector begins.
        """
        self.w2[:, channel : channel + part.w2.shape[1]] += part.w2
        self.snapshot += part.snapshot
        if self.clock is not None and part.clock is not None:
            self.clock[:, clock : clock + part.clock.shape[1]] += part.clock
        self.chord.add_at(channel, part.chord)
        self.pair += part.pair
        np.minimum(self.s_range[:, 0], part.s_range[:, 0], out=self.s_range[:, 0])
        np.maximum(self.s_range[:, 1], part.s_range[:, 1], out=self.s_range[:, 1])


@dataclass(slots=True)
class TaskSums:
    """What one task returns: the sums of its blocks and where they belong."""

    tensor: int
    channel: int
    clock: int
    sums: TensorSums


def sums_for(layout: Layout, snapshots: int, clock: bool) -> TensorSums:
    """Empty sums of a whole tensor."""
    return TensorSums.zeros(snapshots, layout.count, layout.clock_size if clock else None)
