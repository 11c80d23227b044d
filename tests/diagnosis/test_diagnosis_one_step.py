"""One-step angles, unit gradients and their intervals against what every update of a run did."""

import numpy as np
import pytest
import torch
from diagnosis_helpers import Part, Rule, analyze, intervals, simulate, stage_row, stepwise, write

TOTAL, GAP = 3600, 200
CUT = stepwise((0, 0.1), (2000, 0.02))
PARTS = {"light": Part(), "heavy": Part(norm=6.0, gradient=lambda t: 2.0)}

# What each rule costs at most, relative to the truth: median and largest, ordinary intervals.
SGD_FAMILY = {
    "heavy ball": (Rule(), 0.002, 0.006),
    "plain": (Rule(momentum=0.0), 1e-4, 5e-4),
    "dampened": (Rule(dampening=0.5), 0.002, 0.01),
    # Real gradients lean against the buffer a little, these do not: the correction for it is 1.2%.
    "nesterov": (Rule(nesterov=True), 0.014, 0.02),
}


@pytest.fixture(scope="module")
def sgd(tmp_path_factory):
    """Per rule: the simulation and its folders with and without optimizer state."""
    made = {}
    for seed, (name, (rule, *_)) in enumerate(SGD_FAMILY.items()):
        folder = tmp_path_factory.mktemp("runs") / name.replace(" ", "_")
        decay = 2e-4 if rule.momentum == 0.0 else 2e-3
        rate = CUT if rule.momentum else lambda t: 10 * CUT(t)
        run = simulate(rule, rate, decay, PARTS, total=TOTAL, gap=GAP, seed=seed)
        made[name] = run, write(run, folder / "state"), write(run, folder / "w", state=False)
    return made


def errors(report, run, name):
    measured = intervals(report, name).get_column("one_step_angle_rad").to_numpy()
    return np.abs(measured / run.rms_angle(name) - 1)


@pytest.mark.parametrize("state", [True, False], ids=["with state", "weights alone"])
@pytest.mark.parametrize("name", SGD_FAMILY)
def test_sgd_family_against_every_update(sgd, name, state):
    run, with_state, weights = sgd[name]
    rule, median, largest = SGD_FAMILY[name]
    (weights.parent / "lr.csv").write_text(f"step,lr\n0,{run.lr(0)}\n2000,{run.lr(2000)}\n")
    declared = {
        "momentum": rule.momentum, "dampening": rule.dampening, "nesterov": rule.nesterov,
        "weight_decay": run.decay, "schedule": weights.parent / "lr.csv",
    }  # fmt: skip
    report = analyze(with_state) if state else analyze(weights, **declared)
    found = np.concatenate([errors(report, run, part)[1:] for part in PARTS])
    assert np.median(found) < median
    assert found.max() < largest
    if state and name in ("heavy ball", "dampened"):
        # The boundary terms are in the files: nothing is left to estimate.
        assert found.max() < 1e-4
        methods = set(intervals(report, "light").get_column("one_step_method"))
        assert methods == {"optimizer_state"}
    if not state:
        methods = set(intervals(report, "light").get_column("one_step_method"))
        assert methods == {"norm_balance"}


@pytest.mark.parametrize("name", SGD_FAMILY)
def test_the_stated_interval_holds_the_truth(sgd, name):
    """The 95% intervals of whole stages and of single intervals."""
    run, folder, _ = sgd[name]
    report = analyze(folder)
    inside = []
    for part in PARTS:
        frame = intervals(report, part)
        true = run.rms_angle(part)
        low, high = (frame.get_column(f"one_step_{end}").to_numpy() for end in ("low", "high"))
        inside.append((low <= true) & (true <= high))
        at = run.names.index(part)
        # The last third, from the middle of the first interval or inside it.
        for stage, start, end in ((1, 1400, 2000), (2, 3066, TOTAL)):
            expected = frame.filter(step_to=end)["expected_one_step_angle_rad"].item()
            truth = np.sqrt(run.turn2[start:end, at].mean()) / expected
            row = stage_row(report, part, stage)
            assert row["ratio_low"] <= truth <= row["ratio_high"]
    assert np.mean(inside) >= 0.9


def test_the_last_angle_is_that_of_the_last_update(sgd):
    run, folder, _ = sgd["heavy ball"]
    report = analyze(folder)
    for part in PARTS:
        found = intervals(report, part).get_column("last_step_angle_rad").to_numpy()
        true = 2 * np.arcsin(run.last_angle(part) / 2)
        np.testing.assert_allclose(found, true, rtol=1e-5)


def test_nesterov_hides_its_last_step(sgd):
    _, folder, _ = sgd["nesterov"]
    found = intervals(analyze(folder), "light").get_column("last_step_angle_rad")
    assert found.null_count() == len(found)


@pytest.mark.parametrize("name", ["heavy ball", "plain"])
def test_the_unit_gradient(sgd, name):
    run, folder, _ = sgd[name]
    report = analyze(folder)
    for part in PARTS:
        found = intervals(report, part).get_column("unit_gradient_rms").to_numpy()
        np.testing.assert_allclose(found[1:], run.rms_gradient(part)[1:], rtol=0.03)
        assert np.median(np.abs(found / run.rms_gradient(part) - 1)) < 0.01


def test_expected_angles_are_theorem_3(sgd):
    _, folder, _ = sgd["heavy ball"]
    frame = intervals(analyze(folder), "light")
    for row in frame.iter_rows(named=True):
        lr = 0.1 if row["step_from"] < 2000 else 0.02
        expected = np.arccos(1 - lr * 2e-3 / 1.9)
        assert row["expected_one_step_angle_rad"] == pytest.approx(expected, rel=1e-4)
        assert expected == pytest.approx(np.sqrt(2 * lr * 2e-3 / 1.9), rel=1e-3)
        assert row["ratio"] == pytest.approx(row["one_step_angle_rad"] / expected, rel=1e-4)


def test_norms_and_angles_between_snapshots(sgd):
    run, folder, _ = sgd["heavy ball"]
    frame = intervals(analyze(folder), "heavy")
    w = np.array(run.weights["heavy"]).astype(np.float32).astype(np.float64)
    norms = np.linalg.norm(w, axis=1)
    np.testing.assert_allclose(frame.get_column("norm_from").to_numpy(), norms[:-1], rtol=1e-12)
    np.testing.assert_allclose(frame.get_column("norm_to").to_numpy(), norms[1:], rtol=1e-12)
    cosine = (w[1:] * w[:-1]).sum(axis=1) / norms[1:] / norms[:-1]
    found = frame.get_column("angle_rad").to_numpy()
    np.testing.assert_allclose(found, np.arccos(cosine), rtol=1e-9)
    floor = frame.get_column("angle_floor_rad").to_numpy()
    assert (floor < 1e-7).all() and (floor > 0).all()


def test_a_random_walk_turns_as_far_as_predicted(sgd):
    """Gradients here are white, so at equilibrium the prediction is the measurement."""
    _, folder, _ = sgd["heavy ball"]
    frame = intervals(analyze(folder), "light").filter(stage=1)
    measured = frame.get_column("angle_rad").to_numpy()[5:]
    predicted = frame.get_column("angle_random_walk_rad").to_numpy()[5:]
    np.testing.assert_allclose(measured, predicted, rtol=0.06)


ADAPTIVE = {
    "adamw": (Rule("adamw"), 0.02),
    "adam": (Rule("adam"), 0.03),
    "lion": (Rule("lion", betas=(0.9, 0.99)), 0.002),
}


# Rate, decay and starting norms.
SETTINGS = {
    "adamw": (4e-3, 1.0, (1.0, 2.0)),
    "adam": (4e-3, 5e-2, (3.0, 4.0)),
    "lion": (5e-4, 0.5, (3.3, 3.6)),
}


@pytest.fixture(scope="module")
def adaptive(tmp_path_factory):
    made = {}
    for seed, (name, (rule, _)) in enumerate(ADAPTIVE.items()):
        folder = tmp_path_factory.mktemp("runs") / name
        lr, decay, norms = SETTINGS[name]
        parts = {part: Part(norm=norm) for part, norm in zip(("light", "heavy"), norms)}
        run = simulate(rule, lambda t: lr, decay, parts, total=2400, gap=200, seed=10 + seed)
        made[name] = run, write(run, folder)
    return made


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_rules_against_every_update(adaptive, name):
    run, folder = adaptive[name]
    report = analyze(folder)
    assert report.hyper.optimizer.kind.value == name
    _, largest = ADAPTIVE[name]
    for part in ("light", "heavy"):
        found = errors(report, run, part)[1:]
        assert found.max() < largest and np.median(found) < largest / 2


@pytest.mark.parametrize("name", ["adamw", "adam"])
def test_adam_last_steps_are_exact(adaptive, name):
    run, folder = adaptive[name]
    found = intervals(analyze(folder), "light").get_column("last_step_angle_rad").to_numpy()
    np.testing.assert_allclose(found, 2 * np.arcsin(run.last_angle("light") / 2), rtol=1e-4)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_rules_reach_the_equilibrium_of_their_formula(adaptive, name):
    run, folder = adaptive[name]
    report = analyze(folder)
    for part in ("light", "heavy"):
        true = np.sqrt((run.rms_angle(part)[8:] ** 2).mean())
        expected = intervals(report, part).get_column("expected_one_step_angle_rad")[10]
        assert true == pytest.approx(expected, rel=0.06)
        row = stage_row(report, part, 1)
        assert row["ratio_low"] <= true / expected <= row["ratio_high"]
        assert row["state"] == "equilibrium"


def test_adamw_without_state_says_that_it_is_one_sided(adaptive, tmp_path):
    run, _ = adaptive["adamw"]
    folder = write(run, tmp_path / "w", state=False)
    report = analyze(folder, optimizer="adamw", lr=4e-3, weight_decay=1.0)
    frame = intervals(report, "light")
    assert all("one_sided" in flags for flags in frame.get_column("flags").to_list())
    assert errors_at(frame, run, "light")[1:].max() < 0.03
    ratio, low = frame.get_column("ratio").to_numpy(), frame.get_column("one_step_low").to_numpy()
    expected = frame.get_column("expected_one_step_angle_rad").to_numpy()
    assert (ratio**2 - (low / expected) ** 2 >= 0.1).all()


def errors_at(frame, run, name):
    true = run.rms_angle(name)[: frame.height]
    return np.abs(frame.get_column("one_step_angle_rad").to_numpy() / true - 1)


def test_sgdw_is_measured_when_declared(tmp_path):
    run = simulate(
        Rule("sgdw"), stepwise((0, 0.1)), 2e-2, {"a": Part(norm=2.0)}, total=2400, gap=200
    )
    report = analyze(write(run, tmp_path / "run"), optimizer="sgdw")
    assert errors(report, run, "a")[1:].max() < 0.01
    expected = intervals(report, "a").get_column("expected_one_step_angle_rad")[5]
    assert expected == pytest.approx(np.sqrt(2 * 0.1 * 2e-2 * 0.1 / 1.9), rel=0.01)
    assert stage_row(report, "a", 1)["state"] == "equilibrium"


def test_adjacent_snapshots_show_the_angle_itself(tmp_path):
    saves = [0, 400, 800, 801, 1200, 1201, 1600]
    run = simulate(Rule(), lambda t: 0.1, 2e-3, {"a": Part()}, total=1600, gap=0, saves=saves)
    for state in (True, False):
        folder = write(run, tmp_path / str(state), state=state)
        options = {} if state else {"lr": 0.1, "momentum": 0.9, "weight_decay": 2e-3}
        frame = intervals(analyze(folder, **options), "a")
        single = frame.filter(frame["step_to"] - frame["step_from"] == 1)
        assert single.get_column("one_step_method").to_list() == ["adjacent", "adjacent"]
        np.testing.assert_allclose(
            single.get_column("one_step_angle_rad").to_numpy(),
            2 * np.arcsin(run.rms_angle("a")[[2, 4]] / 2), rtol=2e-5,
        )  # fmt: skip


def test_bf16_weights_keep_norms_and_know_their_floor(tmp_path):
    parts = {"a": Part(), "slow": Part(gradient=lambda t: 1e-4)}
    run = simulate(Rule(), lambda t: 0.1, 2e-3, parts, total=2400, gap=200, seed=4)
    folder = write(run, tmp_path / "run", state=False, dtype=torch.bfloat16)
    report = analyze(folder, lr=0.1, momentum=0.9, weight_decay=2e-3)
    frame = intervals(report, "a")
    floor = frame.get_column("angle_floor_rad").to_numpy()
    # Rounding to 8 bits of mantissa at both ends: 1.7e-3 each for Gaussian weights.
    np.testing.assert_allclose(floor, 1.7e-3 * np.sqrt(2), rtol=0.1)
    assert errors(report, run, "a")[1:].max() < 0.01
    slow = intervals(report, "slow")
    true = np.array([
        np.arccos(np.clip(
            np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))
        for a, b in zip(run.weights["slow"], run.weights["slow"][1:], strict=False)
    ])  # fmt: skip
    early = true < 1e-3
    assert early[0] and "angle_below_floor" in slow.get_column("flags").to_list()[0]


def test_several_rates_within_an_interval(tmp_path):
    """A cosine is no staircase: every update has its own rate."""
    total = 3000

    def cosine(t):
        return 0.05 * (1 + np.cos(np.pi * t / total))

    run = simulate(Rule(), cosine, 2e-3, PARTS, total=total, gap=250, seed=8)
    report = analyze(write(run, tmp_path / "run", next_rate=True))
    found = np.concatenate([errors(report, run, part)[1:-1] for part in PARTS])
    assert np.median(found) < 0.004 and found.max() < 0.02
