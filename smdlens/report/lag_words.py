"""How the weights wander on their sphere, in words: one line per stage, lags doubling."""

from __future__ import annotations

import polars as pl

from smdlens.diagnosis.records import Diagnosis
from smdlens.motion.lag_sample import MOST_KEPT
from smdlens.report import numbers

LAGS_FROM_A_FEW = (
    f"From at most {MOST_KEPT} weights of each tensor; --all-pairs takes all weights and lags."
)


def lag_texts(diagnosis: Diagnosis) -> list[str]:
    """Angle over that of a random walk at lags 1, 2, 4 ... of the shortest; medians over tensors.

    Where the walk itself would have forgotten its start, no angle tells anything: said as
    saturated.
    """
    lags = diagnosis.lags
    if lags is None or lags.is_empty():
        return []
    bound = [n for n, t in diagnosis.groups.tensors.items() if t.on_sphere]
    own = lags.filter(pl.col("tensor").is_in(bound) & pl.col("saturated").is_not_null())
    texts = []
    for (stage,), rows in own.group_by("stage", maintain_order=True):
        table = (
            rows.group_by("lag_steps")
            .agg(
                ratio=pl.col("ratio_to_walk").median(),
                motion=pl.col("motion").drop_nulls().mode().sort().first(),
                saturated=pl.col("saturated").mean() > 0.5,
            )
            .sort("lag_steps")
        )
        texts.append(f"stage {stage} · {_stage(table)}")
    return sorted(texts)


def _stage(table: pl.DataFrame) -> str:
    told = table.filter(~pl.col("saturated"))
    parts, following, before = [], 0, None
    for lag, ratio, motion, _ in told.iter_rows():
        if lag < following:
            continue
        word = f" {motion}" if motion != before else ""
        parts.append(f"{numbers.humanised(lag)}: {numbers.ratio(ratio)}{word}")
        following, before = 2 * lag, motion
    blind = table.filter(pl.col("saturated"))
    if not blind.is_empty():
        first = blind.item(0, "lag_steps")
        parts.append(f"saturated from {numbers.humanised(first)} on: too long to tell")
    return " · ".join(parts)
