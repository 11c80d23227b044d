"""The oracles themselves: the truth logs, the scores and the reference estimator."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from real_runs import run_folder
from reference_estimator import Options, estimate
from run_specs import RUNS
from scoring import AFTER_JUMP, FIRST, JUMP, ORDINARY, classified, score
from truth_log import Truth

SAMPLE = Path(__file__).parents[2] / "sample_checkpoints"


def exact_angle(u: torch.Tensor, v: torch.Tensor) -> float:
    u, v = u / u.norm(), v / v.norm()
    return 2.0 * math.atan2(float((u - v).norm()), float((u + v).norm()))


@pytest.mark.parametrize("name", ["heavy_ball", "heavy_ball_scheduler"])
def test_logged_last_angle_is_the_one_the_buffer_gives(name: str) -> None:
    run, folder = RUNS[name], run_folder(name)
    truth = Truth.load(folder / "truth.npz")
    for i, step in enumerate(truth.steps[1:].tolist()):
        raw = torch.load(folder / "state" / f"ckpt_{step}.pt", weights_only=True)
        w = raw["model"][str(truth.tensors[0])].double()
        buffer = raw["optimizer"]["state"][0]["momentum_buffer"].double()
        angle = exact_angle(w + run.lr(step - 1) * buffer, w)
        assert angle == pytest.approx(truth.last_angle[0, i], rel=1e-4)


def test_sample_truth_is_the_one_its_buffers_give() -> None:
    with (SAMPLE / "truth.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["tensor"] == "block2.conv1.weight"]
    assert len(rows) == 33
    for row in rows:
        raw = torch.load(SAMPLE / f"ckpt_{row['step_to']}.pt", weights_only=True)
        w = raw["model"]["block2.conv1.weight"].double()
        (buffer,) = (
            state["momentum_buffer"].double()
            for state in raw["optimizer"]["state"].values()
            if state["momentum_buffer"].shape == w.shape
        )
        lr = raw["optimizer"]["param_groups"][0]["lr"]
        assert lr == float(row["lr"])
        assert exact_angle(w + lr * buffer, w) == pytest.approx(
            float(row["last_one_step_angle_rad"]), rel=1e-4
        )


def test_stored_precisions_hold_the_same_run() -> None:
    from safetensors.torch import load_file

    folder = run_folder("adamw")
    state = torch.load(folder / "state" / "ckpt_1750.pt", weights_only=True)["model"]
    full = load_file(folder / "weights" / "model-step1750.safetensors")
    rounded = load_file(folder / "bf16" / "model-step1750.safetensors")
    assert state.keys() == full.keys() == rounded.keys()
    for name, tensor in state.items():
        assert torch.equal(tensor, full[name])
        if tensor.is_floating_point():
            assert torch.equal(tensor.bfloat16(), rounded[name])


def test_intervals_are_told_apart_by_where_jumps_lie() -> None:
    table = pl.DataFrame(
        {"step_from": [0, 10, 20, 30, 40, 50], "step_to": [10, 20, 30, 40, 50, 60]}
    )
    found = classified(table, jumps=(15, 40))["class"].to_list()
    assert found == [FIRST, JUMP, AFTER_JUMP, ORDINARY, AFTER_JUMP, ORDINARY]


def test_score_reports_the_errors_put_in() -> None:
    ones = np.ones((1, 3))
    truth = Truth(
        np.array(["w"]), np.array([0, 10, 20, 30]), 0.1 * ones, 0.2 * ones, 3 * ones, 4 * ones, ones
    )
    table = pl.DataFrame(
        {
            "tensor": ["w"] * 3,
            "step_from": [0, 10, 20],
            "step_to": [10, 20, 30],
            "expected_one_step_angle_rad": [0.2] * 3,
            "ratio": [9.0, 0.51, 0.53],
            "one_step_low": [0.0, 0.09, 0.104],
            "one_step_high": [1.0, 0.11, 0.108],
            "last_step_angle_rad": [0.2, 0.202, 0.202],
            "unit_gradient_rms": [3.0, 3.3, 3.3],
        }
    )
    row = score(truth, table).filter(pl.col("class") == ORDINARY).row(0, named=True)
    assert row["intervals"] == 2
    assert row["ratio_median"] == pytest.approx(0.02)
    assert row["ratio_p95"] == pytest.approx(0.029)
    assert row["relative_median"] == pytest.approx(0.04)
    assert row["coverage"] == pytest.approx(0.5)
    assert row["last_step_p95"] == pytest.approx(0.01)
    assert row["unit_gradient_median"] == pytest.approx(0.1)
    assert row["sqrt_h_median"] == pytest.approx(0.175)


@pytest.mark.parametrize(
    ("name", "options", "median", "p95"),
    [
        ("heavy_ball", Options(state=False), 0.005, 0.02),
        ("heavy_ball", Options(), 0.001, 0.01),
        ("adamw", Options(), 0.006, 0.02),
    ],
)
def test_reference_estimator_agrees_with_the_truth(
    name: str, options: Options, median: float, p95: float
) -> None:
    run, folder = RUNS[name], run_folder(name)
    truth = Truth.load(folder / "truth.npz")
    table = estimate(run, folder, truth.steps, truth.tensors.tolist(), options)
    row = score(truth, table, run.jumps).filter(pl.col("class") == ORDINARY).row(0, named=True)
    assert row["ratio_median"] < median
    assert row["ratio_p95"] < p95
