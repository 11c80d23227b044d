"""What a cut needs and what would have been enough: held against the exact mean recursion."""

import numpy as np
import pytest
from diagnosis_helpers import Part, Rule, analyze, simulate, stepwise, write

from smdlens.diagnosis.enough import enough
from smdlens.diagnosis.reequilibration import after_cut, predicted_iterations
from smdlens.diagnosis.update_rule import law_of
from smdlens.hyper.records import Optimizer, ParamGroup
from smdlens.theory.moments import advance, steady_state
from smdlens.vocabulary import OptimizerKind

TOLERANCE = 0.1
# The relaxation law leaves momentum's first updates out.
PRECISION = 0.01
KINDS = {
    "sgd": (OptimizerKind.SGD, 0.9, None, 0.1, 5e-3),
    "plain": (OptimizerKind.SGD, 0.0, None, 0.2, 5e-3),
    "adamw": (OptimizerKind.ADAMW, None, (0.9, 0.999), 1e-2, 0.2),
}


class Walk:
    """The mean recursion of one optimizer, from equilibrium at its first rate."""

    def __init__(self, kind):
        name, momentum, betas, self.lr, self.decay = KINDS[kind]
        decoupled = name is OptimizerKind.ADAMW
        optimizer = Optimizer(name, None, momentum, False, 0.0, betas, None, decoupled, None, "")
        group = ParamGroup(0, "group 0", (), self.decay, momentum, betas, "")
        self.law = law_of(optimizer, group)
        self.rule = self.law.rule
        rest = steady_state(self.rule, self.lr, *self.pulls(self.decay))
        self.w = float(rest.w_over_g)
        self.lean, self.v2 = float(rest.P_over_W) * self.w, float(rest.V_over_W) * self.w

    def pulls(self, decay):
        """Coupled and decoupled decay."""
        return (0.0, decay) if self.law.decoupled else (decay, 0.0)

    def ratios(self, lr, decay, gain, updates, divisor=1.0):
        """Ratio of every update after the cut; the weights, and buffers, rescaled at it."""
        # SGD's momentum grows by the divisor, Adam's direction stays what it was.
        grown = 1.0 if self.rule.normalised else divisor
        w, lean, v2 = self.w / divisor**2, self.lean * grown / divisor, self.v2 * grown**2
        expected = float(steady_state(self.rule, lr, *self.pulls(decay)).turn2)
        found = []
        for _ in range(updates):
            w, lean, v2, turn2 = advance(self.rule, w, lean, v2, gain, lr, *self.pulls(decay))
            found.append(float(np.sqrt(turn2 / expected)))
        return np.array(found)


def cut_of(walk, factor, gain, updates):
    """What smdlens would know of the cut: the recursion's ratios before, after and at the end."""
    lr = walk.lr / factor
    ratios = walk.ratios(lr, walk.decay, gain, updates)
    ends = np.array([1.0, ratios[: updates // 10].mean() ** 2, ratios[-1] ** 2])
    return after_cut(walk.law, np.array([walk.lr, lr]), np.full(2, walk.decay), ends, gain,
                     updates / 20, updates)  # fmt: skip


CASES = [
    (kind, factor, gain) for kind in KINDS for factor in (3.0, 10.0) for gain in (1.0, 0.6)
]  # fmt: skip


@pytest.mark.parametrize(("kind", "factor", "gain"), CASES)
def test_each_remedy_is_enough_and_no_more_than_that(kind, factor, gain):
    walk = Walk(kind)
    lr = walk.lr / factor
    needed = predicted_iterations(walk.law, cut_of(walk, factor, gain, 1000), TOLERANCE)
    updates = int(0.7 * needed["iterations_to_tolerance_new_gradient"])
    cut = cut_of(walk, factor, gain, updates)
    offer = enough(walk.law, cut, TOLERANCE)
    longer = walk.ratios(lr, walk.decay, gain, offer["enough_iterations"])
    assert longer[-1] == pytest.approx(1 - TOLERANCE, abs=PRECISION)
    more = offer["enough_weight_decay_factor"]
    assert 1.0 < more < 10.0
    decayed = walk.ratios(lr, more * walk.decay, gain, updates)
    assert decayed[-1] == pytest.approx(1 - TOLERANCE, abs=PRECISION)
    # Rescaled with the buffers, the angle is there at once and stays.
    divided = walk.ratios(lr, walk.decay, gain, updates, offer["enough_weight_divisor"])
    assert divided[-1] == pytest.approx(1.0, abs=PRECISION)
    assert np.abs(divided - 1.0).max() < (0.03 if gain == 1.0 else 0.45)


@pytest.mark.parametrize(("kind", "factor", "gain"), CASES)
def test_predictions_with_the_old_and_the_new_gradient(kind, factor, gain):
    walk = Walk(kind)
    cut = cut_of(walk, factor, gain, 200)
    figures = predicted_iterations(walk.law, cut, TOLERANCE)
    for key, true in (
        ("iterations_to_tolerance", 1.0),
        ("iterations_to_tolerance_new_gradient", gain),
    ):
        ratios = walk.ratios(walk.lr / factor, walk.decay, true, 2 * figures[key])
        assert figures[key] == pytest.approx(int(np.argmax(ratios >= 1 - TOLERANCE)), rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_after_an_increase_the_angle_overshoots_for_so_long(kind):
    walk = Walk(kind)
    cut = cut_of(walk, 0.2, 1.0, 40)
    figures = predicted_iterations(walk.law, cut, TOLERANCE)
    ratios = walk.ratios(5 * walk.lr, walk.decay, 1.0, 2 * figures["iterations_to_tolerance"])
    assert cut.excess**-0.5 == pytest.approx(5**0.5, rel=1e-9)
    assert ratios.max() > 1.5
    arrived = int(np.argmax(ratios <= 1 + TOLERANCE)) if kind == "plain" else None
    last = int(np.flatnonzero(ratios > 1 + TOLERANCE)[-1])
    assert figures["iterations_to_tolerance"] == pytest.approx(last, rel=0.25, abs=12)
    assert arrived is None or arrived > 1


def test_no_remedy_where_none_is_needed_or_none_would_help():
    walk = Walk("sgd")
    assert set(enough(walk.law, cut_of(walk, 3.0, 1.0, 2000), TOLERANCE).values()) == {None}
    hopeless = enough(walk.law, cut_of(walk, 1000.0, 1.0, 30), TOLERANCE)
    assert hopeless["enough_iterations"] is None
    assert hopeless["enough_weight_decay_factor"] is None
    assert hopeless["enough_weight_divisor"] == pytest.approx(1000**0.25)


def test_the_figures_of_a_run(tmp_path):
    """A stage that ends early; longer by what is said, it ends within the tolerance."""
    lr, norm = stepwise((0, 0.1), (1000, 0.01)), (0.1 / (2 * 5e-3 * 0.1)) ** 0.25
    gradient = lambda t: 1.0 if t < 1000 else 0.8  # noqa: E731
    parts = {"p": Part(norm=norm, gradient=gradient)}
    run = simulate(Rule(), lr, 5e-3, parts, total=2000, gap=100, seed=4)
    report = analyze(write(run, tmp_path / "run"))
    (row,) = report.decays.to_dicts()
    assert row["unit_gradient_change"] == pytest.approx(0.8, rel=0.03)
    assert row["iterations_to_tolerance_new_gradient"] > row["iterations_to_tolerance"]
    assert row["enough_iterations"] == 1000 + row["iterations_missing"]
    longer = simulate(Rule(), lr, 5e-3, parts, total=1000 + row["enough_iterations"], gap=100,
                      seed=5)  # fmt: skip
    equilibrium = np.sqrt(2 * 0.01 * 5e-3 / 1.9)
    assert np.sqrt(longer.turn2[-150:].mean()) / equilibrium == pytest.approx(0.9, abs=0.03)
    curve = report.diagnosis.decay_curves
    off = (curve["ratio_predicted_new_gradient"] / curve["ratio"] - 1.0).abs()
    assert off.max() < 0.05
    assert (curve["ratio_predicted"] / curve["ratio"])[-1] > 1.05
    (cut,) = report.to_dict()["decays"]
    assert len(cut["curve"]) == 10
    finding = next(f for f in report.diagnosis.findings if f.rule == "SMD002")
    assert f"{row['enough_iterations']:,} iterations, it had 1,000" in finding.remedy
    assert f"weights / {row['enough_weight_divisor']:.3g}" in finding.remedy
