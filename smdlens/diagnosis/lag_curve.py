"""How the angle grows with the lag, held against a random walk in equilibrium.

The angle between sparse snapshots never decides equilibrium; it says how the weights move on their
sphere. Pairs are compared within a stage only: the walk is that of constant rates.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from smdlens.diagnosis.measure_group import GroupMeasurement
from smdlens.diagnosis.records import LAG_SCHEMA
from smdlens.theory.angles import angle_from_turn2
from smdlens.theory.random_walk import random_walk_turn2

Array = NDArray[np.float64]
# Correlation below which two snapshots are as good as independent (docs/theory.md §9).
SATURATED = 0.05
# Angle over that of the walk; between the two it is a random walk.
CONFINED, DIFFUSIVE = 0.8, 1.25
_MOST_LAGS = 64


def lag_frame(
    angles: pl.DataFrame,
    measured: list[GroupMeasurement],
    owner: NDArray[np.int64],
    steps: NDArray[np.int64],
) -> pl.DataFrame:
    """One row per tensor, stage and lag, with `LAG_SCHEMA`, tensors in the order of `angles`.

    Args:
        angles: Angles between pairs of snapshots (`motion.records.ANGLE_SCHEMA`).
        measured: The parameter groups, for their rates and laws.
        owner: Stage of each interval between neighbouring snapshots, -1 for none, [I].
        steps: Step of each snapshot, [I + 1].
    """
    walk_of = {
        name: walk
        for part in measured
        for walk in (_walk(part, angles, steps),)
        for name in part.tracks.tensors
    }
    known = angles.filter(pl.col("tensor").is_in(list(walk_of)))
    if known.is_empty():
        return pl.DataFrame(schema=LAG_SCHEMA)
    # The pairs of every tensor are those of the first, in the same order.
    first = _of_first(known)
    tensors = known.get_column("tensor").gather_every(len(first))
    stage = _stage(first, owner)
    lag = (first.get_column("step_to") - first.get_column("step_from")).to_numpy()
    binned = np.zeros(len(first), dtype=np.int64)
    binned[stage >= 0] = _binned(lag[stage >= 0])
    pairs = known.with_columns(
        place=pl.Series(np.repeat(np.arange(len(tensors)), len(first))),
        stage=pl.Series(np.tile(stage, len(tensors))),
        lag_steps=pl.Series(np.tile(binned, len(tensors))),
        walk=pl.Series(np.concatenate([walk_of[name] for name in tensors])),
    )
    return _curves(pairs.filter((pl.col("stage") >= 0) & pl.col("angle_rad").is_not_null()))


def _of_first(angles: pl.DataFrame) -> pl.DataFrame:
    """The rows of the first tensor."""
    return angles.filter(pl.col("tensor") == angles.item(0, "tensor")) if len(angles) else angles


def _stage(pairs: pl.DataFrame, owner: NDArray[np.int64]) -> NDArray[np.int64]:
    """The stage that holds every interval between the two ends; -1 where there is none."""
    a, b = (pairs.get_column(c).to_numpy() for c in ("snapshot_from", "snapshot_to"))
    changes = np.concatenate([[0], np.cumsum(np.diff(owner) != 0)])
    return np.where(changes[a] == changes[b - 1], owner[a], -1)


def _walk(part: GroupMeasurement, angles: pl.DataFrame, steps: NDArray[np.int64]) -> Array:
    """The walk's turn2 for each pair of one tensor, by the mean rate and decay between its ends."""
    first = _of_first(angles)
    a, b = (first.get_column(c).to_numpy() for c in ("snapshot_from", "snapshot_to"))
    law = part.law
    rule = None if law is None or law.is_l2_adam else law.white_rule
    if law is None or rule is None:
        return np.full(len(a), np.nan)
    n = (steps[b] - steps[a]).astype(np.float64)
    lr = _mean(part.rates.mean_lr(), part.rates.lengths, a, b)
    decay = _mean(part.rates.mean_decay(), part.rates.lengths, a, b)
    good = (lr > 0.0) & (decay > 0.0)
    out = np.full(len(a), np.nan)
    none = np.zeros(int(good.sum()))
    coupled, decoupled = (none, decay[good]) if law.decoupled else (decay[good], none)
    out[good] = random_walk_turn2(n[good], rule, lr[good], coupled, decoupled)
    return out


def _mean(
    means: Array, lengths: NDArray[np.int64], a: NDArray[np.int64], b: NDArray[np.int64]
) -> Array:
    """Mean over all updates between snapshots a and b; NaN across an unknown interval."""
    total = np.concatenate([[0.0], np.cumsum(np.nan_to_num(means) * lengths)])
    count = np.concatenate([[0], np.cumsum(lengths)])
    lost = np.concatenate([[0], np.cumsum(np.isnan(means))])
    return np.where(lost[b] == lost[a], (total[b] - total[a]) / (count[b] - count[a]), np.nan)


def _curves(pairs: pl.DataFrame) -> pl.DataFrame:
    """From pairs of snapshots to lags."""
    table = (
        pairs.group_by("place", "stage", "lag_steps")
        .agg(
            tensor=pl.col("tensor").first(),
            pairs=pl.len(),
            angle_rad=pl.col("angle_rad").median(),
            angle_min_rad=pl.col("angle_rad").min(),
            angle_max_rad=pl.col("angle_rad").max(),
            walk=pl.col("walk").median(),
        )
        .sort("place", "stage", "lag_steps")
    )
    walk = table.get_column("walk").to_numpy()
    law = np.asarray(angle_from_turn2(walk))
    angle = table.get_column("angle_rad").to_numpy()
    far = [None if np.isnan(w) else bool(1.0 - w / 2.0 < SATURATED) for w in walk]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(law > 0.0, angle / law, np.nan)
    return (
        table.with_columns(
            angle_random_walk_rad=pl.Series(law).fill_nan(None),
            ratio_to_walk=pl.Series(ratio, dtype=pl.Float64).fill_nan(None),
            saturated=pl.Series(far, dtype=pl.Boolean),
            motion=pl.Series(map(_label, ratio, far), dtype=pl.String),
        )
        .select(list(LAG_SCHEMA))
        .cast(pl.Schema(LAG_SCHEMA))
    )


def _label(ratio: float, saturated: bool | None) -> str | None:
    if np.isnan(ratio) or saturated is not False:
        return None
    if ratio < CONFINED:
        return "confined"
    return "diffusive" if ratio <= DIFFUSIVE else "directed"


def _binned(lags: NDArray[np.int64]) -> NDArray[np.int64]:
    """Lags as they are where few differ; else the middle one of each of many geometric bins."""
    unique = np.unique(lags)
    if len(unique) <= _MOST_LAGS:
        return lags
    edges = np.geomspace(unique[0], unique[-1], _MOST_LAGS + 1)[1:-1]
    place = np.digitize(unique, edges)
    middle = {int(p): int(np.sort(unique[place == p])[(place == p).sum() // 2]) for p in place}
    return np.array([middle[int(p)] for p in np.digitize(lags, edges)], dtype=np.int64)
