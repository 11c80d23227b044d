"""A few weights of each tensor kept from every snapshot: angles at long lags without a second read.

`--all-pairs` takes all weights against all others. The lag curve of a random walk needs less: the
chord between two unit vectors is a sum over elements, and every so-manieth element, the same in
every snapshot, gives it up to a few per cent. What these elements turn more or less than the
others is the same at all lags, so the neighbours' exact chords take it out (docs/theory.md §9).
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from smdlens.motion.layout import Block
from smdlens.motion.records import ANGLE_SCHEMA
from smdlens.theory.angles import angle_from_turn2

Float = NDArray[np.float64]
# Weights kept of a tensor: one chord between two snapshots of it is then good to 13%, their mean
# over a stage and the median over tensors to a few.
MOST_KEPT = 128
# Tensors times snapshots beyond which none are kept: 128 MB.
MOST_ROWS = 1 << 17


def stride_of(numel: int, step: int = 1) -> int:
    """Distance between kept elements: the least multiple of `step` that keeps few enough."""
    return step * -(-numel // (step * MOST_KEPT))


def slots_of(numel: int, step: int = 1) -> int:
    """How many elements of a tensor are kept."""
    return -(-numel // stride_of(numel, step))


def places(block: Block, step: int, stride: int) -> tuple[slice, slice]:
    """Of a block's elements at multiples of `step`, those that are kept; and their slots.

    Both count in the tensor's storage order; `stride` is a multiple of `step`.
    """
    first = -(-block.low // step)
    kept = -(-first * step // stride)
    count = max(-(-(block.high - kept * stride) // stride), 0)
    apart = stride // step
    start = kept * apart - first
    return slice(start, start + count * apart, apart), slice(kept, kept + count)


def lag_angles(snapshots: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """Angles between snapshots 1, 2, 4 ... apart, from the kept weights.

    Neighbours' angles are the exact ones.

    Args:
        snapshots: Frame with `SNAPSHOT_SCHEMA`.
        pairs: Frame with `PAIR_SCHEMA`.

    Returns:
        Frame with `ANGLE_SCHEMA`, of tensors of which weights were kept; null where not known.
    """
    kept = snapshots.filter(pl.col("sample").is_not_null())
    exact = dict(
        pairs.with_columns(turn2=pl.col("chord2") / _norm2_to(pairs, snapshots))
        .group_by("tensor")
        .agg(pl.col("turn2"))
        .iter_rows()
    )
    frames = [pl.DataFrame(schema=ANGLE_SCHEMA)]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for (name,), rows in kept.group_by("tensor", maintain_order=True):
            if name in exact:
                turned = np.array(exact[name], dtype=np.float64)
                frames.append(_of_tensor(str(name), rows, turned))
    return pl.concat(frames)


def _norm2_to(pairs: pl.DataFrame, snapshots: pl.DataFrame) -> pl.Series:
    norms = snapshots.select("tensor", "w2", snapshot_to="snapshot")
    return pairs.join(
        norms, on=["tensor", "snapshot_to"], how="left", maintain_order="left"
    ).get_column("w2")


def _of_tensor(name: str, rows: pl.DataFrame, exact: Float) -> pl.DataFrame:
    values = np.array(rows.get_column("sample").to_list(), dtype=np.float64)
    steps = rows.get_column("step").to_numpy()
    unit = values / np.sqrt(rows.get_column("w2").to_numpy())[:, None]
    count = len(unit)
    sampled = np.square(np.diff(unit, axis=0)).sum(1)
    both = np.isfinite(sampled) & np.isfinite(exact) & (sampled > 0.0)
    scale = exact[both].sum() / sampled[both].sum() if both.any() else np.nan
    starts, ends, turns = [np.arange(count - 1)], [np.arange(1, count)], [exact]
    lag = 2
    while lag < count:
        starts.append(np.arange(count - lag))
        ends.append(np.arange(lag, count))
        turns.append(scale * np.square(unit[lag:] - unit[:-lag]).sum(1))
        lag *= 2
    start, end = np.concatenate(starts), np.concatenate(ends)
    turn2 = np.concatenate(turns)
    return pl.DataFrame(
        {
            "tensor": [name] * len(start),
            "snapshot_from": start,
            "snapshot_to": end,
            "step_from": steps[start],
            "step_to": steps[end],
            "angle_rad": np.where(np.isfinite(turn2), angle_from_turn2(turn2), np.nan),
        },
        schema=ANGLE_SCHEMA,
    ).with_columns(pl.col("angle_rad").fill_nan(None))
