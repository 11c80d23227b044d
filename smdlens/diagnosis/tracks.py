"""The motion tables turned into arrays: one row per tensor, one column per snapshot or interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from smdlens.motion.joint import joint_at, joint_between
from smdlens.motion.records import PAIR_SCHEMA, SNAPSHOT_SCHEMA, Motion
from smdlens.symmetry.records import ScaleGroups

Array = NDArray[np.float64]
_LEAK = tuple(name for name in PAIR_SCHEMA if name.startswith("leak_"))


@dataclass(frozen=True)
class Tracks:
    """T tensors through S snapshots; nulls are NaN.

    Attributes:
        tensors: Names, [T], in file order.
        steps: Step of each snapshot, int64 [S].
        at: Snapshot column -> float64 [T, S].
        between: Pair column -> float64 [T, S - 1].
        numel: Elements of each tensor, float64 [T].
        by_updates: `steps` count updates; False on an axis of epochs.
    """

    tensors: tuple[str, ...]
    steps: NDArray[np.int64]
    at: dict[str, Array]
    between: dict[str, Array]
    numel: Array
    by_updates: bool = True

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Updates per interval, int64 [S - 1]."""
        return np.diff(self.steps)

    @property
    def adjacent(self) -> NDArray[np.bool_]:
        """Intervals of a single update, bool [S - 1]; an epoch is no update."""
        return np.asarray((self.lengths == 1) & self.by_updates)

    def take(self, rows: NDArray[np.intp]) -> Tracks:
        """The same tracks for some of the tensors."""
        return Tracks(
            tuple(self.tensors[row] for row in rows),
            self.steps,
            {name: values[rows] for name, values in self.at.items()},
            {name: values[rows] for name, values in self.between.items()},
            self.numel[rows],
            self.by_updates,
        )

    def window(self, snapshots: slice) -> Tracks:
        """The same tracks for a range of snapshots."""
        pairs = slice(snapshots.start, snapshots.stop - 1)
        return Tracks(
            self.tensors,
            self.steps[snapshots],
            {name: values[:, snapshots] for name, values in self.at.items()},
            {name: values[:, pairs] for name, values in self.between.items()},
            self.numel,
            self.by_updates,
        )


def tracks_of(
    motion: Motion, steps: tuple[int, ...], groups: ScaleGroups, *, by_updates: bool = True
) -> Tracks:
    """Pivots both motion tables; every tensor has one row per snapshot and per pair.

    A jointly invariant set that is measured as one vector has one row, under its first member.
    """
    frame = motion.snapshots
    tensors = measured_names(motion)
    count = len(steps)
    at = {
        name: _matrix(frame, name, len(tensors), count)
        for name in SNAPSHOT_SCHEMA
        if name not in ("tensor", "snapshot", "step")
    }
    between = {
        name: _matrix(motion.pairs, name, len(tensors), count - 1)
        for name in PAIR_SCHEMA
        if name not in ("tensor", "snapshot_from", "snapshot_to", "step_from", "step_to")
    }
    numel = np.array([math.prod(groups.tensors[name].shape) for name in tensors], dtype=np.float64)
    whole = Tracks(tensors, np.array(steps, dtype=np.int64), at, between, numel, by_updates)
    return _with_sets_joined(whole, groups)


def measured_names(motion: Motion) -> tuple[str, ...]:
    """Tensors of the motion tables, in file order."""
    return tuple(motion.snapshots.get_column("tensor").unique(maintain_order=True).to_list())


def _with_sets_joined(tracks: Tracks, groups: ScaleGroups) -> Tracks:
    """The rows of each measured set become one, in the place of its first member's."""
    sets: dict[str, list[int]] = {}
    for row, name in enumerate(tracks.tensors):
        sets.setdefault(groups.tensors[name].measured_under or name, []).append(row)
    kept = tracks.take(np.array([rows[0] for rows in sets.values()], dtype=np.intp))
    for place, rows in enumerate(sets.values()):
        if len(rows) > 1:
            own = tracks.take(np.array(rows, dtype=np.intp))
            for name, sums in joint_at(own.at).items():
                kept.at[name][place] = sums
            for name, sums in joint_between(own.between, own.at["w2"]).items():
                kept.between[name][place] = sums
            _join_leak(kept, place, own, groups)
            kept.numel[place] = own.numel.sum()
    return kept


def _join_leak(kept: Tracks, place: int, own: Tracks, groups: ScaleGroups) -> None:
    """Epsilon's leak out of a set in front of one batch norm: that of its sum, whoever adds to it.

    <w, g> over all members is sum_c f_c gamma_c dL/dgamma_c, as for a tensor alone (docs/theory.md
    §10): the norm's own numbers, the same under every member's name. Only the mean of f is weighted
    with |w_c|^2 of each.
    """
    norms = [groups.tensors[name].norm for name in own.tensors]
    behind = {norm.running_var for norm in norms if norm is not None}
    if len(behind) != 1 or norms[0] is None or None in behind:
        return
    for column in _LEAK:
        kept.between[column][place] = own.between[column][0]
    w2, fraction = own.at["w2"], own.between["eps_fraction"]
    weight = np.where(np.isnan(fraction), 0.0, np.sqrt(w2[:, :-1] * w2[:, 1:]))
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (weight * np.nan_to_num(fraction)).sum(axis=0) / weight.sum(axis=0)
    kept.between["eps_fraction"][place] = mean


def _matrix(frame: pl.DataFrame, column: str, rows: int, columns: int) -> Array:
    values = frame.get_column(column).cast(pl.Float64).to_numpy()
    return np.asarray(values, dtype=np.float64).reshape(rows, columns)
