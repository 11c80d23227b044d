"""The audit of Theorems 1 to 3 against simulations whose L, V and l are known."""

import numpy as np
import pytest
from diagnosis_helpers import Part, Rule, analyze, simulate, stepwise, write

RATE, DECAY, SIZE = 0.1, 5e-3, 64
PLAIN, HEAVY = Rule(momentum=0.0), Rule()
# |g~|^2 is a sum of SIZE - 1 squares: mean 1 - 1/SIZE, relative scatter sqrt(2 / (SIZE - 1)).
MEAN, SCATTER = 1 - 1 / SIZE, np.sqrt(2 / (SIZE - 1))


def settled_norm(momentum, mean=MEAN):
    return (mean * RATE / (2 * DECAY * (1 - momentum))) ** 0.25


def parts(count, momentum, **more):
    return {f"p{i}": Part(norm=settled_norm(momentum), **more) for i in range(count)}


def audit(report, name, tensor="p0.conv.weight"):
    (found,) = [
        a
        for a in report.diagnosis.assumptions
        if a.name == name and a.tensor == tensor and a.stage == report.diagnosis.stages[-1].index
    ]
    return found


def theorem(report, tensor="p0.conv.weight"):
    return report.diagnosis.theorems.filter(tensor=tensor).to_dicts()[-1]


@pytest.fixture(scope="module")
def consecutive(tmp_path_factory):
    """Plain SGD in equilibrium, every one of 80 updates saved."""
    run = simulate(PLAIN, stepwise((0, RATE)), DECAY, parts(6, 0.0), total=1080, gap=1,
                   size=SIZE, saves=range(1000, 1081), seed=5)  # fmt: skip
    return run, analyze(write(run, tmp_path_factory.mktemp("plain") / "run"))


def test_theorem_1_with_every_update_seen(consecutive):
    run, report = consecutive
    row = theorem(report)
    h = run.gradient2[1000:, 0]
    assert (row["theorem"], row["scatter_source"], row["updates"]) == (1, "updates", 80)
    assert row["mean"] == pytest.approx(h[-27:].mean(), rel=0.02)
    assert row["scatter"] == pytest.approx(SCATTER, rel=0.3)
    assert row["lower"] == pytest.approx(h.min() / row["mean"], rel=1e-3)
    assert row["band"] == "theorem"
    bound = 2 * row["scatter"] * np.sqrt(RATE * DECAY / row["lower"])
    assert row["norm_high"] == pytest.approx(row["expected_norm"] * np.sqrt(1 + bound), rel=1e-9)
    assert row["expected_norm"] == pytest.approx(settled_norm(0.0, row["mean"]), rel=1e-3)
    assert row["angle_bound_rad"] == pytest.approx(
        np.cbrt(row["scatter"] ** 2 / row["lower"]), rel=1e-9
    )
    assert row["probability"] == pytest.approx(1 - row["angle_bound_rad"], rel=1e-9)
    assert row["within_bound"] == 1.0


def test_what_holds_for_all_updates_is_said_to_hold(consecutive):
    _, report = consecutive
    for i in range(6):
        tensor = f"p{i}.conv.weight"
        below = audit(report, "gradient_bounded_below", tensor)
        assert below.holds is True
        assert below.limit == pytest.approx(2 * (1e-3 / (1 - 1e-3)) ** 2, rel=1e-4)
        assert audit(report, "gradient_orthogonal", tensor).holds is True
        assert audit(report, "gradient_variance_bounded", tensor).holds is True
        assert audit(report, "norm_as_theorem", tensor).holds is True
        assert audit(report, "angle_as_theorem", tensor).holds is True


@pytest.fixture(scope="module")
def sparse():
    """Heavy ball in equilibrium; p0's unit gradient grows, that of the others stands still."""
    growing = {"p0": Part(norm=settled_norm(0.9), gradient=lambda t: 1.0 + t / 2000)}
    return simulate(HEAVY, stepwise((0, RATE)), DECAY, growing | {f"q{i}": p for i, p in enumerate(
        parts(12, 0.9).values())}, total=6000, gap=150, size=SIZE, seed=6)  # fmt: skip


def test_buffers_show_the_scatter_of_h(sparse, tmp_path):
    report = analyze(write(sparse, tmp_path / "run"))
    found = []
    for i in range(12):
        row = theorem(report, f"q{i}.conv.weight")
        assert (row["theorem"], row["scatter_source"], row["band"]) == (
            2, "buffers", "white_gradients")  # fmt: skip
        assert row["lower"] is None
        found.append(row["scatter"])
        for name in ("gradient_bounded_below", "angle_as_theorem", "gradient_orthogonal"):
            verdict = audit(report, name, f"q{i}.conv.weight")
            assert verdict.holds in (None, False)
            assert verdict.reason
        assert audit(report, "norm_as_theorem", f"q{i}.conv.weight").holds is True
        assert audit(report, "gradient_smooth", f"q{i}.conv.weight").holds is not False
    # h~ adds 2 a <v', g>, of variance 4 a^2 / ((1 - a^2) SIZE), to |g~|^2.
    truth = np.sqrt(SCATTER**2 + 4 * 0.81 / 0.19 / SIZE)
    assert np.mean(found) == pytest.approx(truth, rel=0.1)
    steep = audit(report, "gradient_smooth")
    assert steep.holds is False
    assert steep.value > steep.limit


def test_weights_alone_leave_what_they_do_not_show_open(sparse, tmp_path):
    folder = write(sparse, tmp_path / "run", state=False)
    report = analyze(folder, optimizer="sgd", lr=RATE, weight_decay=DECAY, momentum=0.9)
    for name in ("gradient_variance_bounded", "gradient_smooth", "norm_as_theorem"):
        verdict = audit(report, name)
        assert verdict.holds is None
        assert "would show V" in verdict.reason
    assert theorem(report)["scatter"] is None


def test_norms_that_have_not_settled_yet_are_no_refutation(tmp_path):
    """After a cut the norm is far off; most of the stage's start is still there."""
    lr = stepwise((0, RATE), (3000, RATE / 10))
    run = simulate(HEAVY, lr, DECAY, parts(1, 0.9), total=4800, gap=100, size=SIZE, seed=7)
    report = analyze(write(run, tmp_path / "run"))
    verdict = audit(report, "norm_as_theorem")
    assert verdict.holds is None
    assert "has not vanished" in verdict.reason
    assert verdict.value > 1.05 * verdict.limit


def test_a_norm_that_does_not_follow_its_gradients_refutes_the_theorem(tmp_path):
    """The unit gradient doubled at the end of a long stage: L has quadrupled, the norm has not."""
    part = {"p0": Part(norm=settled_norm(0.0), gradient=lambda t: 1.0 if t < 6000 else 2.0)}
    run = simulate(PLAIN, stepwise((0, RATE)), DECAY, part, total=6040, gap=1, size=SIZE,
                   saves=[0, 3000, 5960, *range(6000, 6041)], seed=8)  # fmt: skip
    verdict = audit(analyze(write(run, tmp_path / "run"), steps="5960:6040"), "norm_as_theorem")
    assert verdict.holds is None  # a run that begins at 5960 may still be under way
    report = analyze(write(run, tmp_path / "all", skip=[3000]))
    row = theorem(report)
    assert row["vanishing"] < 0.01
    assert audit(report, "norm_as_theorem").holds is False
    assert audit(report, "norm_as_theorem").value < 0.8 * row["expected_norm"]


def test_settings_outside_the_theorems(tmp_path):
    def settings(rule, folder):
        run = simulate(rule, stepwise((0, RATE)), DECAY, parts(1, 0.9), total=200, gap=50)
        report = analyze(write(run, folder))
        return {a.name: a for a in report.diagnosis.assumptions if a.tensor is None}

    low = settings(Rule(momentum=0.5), tmp_path / "half")
    assert low["momentum_above_half"].holds is False
    assert low["theorem_covers_optimizer"].holds is True
    nesterov = settings(Rule(nesterov=True), tmp_path / "nesterov")
    assert nesterov["theorem_covers_optimizer"].holds is False
    assert "momentum_above_half" not in nesterov
    adamw = settings(Rule("adamw"), tmp_path / "adamw")
    assert adamw["theorem_covers_optimizer"].holds is False


def test_gradients_that_nothing_shows_break_nothing(tmp_path):
    """Norms that fall as decay alone makes them: L is 0, and the theorems say nothing."""
    part = {"p0": Part(norm=5.0, gradient=lambda t: 0.0)}
    run = simulate(HEAVY, stepwise((0, RATE)), DECAY, part, total=2000, gap=100, size=SIZE)
    report = analyze(write(run, tmp_path / "run"))
    for name in ("norm_as_theorem", "gradient_smooth", "angle_as_theorem"):
        assert audit(report, name).holds is None
    assert report.to_dict()["theorems"]
