"""Iterations to the next equilibrium against what real runs logged after their cuts."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from real_runs import run_folder
from run_specs import RUNS
from scoring import joined
from truth_log import Truth

import smdlens


def test_iterations_to_tolerance_where_the_unit_gradient_held_still() -> None:
    """Within 25% of the logged first arrival."""
    compared = 0
    for name in ("heavy_ball", "heavy_ball_inside", "epsilon_leak", "plain_sgd"):
        assert RUNS[name].jumps
        folder = run_folder(name)
        report = smdlens.analyze(folder / "state", device="cpu")
        rows = joined(Truth.load(folder / "truth.npz"), report.intervals)
        found = report.to_dict()
        for decay in found["decays"]:
            stage = next(s for s in found["stages"] if s["step_from"] == decay["step"])
            for entry in decay["tensors"]:
                logged = _arrival(rows.filter(pl.col("tensor") == entry["tensor"]), stage)
                if logged is not None:
                    compared += 1
                    assert entry["iterations_to_tolerance"] == pytest.approx(logged, rel=0.25)
    assert compared >= 3


def _arrival(rows: pl.DataFrame, stage: dict[str, Any]) -> float | None:
    """First logged arrival within 10%, if the unit gradient held within 10% over the stage."""
    own = rows.filter(
        (pl.col("step_from") >= stage["step_from"]) & (pl.col("step_to") <= stage["step_to"])
    ).sort("step_from")
    third = max(1, own.height // 3)
    gradient = own["true_sqrt_h"].to_numpy()
    if own.height < 3 or abs(gradient[-third:].mean() / gradient[:third].mean() - 1.0) > 0.1:
        return None
    middle = ((own["step_from"] + own["step_to"]) / 2).to_numpy() - stage["step_from"]
    ratio = own["true_ratio"].to_numpy()
    arrived = np.flatnonzero(ratio >= 0.9)
    if len(arrived) == 0 or arrived[0] == 0:
        return None
    i = int(arrived[0])
    share = (0.9 - ratio[i - 1]) / (ratio[i] - ratio[i - 1])
    return float(middle[i - 1] + share * (middle[i] - middle[i - 1]))
