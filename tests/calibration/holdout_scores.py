"""Held-out real runs: error and coverage of the one-step angle per run and way of saving."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "oracles")]

import polars as pl  # noqa: E402
from holdout_runs import RUNS, HeldOut, folder_of  # noqa: E402
from scoring import FIRST, ORDINARY, classified, joined  # noqa: E402
from truth_log import Truth  # noqa: E402

import smdlens  # noqa: E402


def score(root: Path, names: Iterable[str] = tuple(RUNS)) -> pl.DataFrame:
    """One row per run and source: intervals, relative error of the angle, coverage."""
    rows = []
    for name in names:
        run, folder = RUNS[name], folder_of(name, root)
        for source in ("state", "weights"):
            table = intervals_of(run, folder, source)
            later = table.filter(pl.col("class") != FIRST)
            ordinary = table.filter(pl.col("class") == ORDINARY)
            off = (ordinary["one_step_angle_rad"] / ordinary["true_angle_rad"] - 1.0).abs()
            rows.append(
                {
                    "run": name,
                    "source": source,
                    "intervals": later.height,
                    "median_error": off.median(),
                    "p95_error": off.quantile(0.95, "linear"),
                    "coverage": later["inside"].mean(),
                    "ordinary": ordinary["inside"].mean(),
                    "width": ordinary["width"].median(),
                }
            )
    return pl.DataFrame(rows)


def intervals_of(run: HeldOut, folder: Path, source: str) -> pl.DataFrame:
    """Measured beside logged intervals, with `class`, `inside` and relative half-width `width`."""
    options: dict[str, Any] = {"schedule": folder / "schedule.csv"}
    if source == "weights":
        options |= {"optimizer": run.optimizer, "weight_decay": run.weight_decay}
        if run.optimizer == "sgd":
            options |= {"momentum": run.momentum, "nesterov": run.nesterov}
        else:
            options["betas"] = run.betas
    report = smdlens.analyze(
        folder / source, device="cpu", model=run.network, inputs=(run.example,), **options
    )
    table = classified(joined(Truth.load(folder / "truth.npz"), report.intervals), run.jumps)
    return table.with_columns(
        inside=pl.col("true_angle_rad").is_between("one_step_low", "one_step_high"),
        width=(pl.col("one_step_high") - pl.col("one_step_low"))
        / (2.0 * pl.col("one_step_angle_rad")),
    )


if __name__ == "__main__":
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=160, fmt_str_lengths=40):
        print(score(Path(sys.argv[1])))
