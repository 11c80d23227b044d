"""The angle by lag beside a random walk, on simulated runs whose motion is known."""

from __future__ import annotations

import dataclasses
import json

import jsonschema
import numpy as np
import polars as pl
import pytest
from diagnosis_helpers import Part, Rule, analyze, simulate, stepwise, write

from smdlens.diagnosis.lag_curve import _binned
from smdlens.diagnosis.records import LAG_SCHEMA
from smdlens.theory.moments import heavy_ball
from smdlens.theory.random_walk import random_walk_correlation

# theta^2 = 2 lr decay n / (1 - a): 1 - rho_n is 0.02 n at the high rate, 0.002 n at the low one.
LR, DECAY, MOMENTUM = 0.5, 0.002, 0.9
CUT, TOTAL, GAP = 2000, 4000, 10


@pytest.fixture(scope="module")
def run():
    # The norm of the equilibrium: |w|^4 = lr / (2 decay (1 - a)), nearly.
    norm = (LR / (2 * DECAY * (1 - MOMENTUM))) ** 0.25
    return simulate(
        Rule(momentum=MOMENTUM),
        stepwise((0, LR), (CUT, LR / 10)),
        DECAY,
        {"w": Part(norm=norm)},
        total=TOTAL,
        gap=GAP,
        size=4000,
        saves=range(1000, TOTAL + 1, GAP),
    )


def lags(run, folder, **options):
    write(run, folder)
    return analyze(folder, all_pairs=True, **options).diagnosis.lags


def test_a_random_walk_is_diffusive_until_it_has_forgotten(run, tmp_path) -> None:
    table = lags(run, tmp_path)
    assert dict(table.schema) == LAG_SCHEMA
    first = table.filter(pl.col("stage") == 1)
    assert first.height >= 10
    rule = heavy_ball(MOMENTUM)
    for row in first.to_dicts():
        rho = random_walk_correlation(row["lag_steps"], rule, LR, DECAY)
        assert np.cos(row["angle_random_walk_rad"]) == pytest.approx(rho, abs=1e-9)
        assert row["saturated"] is bool(rho < 0.05)
        assert row["motion"] == (None if rho < 0.05 else "diffusive")
        assert row["angle_min_rad"] <= row["angle_rad"] <= row["angle_max_rad"]
        if rho > 0.3:
            assert row["angle_rad"] == pytest.approx(np.arccos(rho), rel=0.05)
            assert row["ratio_to_walk"] == pytest.approx(1.0, abs=0.05)
    assert first["saturated"].any()
    assert not first["saturated"].all()


def test_every_pair_within_a_stage_counts_once_and_none_across_a_cut(run, tmp_path) -> None:
    report_steps = np.array(run.steps)
    table = lags(run, tmp_path)
    taken = report_steps[(len(report_steps) - 1) % 5 :: 5]  # 301 snapshots, every fifth
    for stage, (low, high) in {1: (1000, CUT), 2: (CUT, TOTAL)}.items():
        own = taken[(taken >= low) & (taken <= high)]
        gaps = (own[None, :] - own[:, None])[np.triu_indices(len(own), 1)]
        expected = dict(zip(*np.unique(gaps, return_counts=True), strict=True))
        part = table.filter(pl.col("stage") == stage)
        assert dict(part.select("lag_steps", "pairs").rows()) == expected


@pytest.mark.parametrize(("speed", "label"), [(0.25, "confined"), (4.0, "directed")])
def test_what_moves_otherwise_is_said(run, tmp_path, speed, label) -> None:
    """Weights that turn in a plane by a fixed multiple of the walk's angle at 50 updates."""
    walk = np.arccos(random_walk_correlation(50, heavy_ball(MOMENTUM), LR / 10, DECAY))
    steps = [s for s in run.steps if s >= CUT][::5][:4]
    turns = [speed * walk * k for k in range(4)] if label == "directed" else [0, speed * walk] * 2
    x, y = np.zeros(4000), np.zeros(4000)
    x[0], y[1] = 1.0, 1.0
    weights = {"w": [np.cos(t) * x + np.sin(t) * y + 1e-12 for t in turns]}
    moved = dataclasses.replace(run, steps=steps, weights=weights)
    write(moved, tmp_path)
    table = analyze(tmp_path, all_pairs=True).diagnosis.lags
    near = table.filter(pl.col("lag_steps") == 50).row(0, named=True)
    assert near["motion"] == label
    assert near["ratio_to_walk"] == pytest.approx(speed, rel=1e-3)


def test_a_few_weights_tell_the_same_without_being_asked(run, tmp_path) -> None:
    """Lags doubling, from 128 of the 4000 weights, held against the law they were made by."""
    write(run, tmp_path)
    diagnosis = analyze(tmp_path).diagnosis
    assert not diagnosis.lags_of_all_weights
    first = diagnosis.lags.filter(pl.col("stage") == 1)
    assert first["lag_steps"].to_list() == [GAP * 2**k for k in range(7)]
    for row in first.to_dicts():
        rho = random_walk_correlation(row["lag_steps"], heavy_ball(MOMENTUM), LR, DECAY)
        if rho > 0.3:
            assert row["angle_rad"] == pytest.approx(np.arccos(rho), rel=0.1)
        assert row["motion"] == (None if rho < 0.05 else "diffusive")


def test_the_json_has_them_and_fits_the_schema(run, tmp_path) -> None:
    from importlib.resources import files

    write(run, tmp_path)
    with_lags = analyze(tmp_path, all_pairs=True).to_dict()
    without = analyze(tmp_path).to_dict()
    schema = json.loads((files("smdlens.report") / "schema.json").read_text())
    jsonschema.validate(with_lags, schema)
    jsonschema.validate(without, schema)
    assert (with_lags["lags_of_all_weights"], without["lags_of_all_weights"]) == (True, False)
    assert len(with_lags["lags"]) > len(without["lags"]) > 10
    assert with_lags["command"][-1] == "--all-pairs"
    assert len(with_lags["lags"]) > 20
    with_lags["lags"][0]["motion"] = "ballistic"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(with_lags, schema)


def test_many_lags_are_binned_to_at_most_64_each_by_one_of_its_own() -> None:
    lags = np.arange(1, 2000)
    binned = _binned(lags)
    assert len(np.unique(binned)) <= 64
    assert set(binned) <= set(lags)
    assert (np.diff(binned) >= 0).all()
    assert np.abs(np.log(binned / lags)).max() < np.log(2000) / 40
    assert _binned(np.arange(1, 64) * 7).tolist() == list(np.arange(1, 64) * 7)
