"""Every state, reached by a run that was built to have it."""

import math

import numpy as np
import polars as pl
import pytest
import torch
from diagnosis_helpers import (
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

from smdlens.diagnosis.records import STAGE_TENSOR_SCHEMA
from smdlens.report.trainer import trainer_facts
from smdlens.vocabulary import State

RATE, DECAY = 0.1, 2e-3
# 4 lr decay / (1 - a): how fast r^4 relaxes per update.
GAMMA4 = 4 * RATE * DECAY / 0.1


def drifting(rate, start=0):
    """Unit gradient whose square grows by `rate` per update from `start` on."""
    return lambda t: math.exp(rate * max(t - start, 0) / 2)


def sawtooth(t):
    """Quiet for 500 updates while the norm falls, then 100 wild ones."""
    return 0.02 if t % 600 < 500 else 2.0


CONSTANT = {
    "settled": Part(),
    "leaving": Part(gradient=drifting(-0.36 * GAMMA4, 1200)),
    "periodic": Part(gradient=sawtooth),
    "held": Part(hold="norm"),
    "frozen": Part(hold="frozen"),
    "dead": Part(gradient=lambda t: 0.0),
    "undecayed": Part(decay=0.0),
    "leaking": Part(leak=0.5, norm=3.5),
    "shrunk": Part(gradient=lambda t: 0.02, leak=-0.3, norm=2.0),
}


@pytest.fixture(scope="module")
def constant(tmp_path_factory):
    run = simulate(Rule(), lambda t: RATE, DECAY, CONSTANT, total=3000, gap=100, seed=5)
    folder = write(run, tmp_path_factory.mktemp("runs") / "constant")
    weights = write(run, folder.parent / "weights", state=False)
    declared = {"lr": RATE, "momentum": 0.9, "weight_decay": DECAY}
    # One declared decay speaks for the gains too, from which the leak would follow: not these.
    return run, analyze(folder), analyze(weights, **declared, exclude=["leaking.*", "shrunk.*"])


EXPECTED = {
    "settled": State.EQUILIBRIUM,
    "leaving": State.LEAVING,
    "periodic": State.PERIODIC,
    "held": State.FIXED_NORM,
    "frozen": State.FROZEN,
    "dead": State.PURE_DECAY,
    "leaking": State.EPSILON_LIMITED,
}


@pytest.mark.parametrize("source", ["with state", "weights alone"])
@pytest.mark.parametrize("name", EXPECTED)
def test_states_of_a_constant_schedule(constant, name, source):
    _, with_state, weights = constant
    if name == "leaking":
        source = "with state"
    report = with_state if source == "with state" else weights
    assert states(report, name) == [EXPECTED[name].value]


def test_a_group_without_decay(constant):
    _, report, _ = constant
    assert states(report, "undecayed") == [State.NO_DECAY.value]
    row = stage_row(report, "undecayed", 1)
    assert row["weight_decay"] == 0.0 and "weight decay is 0" in row["reason"]


def test_the_ratio_of_the_settled_tensor_is_the_simulated_one(constant):
    run, report, _ = constant
    row = stage_row(report, "settled", 1)
    last = run.rms_angle("settled")[20:]
    expected = intervals(report, "settled").get_column("expected_one_step_angle_rad")[-1]
    assert row["ratio"] == pytest.approx(math.sqrt((last**2).mean()) / expected, abs=2e-3)
    assert row["norm"] == pytest.approx(np.linalg.norm(run.weights["settled"][-1]), rel=1e-6)
    assert row["expected_norm"] == pytest.approx(row["norm"] * math.sqrt(row["ratio"]), rel=1e-6)


def test_the_leaving_tensor_left_after_it_had_arrived(constant):
    run, report, _ = constant
    row = stage_row(report, "leaving", 1)
    true = (
        run.rms_angle("leaving")
        / intervals(report, "leaving").get_column("expected_one_step_angle_rad").to_numpy()
    )
    assert (abs(true[8:12] - 1) < 0.05).all() and (true[20:] < 0.88).all()
    assert row["ratio_high"] < 0.9 and row["reached_step"] is not None


def test_the_leak_is_measured(constant):
    """kappa / decay is 0.5 by construction; .85 of it is used and a fifth carried as error."""
    _, report, _ = constant
    leak = intervals(report, "leaking").get_column("eps_leak").to_numpy()[5:]
    assert (np.abs(leak - 0.5) < 0.15).all()
    assert all("epsilon_leak" in f for f in intervals(report, "leaking")["flags"].to_list()[5:])
    settled = intervals(report, "settled").get_column("eps_leak").to_numpy()
    assert (np.abs(settled) < 0.02).all()


def test_every_state_but_equilibrium_says_why(constant):
    _, report, _ = constant
    for row in report.stages.iter_rows(named=True):
        if row["state"] not in ("equilibrium",):
            assert row["reason"], row["tensor"]


SMALL = 2e-4


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """A weight decay so small that nothing settles."""
    settled = (1.0 / (2 * SMALL)) ** 0.25
    parts = {
        "light": Part(norm=0.3 * settled),
        "heavy": Part(norm=2.5 * settled),
        # Grows faster and faster: the norm cannot keep up with the gradient.
        "wild": Part(
            norm=settled / 8**0.25,
            gradient=lambda t: math.exp(1.5e-5 * ((t + 100) ** 2 - 100**2)),
        ),
    }
    run = simulate(Rule(), lambda t: RATE, SMALL, parts, total=900, gap=60, seed=6)
    return run, analyze(write(run, tmp_path_factory.mktemp("runs") / "slow"))


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("light", State.APPROACHING_FROM_ABOVE),
        ("heavy", State.APPROACHING_FROM_BELOW),
        ("wild", State.DIVERGING),
    ],
)
def test_what_has_not_settled(slow, name, state):
    run, report = slow
    assert states(report, name) == [state.value]
    true = run.rms_angle(name)[-1]
    row = stage_row(report, name, 1)
    expected = intervals(report, name).get_column("expected_one_step_angle_rad")[-1]
    assert bool(true > expected) is (state is not State.APPROACHING_FROM_BELOW)
    assert row["reached_step"] is None


def test_the_tail_of_a_cosine_lags_and_its_middle_holds(tmp_path):
    total = 6000

    def cosine(t):
        return RATE * 0.5 * (1 + math.cos(math.pi * t / total))

    run = simulate(Rule(), cosine, DECAY, {"a": Part(), "b": Part(norm=5.0)},
                   total=total, gap=200, seed=7)  # fmt: skip
    folder = write(run, tmp_path / "run", next_rate=True)
    report = analyze(folder)
    for name in "ab":
        assert states(report, name) == [State.LAGGING.value]
        frame = intervals(report, name)
        ratio = frame.get_column("ratio").to_numpy()
        relaxed = (
            frame.get_column("relaxed_one_step_angle_rad")
            / frame.get_column("expected_one_step_angle_rad")
        ).to_numpy()
        true = run.rms_angle(name) / frame["expected_one_step_angle_rad"].to_numpy()
        np.testing.assert_allclose(ratio[1:-1], true[1:-1], rtol=0.02)
        np.testing.assert_allclose(relaxed[5:], true[5:], rtol=0.06)
        assert true[-1] < 0.7
    assert report.summary.equilibrium.held == 2
    # Looked at by itself, the first half is in equilibrium.
    half = analyze(folder, steps="0:3000")
    assert states(half, "a") == [State.EQUILIBRIUM.value]


def test_a_tensor_off_the_relaxation_curve_is_not_excused(tmp_path):
    """Under the same cosine, a unit gradient that dies is no lag."""
    total = 4000

    def cosine(t):
        return RATE * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * t / total)))

    parts = {"a": Part(gradient=drifting(-0.8 * GAMMA4, 2600))}
    run = simulate(Rule(), cosine, DECAY, parts, total=total, gap=200, seed=8)
    report = analyze(write(run, tmp_path / "run", next_rate=True))
    assert states(report, "a") == [State.APPROACHING_FROM_BELOW.value]


def test_warm_up_is_a_stage_of_its_own(tmp_path):
    def warm_up(t):
        return RATE * min((t + 1) / 1000, 1.0)

    run = simulate(Rule(), warm_up, DECAY, {"a": Part()}, total=3000, gap=200, seed=9)
    report = analyze(write(run, tmp_path / "run", next_rate=True))
    (first, second) = report.diagnosis.stages
    assert abs(first.step_to - 1000) <= 2 and second.step_to == 3000
    assert states(report, "a")[1] == State.EQUILIBRIUM.value


def test_at_the_border_nothing_is_decided_and_the_remedy_is_named(tmp_path):
    """The truth is 0.9 of equilibrium: neither inside 1 +- 0.1 nor outside."""
    decay = DECAY
    gamma4 = GAMMA4
    # A unit gradient that falls forever keeps q = 1 - rate / gamma4.
    rate = (1 - 0.9**2) * gamma4
    parts = {"edge": Part(gradient=drifting(-rate), norm=(1 / (2 * decay) / 0.81) ** 0.25)}
    run = simulate(Rule(), lambda t: RATE, decay, parts, total=1200, gap=200, seed=3)
    report = analyze(write(run, tmp_path / "run", state=False),
                     lr=RATE, momentum=0.9, weight_decay=decay)  # fmt: skip
    row = stage_row(report, "edge", 1)
    assert row["ratio"] == pytest.approx(0.9, abs=0.02)
    assert row["state"] == State.UNDETERMINED.value
    assert "crosses the border of 1 +- 0.1: save the optimizer's state" in row["reason"]
    assert row["ratio_low"] < 0.9 < row["ratio_high"]
    # A stricter and a looser question both have an answer.
    for tolerance, state in ((0.03, State.APPROACHING_FROM_BELOW), (0.3, State.EQUILIBRIUM)):
        again = analyze(tmp_path / "run", lr=RATE, momentum=0.9, weight_decay=decay,
                        tolerance=tolerance)  # fmt: skip
        assert states(again, "edge") == [state.value]


def test_nan_weights_diverge_and_the_rest_is_judged(tmp_path):
    run = simulate(Rule(), lambda t: RATE, DECAY, {"a": Part(), "b": Part()}, total=2000, gap=200)
    for i in range(8, 11):
        run.weights["b"][i] = run.weights["b"][i].copy()
        run.weights["b"][i][:7] = np.nan
    report = analyze(write(run, tmp_path / "run"))
    assert states(report, "a") == [State.EQUILIBRIUM.value]
    assert states(report, "b") == [State.DIVERGING.value]
    assert "7 weights are NaN" in stage_row(report, "b", 1)["reason"]
    (finding,) = [f for f in report.diagnosis.findings if f.rule == "SMD023"]
    assert finding.subject == "b.conv.weight" and "step 1600" in finding.message
    flags = intervals(report, "b").get_column("flags").to_list()
    assert ["nonfinite_weights" in f for f in flags] == [False] * 7 + [True] * 3


def test_a_frozen_batch_norm_takes_the_sphere_away(tmp_path):
    run = simulate(Rule(), lambda t: RATE, DECAY, {"a": Part()}, total=1000, gap=200)
    report = analyze(write(run, tmp_path / "run", frozen_norm=True))
    (tensor,) = report.tensors.filter(pl.col("tensor") == "a.conv.weight").to_dicts()
    assert tensor["role"] == "not_scale_invariant"
    assert "SMD006" in {f.rule for f in report.diagnosis.findings}
    assert stage_row(report, "a", 1)["reason"] == "not scale-invariant"
    assert stage_row(report, "a", 1)["state"] == "undetermined"
    assert report.summary.equilibrium.total == 0


def test_a_network_without_normalisation_gets_its_norms_and_a_headline(tmp_path):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4))
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=1e-3)
    for step in range(0, 301):
        if step % 100 == 0:
            content = {"model": net.state_dict(), "optimizer": optimizer.state_dict(),
                       "step": step}  # fmt: skip
            torch.save(content, tmp_path / f"ckpt_{step}.pt")
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(
            net(torch.randn(8, 16)), torch.randint(0, 4, (8,))
        ).backward()
        optimizer.step()
    report = analyze(tmp_path)
    assert "does not bind" in report.summary.headline
    assert "SMD001" in {f.rule for f in report.diagnosis.findings}
    frame = report.intervals
    assert set(frame.get_column("tensor")) == {"0.weight", "2.weight"}
    assert frame.get_column("norm_to").null_count() == 0
    assert set(report.stages.get_column("reason")) == {"not scale-invariant"}


@pytest.mark.parametrize(
    ("declared", "missing"),
    [
        ({}, ["--weight-decay", "--lr or --schedule", "--optimizer"]),
        ({"lr": RATE, "momentum": 0.9}, ["--weight-decay"]),
        ({"weight_decay": DECAY, "momentum": 0.9}, ["--lr or --schedule"]),
        ({"weight_decay": DECAY, "lr": RATE, "betas": (0.9, 0.999)}, ["--optimizer"]),
    ],
)
def test_missing_hyper_parameters_are_named(tmp_path, declared, missing):
    run = simulate(Rule(), lambda t: RATE, DECAY, {"a": Part()}, total=800, gap=200)
    report = analyze(write(run, tmp_path / "run", state=False), **declared)
    row = stage_row(report, "a", 1)
    assert row["state"] == "undetermined" and row["ratio"] is None
    for option in missing:
        assert option in row["reason"]
    for option in {"--weight-decay", "--lr or --schedule", "--optimizer"} - set(missing):
        assert option not in row["reason"]
    assert intervals(report, "a").get_column("norm_to").null_count() == 0
    assert intervals(report, "a").get_column("angle_rad").null_count() == 0


def test_epochs_alone_leave_norms_and_angles_and_ask_for_one_number(tmp_path):
    run = simulate(Rule(), lambda t: RATE, DECAY, {"a": Part()}, total=10, gap=1)
    run.steps = list(range(11))
    folder = write(run, tmp_path / "run", epochs=True)
    report = analyze(folder)
    assert report.series.axis == "epochs"
    assert f"lr {RATE:g}" in " ".join(trainer_facts(report))
    row = stage_row(report, "a", 1)
    assert row["state"] == "undetermined" and "--steps-per-epoch" in row["reason"]
    frame = intervals(report, "a")
    assert frame.get_column("one_step_angle_rad").null_count() == frame.height
    assert frame.get_column("angle_rad").null_count() == 0
    assert analyze(folder, steps_per_epoch=1).series.axis == "steps"


def test_the_state_table_has_its_schema(constant):
    _, report, _ = constant
    table = report.diagnosis.stage_tensors
    assert dict(table.schema) == STAGE_TENSOR_SCHEMA
    known = {state.value for state in State}
    assert set(table.get_column("state")) <= known


def test_reached_step_after_a_cut(tmp_path):
    cut = stepwise((0, RATE), (1600, RATE / 5))
    run = simulate(Rule(), cut, DECAY, {"a": Part()}, total=4800, gap=100, seed=2)
    report = analyze(write(run, tmp_path / "run"))
    row = stage_row(report, "a", 2)
    expected = np.arccos(1 - RATE / 5 * DECAY / 1.9)
    # Smoothed over 100 updates, the simulated angle first comes within a tenth here.
    window = np.convolve(run.turn2[1600:, 0], np.ones(100) / 100, "valid")
    first = 1600 + 50 + int(np.argmax(np.sqrt(window) >= 0.9 * expected))
    assert abs(row["reached_step"] - first) < 150
