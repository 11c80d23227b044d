"""Adam with L2 decay against simulations whose equilibrium is known."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diagnosis_helpers import Part, Rule, analyze, intervals, simulate, stage_row, write
from torch.nn import functional as F

from smdlens.theory.equilibrium import angular_update_adam_l2, norm_adam_l2

sys.path.insert(0, str(Path(__file__).parents[1] / "oracles"))
from digits_networks import DigitsNet, noisy_batches

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
        np.testing.assert_allclose(frame["ratio"].to_numpy()[2:] ** 2, true[2:], rtol=0.02)
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


def followed(folder, run, name, stage):
    """Relaxed over expected angle, and the true angle over expected, in a stage's intervals."""
    frame = intervals(analyze(folder), name).filter(stage=stage)
    expected = frame["expected_one_step_angle_rad"].to_numpy()
    first = run.steps.index(int(frame["step_from"][0]))
    true = run.rms_angle(name)[first : first + frame.height]
    return frame["relaxed_one_step_angle_rad"].to_numpy() / expected, true / expected


def test_a_cosine_is_lagged_behind_as_the_law_says(tmp_path):
    """Equilibrium moves away faster than norms follow; the law of the lag says where they are."""
    total = 3000

    def rate(t):
        return 0.5 * LR * (1.0 + np.cos(np.pi * t / total))

    run = simulate(Rule("adam"), rate, DECAY, parts(), total=total, gap=GAP, size=SIZE, seed=4)
    folder = write(run, tmp_path / "run", next_rate=True)
    report = analyze(folder)
    for name in START:
        law, true = followed(folder, run, name, 1)
        np.testing.assert_allclose(law[3:-3], true[3:-3], rtol=0.05)
    assert stage_row(report, "at", 1)["state"] == "lagging"


def test_the_law_after_a_cut(tmp_path):
    cut = 1200
    run = simulate(
        Rule("adam"), lambda t: LR if t < cut else LR / 5.0, DECAY, parts(),
        total=3000, gap=GAP, size=SIZE, seed=5,
    )  # fmt: skip
    folder = write(run, tmp_path / "run", next_rate=True)
    for name in START:
        law, true = followed(folder, run, name, 2)
        np.testing.assert_allclose(law, true, rtol=0.03)
        assert stage_row(analyze(folder), name, 2)["state"] == "approaching_from_below"


def test_a_real_network(tmp_path):
    """Angles of every update logged while digits are learned: the measured ones are theirs."""
    (tmp_path / "run").mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DigitsNet((8, 12, 16), residual=False)
        named = dict(model.named_parameters())
        groups = [
            {"params": [p for p in named.values() if p.ndim > 1], "weight_decay": 3e-3},
            {"params": [p for p in named.values() if p.ndim == 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.Adam(groups, lr=3e-3)
        weights = {name: p for name, p in named.items() if p.ndim == 4}
        turned = {name: [] for name in weights}
        batches = noisy_batches(32, 0)
        for step in range(901):
            if step % GAP == 0:
                content = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save({**content, "step": step}, tmp_path / "run" / f"ckpt_{step}.pt")
            images, labels = next(batches)
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels, label_smoothing=0.1).backward()
            before = {name: p.detach().double().flatten() for name, p in weights.items()}
            optimizer.step()
            for name, p in weights.items():
                a, b = before[name], p.detach().double().flatten()
                turned[name].append(float(2.0 - 2.0 * (a @ b) / (a.norm() * b.norm())))
    report = analyze(tmp_path / "run")
    for name, turns in turned.items():
        rows = report.intervals.filter(tensor=name)
        true = np.sqrt(np.reshape(turns[:900], (9, GAP)).mean(axis=1))
        got = rows["one_step_angle_rad"].to_numpy()
        assert np.median(np.abs(got / true - 1.0)[2:]) < 0.015
        # Which way the norm goes is what the ratio says.
        ratio, growth = rows["ratio"].to_numpy(), np.diff(np.log(rows["norm_to"].to_numpy()))
        clear = np.abs(ratio[1:] - 1.0) > 0.15
        assert (np.sign(ratio[1:] - 1.0) == np.sign(growth))[clear].all()
