"""How far a table of measured intervals lies from the per-update truth of the run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from truth_log import Truth

ORDINARY, JUMP, AFTER_JUMP, FIRST = "ordinary", "holds a jump", "after a jump", "first"


def joined(truth: Truth, intervals: pl.DataFrame) -> pl.DataFrame:
    """Measured intervals beside the truth: the columns of both, true ones prefixed `true_`.

    Intervals that the table does not have are left out; compare heights to notice.
    """
    count, number = truth.rms_angle.shape
    columns = {
        "tensor": np.repeat(truth.tensors, number).tolist(),
        "step_from": np.tile(truth.steps[:-1], count),
        "step_to": np.tile(truth.steps[1:], count),
        "true_angle_rad": truth.rms_angle.ravel(),
        "true_last_angle_rad": truth.last_angle.ravel(),
        "true_unit_gradient": truth.unit_gradient.ravel(),
        "true_sqrt_h": truth.sqrt_h.ravel(),
        "true_kappa": truth.kappa.ravel(),
    }
    table = pl.DataFrame(columns).join(intervals, on=["tensor", "step_from", "step_to"])
    return table.with_columns(
        true_ratio=pl.col("true_angle_rad") / pl.col("expected_one_step_angle_rad")
    )


def classified(table: pl.DataFrame, jumps: Sequence[int]) -> pl.DataFrame:
    """Adds `class`: ordinary, holds a jump, after a jump (right behind one), or first (from 0).

    Args:
        table: Has `step_from` and `step_to`.
        jumps: First updates at a new rate.
    """
    spans = table.select("step_from", "step_to").unique().rows()
    holds = {(a, b) for a, b in spans if any(a < jump < b for jump in jumps)}
    behind = {b for _, b in holds} | set(jumps)

    def name(span: tuple[int, int]) -> str:
        if span[0] == 0:
            return FIRST
        if span in holds:
            return JUMP
        return AFTER_JUMP if span[0] in behind else ORDINARY

    spans_of = table.select("step_from", "step_to").rows()
    return table.with_columns(pl.Series("class", [name(span) for span in spans_of]))


def score(truth: Truth, intervals: pl.DataFrame, jumps: Sequence[int] = ()) -> pl.DataFrame:
    """Errors per class of interval.

    Args:
        truth: What happened.
        intervals: A table with the columns of smdlens' interval table; it may lack the optional
            ones (`one_step_low`, `one_step_high`, `last_step_angle_rad`, `unit_gradient_rms`).
        jumps: First updates at a new rate.

    Returns:
        One row per class: `intervals` (how many), `missing` (no ratio measured), median, 95th
        percentile and mean sign of |ratio - true ratio| as `ratio_median`, `ratio_p95`,
        `ratio_bias`, relative ones as `relative_median`, `relative_p95`; `coverage` of
        [one_step_low, one_step_high] in radians; `last_step_p95`, relative;
        `unit_gradient_median`, relative, against the RMS of |g| |w|, and `sqrt_h_median`.
    """
    table = classified(joined(truth, intervals), jumps)
    for optional in ("one_step_low", "one_step_high", "last_step_angle_rad", "unit_gradient_rms"):
        if optional not in table.columns:
            table = table.with_columns(pl.lit(None, pl.Float64).alias(optional))
    off = pl.col("ratio") - pl.col("true_ratio")
    inside = pl.col("true_angle_rad").is_between("one_step_low", "one_step_high")
    relative = off / pl.col("true_ratio")

    def beside(measured: str, true: str) -> pl.Expr:
        return (pl.col(measured) / pl.col(true) - 1.0).abs()

    last = beside("last_step_angle_rad", "true_last_angle_rad")
    return (
        table.group_by("class")
        .agg(
            intervals=pl.len(),
            missing=pl.col("ratio").is_null().sum(),
            ratio_median=off.abs().median(),
            ratio_p95=off.abs().quantile(0.95, "linear"),
            ratio_bias=off.mean(),
            relative_median=relative.abs().median(),
            relative_p95=relative.abs().quantile(0.95, "linear"),
            coverage=inside.mean(),
            last_step_p95=last.quantile(0.95, "linear"),
            unit_gradient_median=beside("unit_gradient_rms", "true_unit_gradient").median(),
            sqrt_h_median=beside("unit_gradient_rms", "true_sqrt_h").median(),
        )
        .sort("class")
    )
