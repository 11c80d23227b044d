"""Adam with L2 decay against simulations whose equilibrium is known."""

from __future__ import annotations

import numpy as np
import pytest
from diagnosis_helpers import Part, Rule, analyze, intervals, simulate, stage_row, write

from smdlens.theory.equilibrium import angular_update_adam_l2, norm_adam_l2

LR, DECAY, SIZE, TOTAL, GAP = 1e-3, 2e-3, 4096, 2400, 100
START = {"below": 1.6, "at": 1.0, "above": 0.6}
RATIOS = {"below": 1.0, "at": 1.0, "above": 3.0}


def parts():
    """Three tensors of their own unit gradients, off their equilibrium norms by known factors."""
    made = {}
    for name, factor in START.items():
        unit = RATIOS[name]
        norm = float(norm_adam_l2(LR, DECAY, SIZE, unit)) * factor
        made[name] = Part(norm=norm, gradient=lambda t, unit=unit: unit)
    return made


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """By the spread of the entries' gradients: a run and its folder."""
    made = {}
    for spread in (0.0, 0.5):
        run = simulate(
            Rule("adam"), lambda t: LR, DECAY, parts(),
            total=TOTAL, gap=GAP, size=SIZE, seed=3, spread=spread,
        )  # fmt: skip
        made[spread] = run, write(run, tmp_path_factory.mktemp("l2") / "run")
    return made


def true_q(run, name):
    """Squared ratio of every interval to the equilibrium that the gradient has by theory."""
    equilibrium = angular_update_adam_l2(LR, DECAY, 0.9, SIZE, RATIOS[name])
    return (run.rms_angle(name) / float(equilibrium)) ** 2


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_angles_are_those_of_every_update(runs, spread):
    run, folder = runs[spread]
    report = analyze(folder)
    for name in START:
        got = intervals(report, name)["one_step_angle_rad"].to_numpy()
        np.testing.assert_allclose(got[2:], run.rms_angle(name)[2:], rtol=0.015 if spread else 0.01)


def test_ratios_are_those_of_the_equilibrium_that_theory_has(runs):
    """Even entries: the equilibrium is known in closed form, and intervals cover the truth."""
    run, folder = runs[0.0]
    report = analyze(folder)
    covered = []
    for name in START:
        frame = intervals(report, name)
        expected = frame["expected_one_step_angle_rad"].to_numpy()
        low, high = (
            (frame[f"one_step_{end}"].to_numpy() / expected) ** 2 for end in ("low", "high")
        )
        true = true_q(run, name)
        covered += list(((low <= true) & (true <= high))[2:])
        np.testing.assert_allclose(frame["ratio"].to_numpy()[2:] ** 2, true[2:], rtol=0.12)
    assert np.mean(covered) > 0.9


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_states_on_the_way(runs, spread):
    """After 600 updates, half a relaxation time, nobody has arrived who was not there."""
    _, folder = runs[spread]
    report = analyze(folder, steps=f":{6 * GAP}")
    assert stage_row(report, "below", 1)["state"] == "approaching_from_below"
    assert stage_row(report, "above", 1)["state"] == "approaching_from_above"
    assert stage_row(report, "at", 1)["state"] == "equilibrium"


def test_without_moments_no_state_is_given(runs, tmp_path):
    run, _ = runs[0.0]
    folder = write(run, tmp_path / "weights", state=False)
    report = analyze(folder, optimizer="adam", lr=LR, weight_decay=DECAY)
    for name in START:
        row = stage_row(report, name, 1)
        assert row["state"] == "undetermined"
        assert "optimizer state" in row["reason"]
