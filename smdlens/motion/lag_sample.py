"""A few weights of each tensor kept from every snapshot: angles at long lags without a second read.

`--all-pairs` takes all weights against all others. The lag curve of a random walk needs less: the
chord between two unit vectors is a sum over elements, and every so-manieth element, the same in
every snapshot, gives it up to a few per cent. What these elements turn more or less than the
others is the same at all lags, so the neighbours' exact chords take it out (docs/theory.md §9).
"""

from __future__ import annotations

from functools import lru_cache

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
    if kept.is_empty():
        return pl.DataFrame(schema=ANGLE_SCHEMA)
    exact = dict(
        pairs.with_columns(turn2=pl.col("chord2") / _norm2_to(pairs, snapshots))
        .group_by("tensor")
        .agg(pl.col("turn2"))
        .iter_rows()
    )
    norms = np.sqrt(kept.get_column("w2").to_numpy())
    samples = kept.get_column("sample")
    weights = samples.explode().to_numpy()
    stops = np.cumsum(samples.list.len().to_numpy())
    steps = kept.get_column("step").to_numpy()
    names = kept.get_column("tensor")
    edges = np.concatenate([[0], np.flatnonzero(names != names.shift()), [len(names)]])
    owners: list[str] = []
    ends: list[tuple[NDArray[np.int64], ...]] = []
    turned: list[Float] = []
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            if last - first < 2:
                continue
            name, own = names[first], steps[first:last]
            held = weights[stops[first - 1] if first else 0 : stops[last - 1]]
            unit = held.reshape(last - first, -1) / norms[first:last, None]
            start, end = _ends(len(own))
            own_exact = np.array(exact[name], dtype=np.float64)
            turned.append(_turn2(unit, own_exact))
            owners += [name] * len(start)
            ends.append((start, end, own[start], own[end]))
        turn2 = np.concatenate(turned) if turned else np.empty(0)
        angles = np.where(np.isfinite(turn2), angle_from_turn2(turn2), np.nan)
    columns = [np.concatenate(each) for each in zip(*ends, strict=True)] or [np.empty(0)] * 4
    places = dict(zip(tuple(ANGLE_SCHEMA)[1:5], columns, strict=True))
    frame = pl.DataFrame({"tensor": owners, **places, "angle_rad": angles}, schema=ANGLE_SCHEMA)
    return frame.with_columns(pl.col("angle_rad").fill_nan(None))


def _norm2_to(pairs: pl.DataFrame, snapshots: pl.DataFrame) -> pl.Series:
    norms = snapshots.select("tensor", "w2", snapshot_to="snapshot")
    return pairs.join(
        norms, on=["tensor", "snapshot_to"], how="left", maintain_order="left"
    ).get_column("w2")


@lru_cache
def _ends(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which snapshots are compared: all at lag 1, then at 2, 4 ..."""
    lags = [1 << k for k in range(count.bit_length()) if 1 << k < count]
    start = np.concatenate([np.arange(count - lag) for lag in lags])
    return start, start + np.repeat(lags, [count - lag for lag in lags])


def _turn2(unit: Float, exact: Float) -> Float:
    """Squared unit chords in the order of `_ends`.

    Args:
        unit: Kept weights of each snapshot, [S, kept].
        exact: Of neighbours, [S - 1].
    """
    start, end = _ends(len(unit))
    sampled: Float = np.square(unit[end] - unit[start]).sum(1)
    neighbours = sampled[: len(exact)]
    both = np.isfinite(neighbours) & np.isfinite(exact) & (neighbours > 0.0)
    scale = exact[both].sum() / neighbours[both].sum() if both.any() else np.nan
    return np.concatenate([exact, scale * sampled[len(exact) :]])
