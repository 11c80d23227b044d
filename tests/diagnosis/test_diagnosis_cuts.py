"""Cuts: where they were, what they cost, and what the stages around them may say."""

import math

import numpy as np
import pytest
import torch
from diagnosis_helpers import (
    CHANNELS,
    Part,
    Rule,
    analyze,
    intervals,
    simulate,
    stage_row,
    states,
    stepwise,
    write,
)
from mpmath import mp, mpf

RATE, DECAY, MOMENTUM = 0.1, 2e-3, 0.9
GAP, TOTAL = 200, 3600


def clock(run_rate, *, decay=DECAY, classes=10, width=8):
    """A softmax classifier whose rows sum to a vector that only decay moves.

    The two-state recursion of heavy ball without a gradient, in 40 digits.
    """
    mp.dps = 40
    sums, velocity, table = mpf(1), mpf(0), [mpf(1)]
    for t in range(TOTAL):
        velocity = MOMENTUM * velocity + mpf(decay) * sums
        sums = sums - mpf(run_rate(t)) * velocity
        table.append(sums)
    rng = np.random.default_rng(0)
    centred = rng.standard_normal((classes, width))
    centred -= centred.mean(axis=0)

    def tensors(i, step):
        row_sum = float(table[step]) * np.ones(width)
        return {"fc.weight": torch.tensor(centred + row_sum / classes, dtype=torch.float32)}

    return tensors


def simulated(cut_at, *, factor=10.0, seed=0, parts=None):
    rate = stepwise((0, RATE), (cut_at, RATE / factor))
    parts = parts or {f"p{i}": Part(norm=4.0 + 0.2 * i) for i in range(6)}
    return simulate(Rule(), rate, DECAY, parts, total=TOTAL, gap=GAP, seed=seed)


@pytest.fixture(scope="module")
def at_snapshot():
    return simulated(2000, seed=1)


@pytest.fixture(scope="module")
def between():
    return simulated(2080, seed=2)


@pytest.mark.parametrize("next_rate", [False, True], ids=["rate of the last", "rate of the next"])
def test_a_cut_at_a_snapshot_is_placed_there(at_snapshot, tmp_path, next_rate):
    """The files hold the last update's rate or the next one's: the weights tell which."""
    folder = write(at_snapshot, tmp_path / "run", next_rate=next_rate)
    report = analyze(folder)
    (decay,) = report.diagnosis.decays
    assert (decay.step, decay.step_low, decay.step_high) == (2000, 2000, 2000)
    assert decay.lr_before == RATE and decay.lr_after == pytest.approx(RATE / 10)
    assert decay.factor == pytest.approx(10.0)
    for part in at_snapshot.names:
        found = intervals(report, part).get_column("one_step_angle_rad").to_numpy()
        np.testing.assert_allclose(found[1:], at_snapshot.rms_angle(part)[1:], rtol=0.01)
        owner = intervals(report, part).get_column("stage").to_list()
        assert owner == [1] * 10 + [2] * 8


def test_a_cut_between_snapshots_is_found_by_the_norms(between, tmp_path):
    report = analyze(write(between, tmp_path / "run"))
    (decay,) = report.diagnosis.decays
    assert decay.step_low <= 2080 <= decay.step_high
    assert abs(decay.step - 2080) <= 40
    owner = intervals(report, "p0").get_column("stage").to_list()
    assert owner == [1] * 10 + [None] + [2] * 7
    assert "SMD008" in {f.rule for f in report.diagnosis.findings}


@pytest.mark.parametrize("at", [2040, 2080, 2150])
def test_a_cut_between_snapshots_is_found_by_a_clock(tmp_path, at):
    """The sum of a softmax classifier's rows decays at a rate that only the schedule sets."""
    run = simulated(at, seed=3, parts={"only": Part()})
    folder = write(run, tmp_path / "run", extra=clock(run.lr))
    placed = set()
    for options in ({}, {"exclude": ["only.*"]}, {"include": ["only.*"]}):
        report = analyze(folder, **options)
        (decay,) = report.diagnosis.decays
        assert abs(decay.step - at) <= 10
        assert decay.step_low <= at <= decay.step_high
        assert decay.step_high - decay.step_low <= 50
        placed.add((decay.step, decay.step_low, decay.step_high))
    assert len(placed) == 1
    # A clock that --include leaves out places the cut all the same, and is not reported.
    assert all(name.startswith("only.") for name in report.tensors.to_series())
    assert all(name.startswith("only.") for name in report.intervals.get_column("tensor"))


def test_a_clock_that_stands_still_is_not_believed(tmp_path):
    """A BCE classifier's rows get a gradient: its sum says nothing of the schedule."""
    run = simulated(2000, seed=4)
    constant = clock(lambda t: 0.0)
    report = analyze(write(run, tmp_path / "run", extra=constant))
    (decay,) = report.diagnosis.decays
    assert (decay.step_low, decay.step_high) == (2000, 2000)


def test_where_nothing_can_tell_the_bounds_stay(tmp_path):
    """A cut in the run's last interval has nothing behind it to compare with."""
    run = simulated(3450, seed=5)
    report = analyze(write(run, tmp_path / "run"))
    cuts = report.hyper.cuts
    assert [(c.step_low, c.step_high) for c in cuts] == [(3400, 3600)]
    frame = intervals(report, "p0")
    assert frame.get_column("stage").to_list()[-1] is None
    assert states(report, "p0")[0] == "equilibrium"


def test_a_declared_schedule_is_believed_to_the_step(between, tmp_path):
    folder = write(between, tmp_path / "run")
    (tmp_path / "lr.csv").write_text(f"step,lr\n0,{RATE}\n2080,{RATE / 10}\n")
    report = analyze(folder, schedule=tmp_path / "lr.csv")
    (decay,) = report.diagnosis.decays
    assert (decay.step, decay.step_low, decay.step_high) == (2080, 2080, 2080)
    # The interval that holds the cut is measured, but speaks for neither stage.
    for part in between.names:
        frame = intervals(report, part)
        assert frame.get_column("stage").to_list()[10] is None
        assert "holds_cut" in frame.get_column("flags").to_list()[10]
        found = frame.get_column("one_step_angle_rad").to_numpy()[10]
        assert found == pytest.approx(between.rms_angle(part)[10], rel=0.02)


def iterations_by_recursion(start_q, rate, tolerance):
    """Updates until the mean recursion of r^4 brings the angle within tolerance, one by one."""
    power = 2 * math.log(_root(rate * DECAY))
    # y = (r / r*)^4 relaxes to 1 by exp(4 ln x1) per update.
    y, n = 1.0 / start_q, 0
    while abs(y**-0.5 - 1) > tolerance:
        y = 1 + (y - 1) * math.exp(2 * power)
        n += 1
    return n


def _root(lr_decay):
    b = 1 + MOMENTUM - lr_decay
    return (b + math.sqrt(b * b - 4 * MOMENTUM)) / 2


def test_the_figures_of_a_cut(at_snapshot, tmp_path):
    report = analyze(write(at_snapshot, tmp_path / "run"))
    rows = report.decays.to_dicts()
    assert len(rows) == len(at_snapshot.names)
    lr, factor = RATE / 10, 10.0
    for row in rows:
        # Corollary 3.1 as printed, with the new rate: ceil(ln k (1 - a) / (2 lam eta)).
        printed = math.log(factor) * (1 - MOMENTUM) / (2 * DECAY * lr)
        assert row["iterations_corollary"] == math.ceil(printed)
        bound = math.log(factor) / (-4 * math.log(_root(lr * DECAY)))
        assert row["iterations_lower_bound"] == pytest.approx(bound, abs=1.5)
        name = row["tensor"].removesuffix(".conv.weight")
        q_before = (stage_row(report, name, 1)["ratio"]) ** 2
        needed = iterations_by_recursion(q_before / factor, lr, 0.1)
        assert row["iterations_to_tolerance"] == pytest.approx(needed, rel=0.02)
        assert row["iterations_to_tolerance_measured"] == pytest.approx(needed, rel=0.1)
        assert row["iterations_available"] == TOTAL - 2000
        assert row["iterations_observed"] is None
        assert row["iterations_lower_bound"] < row["iterations_to_tolerance"]
        true = at_snapshot.rms_angle(name)[-1] / np.arccos(1 - lr * DECAY / 1.9)
        assert row["ratio_at_end"] == pytest.approx(true, rel=0.01)
    assert set(states(report, "p0")) == {"equilibrium", "approaching_from_below"}


def test_what_was_predicted_is_what_happens(tmp_path):
    """Half the cut: the stage is long enough to see the arrival."""
    rate = stepwise((0, RATE), (1200, RATE / 2))
    parts = {f"p{i}": Part() for i in range(4)}
    run = simulate(Rule(), rate, DECAY, parts, total=3600, gap=100, seed=6)
    report = analyze(write(run, tmp_path / "run"))
    expected = np.arccos(1 - RATE / 2 * DECAY / 1.9)
    for row in report.decays.to_dicts():
        name = row["tensor"].removesuffix(".conv.weight")
        at = run.names.index(name)
        window = np.convolve(run.turn2[1200:, at], np.ones(100) / 100, "valid")
        arrived = 50 + int(np.argmax(np.sqrt(window) >= 0.9 * expected))
        assert row["iterations_observed"] == pytest.approx(arrived, abs=80)
        assert row["iterations_to_tolerance"] == pytest.approx(arrived, rel=0.25)
        assert row["iterations_to_tolerance_measured"] == pytest.approx(arrived, rel=0.25)
        assert states(report, name) == ["equilibrium", "equilibrium"]


def test_an_increase_of_the_rate_is_a_jump_with_a_factor_below_one(tmp_path):
    rate = stepwise((0, RATE / 5), (1600, RATE))
    run = simulate(Rule(), rate, DECAY, {"a": Part(norm=2.6)}, total=2800, gap=GAP, seed=7)
    folder = write(run, tmp_path / "run")
    (tmp_path / "lr.csv").write_text(f"step,lr\n0,{RATE / 5}\n1600,{RATE}\n")
    report = analyze(folder, schedule=tmp_path / "lr.csv")
    # Before the first maximum a rise is a warm-up, which is a stage but no cut.
    assert [s.step_from for s in report.diagnosis.stages] == [0, 1600]
    assert report.diagnosis.decays == ()
    rate = stepwise((0, RATE), (1000, RATE / 5), (2000, RATE))
    run = simulate(Rule(), rate, DECAY, {"a": Part()}, total=3000, gap=GAP, seed=7)
    (tmp_path / "lr.csv").write_text(f"step,lr\n0,{RATE}\n1000,{RATE / 5}\n2000,{RATE}\n")
    report = analyze(write(run, tmp_path / "again"), schedule=tmp_path / "lr.csv")
    first, second = report.diagnosis.decays
    assert first.factor == pytest.approx(5.0) and second.factor == pytest.approx(0.2)
    assert states(report, "a")[2] == "equilibrium"
    # Just after an increase the angle is too large by the same law.
    after = intervals(report, "a").filter(step_from=2000).to_dicts()[0]
    assert after["ratio"] > 1.1


def test_a_stage_without_two_snapshots_is_undetermined(tmp_path):
    rate = stepwise((0, RATE), (1010, RATE / 2), (1090, RATE / 4))
    run = simulate(Rule(), rate, DECAY, {"a": Part()}, total=2200, gap=GAP, seed=8)
    (tmp_path / "lr.csv").write_text(f"step,lr\n0,{RATE}\n1010,{RATE / 2}\n1090,{RATE / 4}\n")
    report = analyze(write(run, tmp_path / "run"), schedule=tmp_path / "lr.csv")
    row = stage_row(report, "a", 2)
    assert row["state"] == "undetermined" and "save more often" in row["reason"]
    assert row["ratio"] is None


def test_shapes_of_the_simulation():
    """The helper itself: channels divide the size, snapshots are where they were asked for."""
    run = simulate(Rule(), lambda t: RATE, DECAY, {"a": Part()}, total=10, gap=5)
    assert run.steps == [0, 5, 10] and len(run.weights["a"][0]) % CHANNELS == 0
    assert all(np.isfinite(run.turn2).ravel())
