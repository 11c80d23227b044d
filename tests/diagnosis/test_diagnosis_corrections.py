"""What intervals are corrected for: changing rates, Adam's step shape, Nesterov's correlation."""

import numpy as np
import pytest
from diagnosis_helpers import Part, Rule, analyze, intervals, simulate, write

from smdlens.diagnosis.gradient_correlation import _pull_back
from smdlens.diagnosis.one_step_sgd import closing_rate
from smdlens.diagnosis.rates import IntervalRates


def rates_of(lr):
    lr = np.asarray(lr)[:, None]
    ones, n = np.ones(1), np.array([len(lr)])
    return IntervalRates(lr, np.full_like(lr, 5e-3), n, n, 0.0 * ones, 0.0 * ones)


def test_a_constant_rate_closes_at_itself_without_doubt():
    lr, doubt = closing_rate(rates_of(np.full(7, 0.1)), 0.9, 1.9)
    assert lr[0] == pytest.approx(0.1) and doubt[0] == 0.0


def test_a_rate_that_grows_by_one_factor_closes_without_doubt():
    factor = 1.05
    lr, doubt = closing_rate(rates_of(0.1 * factor ** np.arange(6)), 0.9, 1.9)
    # Every change over its rate is 1 - 1 / factor.
    assert lr[0] == pytest.approx(0.1 * factor**5 / (1 - (1 - 1 / factor) / 1.9), rel=1e-12)
    assert doubt[0] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("rule", [Rule(), Rule(nesterov=True)], ids=["heavy ball", "Nesterov"])
def test_saved_buffers_close_short_intervals_under_a_ramp(rule, tmp_path):
    """Rates that halve within a few snapshots five updates apart, scattering gradients."""
    draw = np.random.default_rng(8)
    lengths = np.exp(0.4 * draw.standard_normal(1200))
    parts = {"p": Part(norm=3.5, gradient=lambda t: float(lengths[t]))}
    ramp = lambda t: 0.1 * (1.0 if t < 1000 else 0.97 ** (t - 1000))  # noqa: E731
    saves = list(range(1000, 1066, 5))
    run = simulate(rule, ramp, 5e-3, parts, total=1066, gap=5, seed=9, saves=saves)
    folder = write(run, tmp_path / "run")
    schedule = tmp_path / "schedule.csv"
    schedule.write_text("step,lr\n" + "".join(f"{t},{ramp(t)!r}\n" for t in range(1066)))
    found = intervals(analyze(folder, schedule=schedule), "p")
    off = found["one_step_angle_rad"].to_numpy() / run.rms_angle("p") - 1.0
    assert np.median(np.abs(off)) < (0.002 if not rule.nesterov else 0.05)


def test_the_pull_back_is_the_inverse_of_a_confined_walk():
    x = np.array([0.5, 1.0, 3.0, 20.0, 400.0])
    # Slow to converge near 0, where what follows from it is all but nothing.
    np.testing.assert_allclose(_pull_back(-np.expm1(-x) / x), x, rtol=0.08)
    assert (_pull_back(np.array([1.0, 1.3])) == 0.0).all()
