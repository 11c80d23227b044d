"""Tensors worst first: one row each, from the stage in which it fares worst."""

from __future__ import annotations

import polars as pl

from smdlens.diagnosis.records import Diagnosis
from smdlens.report.summary import invariant_rows
from smdlens.vocabulary import NOT_HELD_STATES, State


def worst_tensors(diagnosis: Diagnosis) -> pl.DataFrame:
    """Rows of the stage table, one per scale-invariant tensor.

    Those out of equilibrium first, then undetermined ones, then the rest; within each by the
    distance |ln ratio| from 1.
    """
    not_held = [s.value for s in NOT_HELD_STATES]
    severity = (
        pl.when(pl.col("state").is_in(not_held))
        .then(0)
        .when(pl.col("state") == State.UNDETERMINED.value)
        .then(1)
        .otherwise(2)
    )
    positive = pl.when(pl.col("ratio") > 0).then(pl.col("ratio"))
    return (
        invariant_rows(diagnosis)
        .with_columns(
            severity.alias("severity"),
            positive.log().abs().fill_nan(None).fill_null(0.0).alias("distance"),
        )
        .sort(
            ["severity", "distance", "stage"],
            descending=[False, True, True],
            maintain_order=True,
        )
        .unique("tensor", keep="first", maintain_order=True)
    )
