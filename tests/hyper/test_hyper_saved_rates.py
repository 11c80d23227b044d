"""The rate of every update from the few that snapshots hold, against the schedule that ran."""

import math

import numpy as np
import pytest
from hyper_helpers import found_rates, saved_run, true_rates

from smdlens.hyper.resolve import resolve_hyper_parameters
from smdlens.hyper.saved_rates import SavedRate, timeline_from_saved

PEAK, TOTAL = 0.1, 6000


def stepwise(*stages):
    return lambda t: [lr for start, lr in stages if t >= start][-1]


def cosine(t, start=0, floor=0.0):
    share = (t - start) / (TOTAL - start)
    return floor + (PEAK - floor) * 0.5 * (1 + math.cos(math.pi * share))


def warm_up_cosine(length):
    return lambda t: PEAK * (t + 1) / length if t < length else cosine(t, length)


def resolved(rate, gap=250, *, next_rate=True, total=TOTAL):
    return resolve_hyper_parameters(saved_run(rate, range(0, total + 1, gap), next_rate=next_rate))


@pytest.mark.parametrize("next_rate", [False, True])
def test_steps_are_exact_when_the_cuts_fall_on_snapshots(next_rate):
    """A saved rate that is already the next one moves no cut by an interval."""
    rate = stepwise((0, 0.1), (2000, 0.02), (4500, 0.001))
    hyper = resolved(rate, next_rate=next_rate)
    np.testing.assert_array_equal(found_rates(hyper, 0, TOTAL), true_rates(rate, 0, TOTAL))
    assert [cut.step for cut in hyper.cuts] == [2000, 4500]


@pytest.mark.parametrize("next_rate", [False, True])
@pytest.mark.parametrize("at", [2001, 2100, 2249])
def test_a_cut_between_snapshots_keeps_both_as_bounds(at, next_rate):
    hyper = resolved(stepwise((0, 0.1), (at, 0.01)), next_rate=next_rate)
    (cut,) = hyper.cuts
    assert (cut.step_low, cut.step_high) == (2000, 2250)
    assert cut.step in (2000, 2250)
    lr = found_rates(hyper, 0, TOTAL)
    assert (lr[:2000] == 0.1).all() and (lr[2250:] == 0.01).all()


def test_a_first_cut_seen_in_the_last_interval():
    hyper = resolved(stepwise((0, 0.1), (5750, 0.01)), next_rate=True)
    assert [(c.step_low, c.step_high) for c in hyper.cuts] == [(5500, 5750)]


@pytest.mark.parametrize("next_rate", [False, True])
@pytest.mark.parametrize(
    ("rate", "error"),
    [
        (lambda t: cosine(t), 1e-5),
        (lambda t: cosine(t, floor=0.01), 1e-5),
        (lambda t: PEAK * (1 - t / TOTAL), 1e-9),
        (lambda t: PEAK * 0.999**t, 1e-3),
        (lambda t: PEAK * (1 - t / TOTAL) ** 2, 1e-9),
    ],
    ids=["cosine", "cosine with a floor", "linear", "exponential", "polynomial"],
)
def test_smooth_schedules_are_reconstructed(rate, error, next_rate):
    """Errors as a share of the highest rate, away from the first interval's saved rate."""
    hyper = resolved(rate, next_rate=next_rate)
    found, true = found_rates(hyper, 0, TOTAL), true_rates(rate, 0, TOTAL)
    # Which of two neighbouring updates a saved rate belongs to is not known: one step of slack.
    slack = np.abs(np.diff(true)).max()
    assert np.abs(found[250:] - true[250:]).max() <= error * PEAK + slack
    assert hyper.cuts == ()


def test_the_tail_of_a_cosine_is_not_a_straight_line():
    """Between the last two snapshots a line would be half again too high."""
    hyper = resolved(cosine, next_rate=True)
    found = found_rates(hyper, TOTAL - 250, TOTAL)
    true = true_rates(cosine, TOTAL - 250, TOTAL)
    middle = slice(100, 150)
    np.testing.assert_allclose(found[middle], true[middle], rtol=0.01)
    line = np.linspace(true[0], 0.0, 250)[middle]
    assert (line > 1.5 * true[middle]).all()


@pytest.mark.parametrize("length", [1000, 1100, 1125, 1249])
@pytest.mark.parametrize("next_rate", [False, True])
def test_warm_up_with_the_peak_between_snapshots(length, next_rate):
    """Line and cosine meet where they really did, not at the highest saved rate."""
    rate = warm_up_cosine(length)
    hyper = resolved(rate, next_rate=next_rate)
    found, true = found_rates(hyper, 0, TOTAL), true_rates(rate, 0, TOTAL)
    assert np.abs(found[500:] - true[500:]).max() < 0.01 * PEAK
    assert hyper.warm_up_end is not None and abs(hyper.warm_up_end - length) <= 5
    assert hyper.cuts == ()


def test_warm_restarts_are_cuts_and_the_falls_between_them_are_not():
    period = 2000

    def rate(t):
        return 1e-3 + PEAK * 0.5 * (1 + math.cos(math.pi * (t % period) / period))

    hyper = resolved(rate, gap=200, next_rate=True)
    assert [cut.step for cut in hyper.cuts] == [2000, 4000]
    found, true = found_rates(hyper, 0, TOTAL), true_rates(rate, 0, TOTAL)
    inside = np.arange(TOTAL) % period < period - 200
    assert np.abs(found - true)[inside].max() < 0.01 * PEAK


def test_a_rate_saved_as_zero_at_the_end_of_a_cosine_is_no_cut():
    hyper = resolved(lambda t: cosine(t), next_rate=True)
    assert hyper.cuts == () and found_rates(hyper, TOTAL - 1, TOTAL)[0] < 1e-4 * PEAK


def test_two_successive_cuts_stay_cuts():
    """Equal factors at successive snapshots are steps, however regular."""
    rate = stepwise((0, 0.1), (1000, 0.01), (1250, 0.001), (1500, 0.0001))
    hyper = resolved(rate, next_rate=True)
    assert [cut.step for cut in hyper.cuts] == [1000, 1250, 1500]
    np.testing.assert_array_equal(found_rates(hyper, 0, TOTAL), true_rates(rate, 0, TOTAL))


def test_snapshots_that_save_no_rate_take_the_nearest():
    points = [SavedRate(200, 0.1, None), SavedRate(300, 0.1, None)]
    timeline = timeline_from_saved(points, 0, 500, False, "test")
    assert (timeline.lr == 0.1).all() and np.isnan(timeline.decay).all()


def test_a_changing_weight_decay_takes_effect_where_it_is_seen():
    points = [SavedRate(0, 0.1, 1e-4), SavedRate(100, 0.1, 1e-4), SavedRate(200, 0.1, 1e-3)]
    timeline = timeline_from_saved(points, 0, 300, False, "test")
    np.testing.assert_array_equal(timeline.decay, np.repeat([1e-4, 1e-3], [200, 100]))


@pytest.mark.parametrize("seed", range(5))
def test_rates_never_leave_the_range_of_their_neighbours(seed):
    rng = np.random.default_rng(seed)
    rates = np.sort(rng.uniform(1e-4, 0.1, 12))[::-1]
    steps = np.cumsum(rng.integers(50, 400, 12))
    points = [SavedRate(int(s), float(r), None) for s, r in zip(steps, rates, strict=True)]
    timeline = timeline_from_saved(points, int(steps[0]), int(steps[-1]), True, "test")
    for i in range(11):
        piece = timeline.lr[steps[i] - steps[0] : steps[i + 1] - steps[0]]
        assert piece.max() <= rates[i] * (1 + 1e-12)
        assert piece.min() >= rates[i + 1] * (1 - 1e-12)
