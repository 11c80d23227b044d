"""smdlens against the per-update truth of real runs: the accuracy that docs/theory.md promises."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from real_runs import run_folder
from run_specs import RUNS, RunSpec
from scoring import AFTER_JUMP, FIRST, JUMP, ORDINARY, score
from truth_log import Truth

import smdlens

# Median and 95th percentile of |ratio - true ratio| over a run's ordinary intervals.
WITH_STATE = {
    "heavy_ball": (0.001, 0.01),
    "heavy_ball_scheduler": (0.001, 0.01),
    "heavy_ball_inside": (0.001, 0.01),
    "nesterov_cosine": (0.006, 0.03),
    "adamw": (0.006, 0.02),
    "plain_sgd": (0.0001, 0.0005),
    "warmup_cosine": (0.005, 0.02),
    "epsilon_leak": (0.005, 0.02),
}
FROM_WEIGHTS = {
    "heavy_ball": (0.005, 0.02),
    "heavy_ball_scheduler": (0.005, 0.02),
    "heavy_ball_inside": (0.005, 0.02),
    "nesterov_cosine": (0.0075, 0.03),
    # Rounding differs between processors, and training carries it on: every limit has to leave
    # room for the runs of another machine (here 0.055 to 0.063 on two).
    "adamw": (0.03, 0.08),
    "plain_sgd": (0.0001, 0.0005),
    "warmup_cosine": (0.005, 0.02),
    # A third of its decay is leak in the end, and norms alone cannot check that correction.
    "epsilon_leak": (0.005, 0.025),
}
# Relative error of the unit gradient where it is not the 1% asked of an exact law.
SQRT_H = {"nesterov_cosine": 0.02, "epsilon_leak": 0.02}
# With an interval that holds a jump of the rate or comes right after one.
NEAR_JUMPS = (0.01, 0.04)


def scores(run: RunSpec, folder: Path, source: str) -> dict[str, dict[str, float]]:
    """Scores by class of interval, of `source` ("state", "weights" or "bf16")."""
    declared = {}
    if source != "state":
        declared = {"optimizer": run.optimizer, "schedule": folder / "schedule.csv"}
        if run.optimizer == "sgd":
            declared |= {"momentum": run.momentum, "nesterov": run.nesterov}
    intervals = smdlens.analyze(folder / source, **declared).intervals
    table = score(Truth.load(folder / "truth.npz"), intervals, run.jumps)
    return {row["class"]: row for row in table.rows(named=True)}


def assert_within(row: dict[str, float], median: float, p95: float) -> None:
    assert row["missing"] == 0
    assert row["ratio_median"] <= median
    assert row["ratio_p95"] <= p95
    assert row["coverage"] >= 0.9


@pytest.mark.parametrize("name", WITH_STATE)
def test_with_optimizer_state(name: str) -> None:
    run, folder = RUNS[name], run_folder(name)
    found = scores(run, folder, "state")
    assert_within(found[ORDINARY], *WITH_STATE[name])
    for kind, row in found.items():
        if row["last_step_p95"] is not None and kind != FIRST:
            assert row["last_step_p95"] <= 1e-4
    if run.optimizer == "sgd":
        assert found[ORDINARY]["sqrt_h_median"] <= SQRT_H.get(name, 0.0105)


@pytest.mark.parametrize("name", FROM_WEIGHTS)
def test_from_weights_and_schedule(name: str) -> None:
    run, folder = RUNS[name], run_folder(name)
    found = scores(run, folder, "weights")
    assert_within(found[ORDINARY], *FROM_WEIGHTS[name])
    for kind in (JUMP, AFTER_JUMP):
        if kind in found and run.optimizer == "sgd":
            assert_within(found[kind], *NEAR_JUMPS)


@pytest.mark.parametrize("name", ["heavy_ball", "heavy_ball_inside", "plain_sgd", "adamw"])
def test_from_bfloat16_weights(name: str) -> None:
    """Norms barely suffer from rounding: the median is that of float32, the tail wider."""
    run, folder = RUNS[name], run_folder(name)
    row = scores(run, folder, "bf16")[ORDINARY]
    median, p95 = FROM_WEIGHTS[name]
    assert row["ratio_median"] <= max(median, 0.0005)
    assert row["ratio_p95"] <= max(p95, 0.01)


def test_sample_run_says_what_its_readme_says() -> None:
    sample = Path(__file__).parents[2] / "sample_checkpoints"
    report = smdlens.analyze(sample)
    truth = pl.read_csv(sample / "truth.csv").with_columns(
        true=pl.col("rms_one_step_angle_rad") / pl.col("expected_one_step_angle_rad")
    )
    joined = report.intervals.join(truth, on=["tensor", "step_from", "step_to"])
    assert joined.height == truth.height
    later = joined.filter(pl.col("step_from") > 0)
    off = (later["ratio"] - later["true"]).abs()
    assert off.median() <= 0.001
    assert off.quantile(0.95, "linear") <= 0.01
    exact = (joined["last_step_angle_rad"] / joined["last_one_step_angle_rad"] - 1.0).abs()
    assert exact.max() <= 1e-4
    states = report.diagnosis.stage_tensors.join(truth.select("tensor").unique(), on="tensor")
    by_stage = dict(states.group_by("stage").agg(pl.col("state").unique()).sort("stage").rows())
    assert list(by_stage.values()) == [
        ["equilibrium"],
        ["equilibrium"],
        ["approaching_from_below"],
    ]
