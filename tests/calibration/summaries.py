"""From rows per interval and per state to the counts that docs/calibration.md shows."""

from __future__ import annotations

from typing import Any

import polars as pl

# Ways to cut the intervals into classes.
CLASSES = ("gap", "dtype", "schedule", "state")


def coverage_counts(rows: pl.DataFrame) -> dict[str, Any]:
    """Covered and counted intervals per optimizer and per class within it.

    Neighbouring intervals share an end and its error, so every second one is counted.
    """
    measured = rows.filter((pl.col("interval") % 2 == 1) & pl.col("one_step_low").is_not_null())
    out: dict[str, Any] = {"missing": rows["one_step_low"].null_count()}
    for (optimizer,), own in measured.group_by("optimizer", maintain_order=True):
        out[str(optimizer)] = {"all": _count(own)} | {
            name: {
                str(key): _count(part)
                for (key,), part in sorted(own.group_by(name), key=lambda item: item[0])
            }
            for name in CLASSES
        }
    return out


def _count(rows: pl.DataFrame) -> list[float]:
    """Intervals, covered ones, missed below and above, median relative half-width of q."""
    width = (pl.col("one_step_high") ** 2 - pl.col("one_step_low") ** 2) / (2 * pl.col("true") ** 2)
    return [
        rows.height,
        int(rows["inside"].sum()),
        int((rows["true"] < rows["one_step_low"]).sum()),
        int((rows["true"] > rows["one_step_high"]).sum()),
        round(float(rows.select(width.median()).item()), 5),
    ]


def state_counts(rows: pl.DataFrame) -> dict[str, Any]:
    """Tensors, wrong and undetermined ones: per optimizer and source, and per kind."""

    def count(*by: str) -> dict[str, list[int]]:
        return {
            " | ".join(str(part) for part in key): [
                part.height, int(part["wrong"].sum()), int(part["undetermined"].sum())
            ]
            for key, part in sorted(rows.group_by(*by), key=lambda item: str(item[0]))
        }  # fmt: skip

    sourced = rows.with_columns(
        pl.when(pl.col("saved")).then(pl.lit("state")).otherwise(pl.lit("weights")).alias("source")
    )
    rows = sourced
    return {
        "by_optimizer": count("optimizer", "source"),
        "by_kind": count("family", "kind"),
        "by_gap": count("gap"),
        "wrong": {
            f"{right} called {state}": number
            for right, state, number in rows.filter(pl.col("wrong"))
            .group_by("right", "state")
            .len()
            .sort("len", "right", "state", descending=[True, False, False])
            .rows()
        },
    }


def undecidable_counts(rows: pl.DataFrame) -> dict[str, list[int]]:
    """Tensors and decided ones per case."""
    return {
        str(key): [part.height, int(part["decided"].sum())]
        for (key,), part in sorted(rows.group_by("case"), key=lambda item: str(item[0]))
    }
