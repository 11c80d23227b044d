"""Cuts, warm-up and segments read off the rates of every update."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smdlens.hyper.records import HyperParameters, Optimizer, ParamGroup
from smdlens.hyper.timeline import MAX_SEGMENTS, Timeline, cut_steps, to_segments, warm_up_end
from smdlens.vocabulary import OptimizerKind


def timeline(lr, decay=1e-3, start=0):
    lr = np.asarray(lr, dtype=np.float64)
    decay = np.broadcast_to(np.asarray(decay, dtype=np.float64), lr.shape).copy()
    return Timeline(start, lr, decay, "test")


def by_epoch(epoch, *rates):
    return np.repeat(np.asarray(rates, dtype=np.float64), epoch)


def test_a_cut_is_a_factor_of_one_and_a_half():
    assert cut_steps(timeline(by_epoch(100, 0.15, 0.1))) == (100,)
    assert cut_steps(timeline(by_epoch(100, 0.149, 0.1))) == ()


def test_steps_are_absolute():
    assert cut_steps(timeline(by_epoch(100, 0.1, 0.01), start=5000)) == (5100,)


def test_weight_decay_counts_as_the_rate_does():
    lr = np.full(300, 0.1)
    decay = by_epoch(100, 1e-3, 1e-3, 5e-4)
    assert cut_steps(timeline(lr, decay)) == (200,)
    # Twice the rate at half the decay leaves their product, and the equilibrium angle, alone.
    assert cut_steps(timeline(by_epoch(100, 0.1, 0.2), by_epoch(100, 2e-3, 1e-3))) == ()


def test_three_equally_spaced_unequal_changes_are_smooth():
    assert cut_steps(timeline(by_epoch(100, 0.1, 0.06, 0.03, 0.012))) == ()


def test_three_equal_factors_are_three_cuts():
    assert cut_steps(timeline(by_epoch(100, 0.1, 0.05, 0.025, 0.0125))) == (100, 200, 300)


def test_two_changes_are_cuts_however_unequal():
    assert cut_steps(timeline(by_epoch(100, 0.1, 0.06, 0.03))) == (100, 200)


def test_three_unequally_spaced_changes_are_cuts():
    lr = np.repeat([0.1, 0.06, 0.03, 0.012], [100, 100, 130, 100])
    assert cut_steps(timeline(lr)) == (100, 200, 330)


def test_changes_in_both_directions_are_cuts():
    assert cut_steps(timeline(by_epoch(100, 0.1, 0.06, 0.1, 0.05))) == (100, 200, 300)


def test_the_end_of_a_cosine_by_epochs_is_smooth_though_each_epoch_falls_far():
    rates = [0.1 * 0.5 * (1 + math.cos(math.pi * e / 12)) for e in range(12)]
    assert max(a / b for a, b in itertools.pairwise(rates)) > 3
    assert cut_steps(timeline(by_epoch(50, *rates))) == ()


def test_restarts_are_cuts_by_iteration_and_by_epoch():
    period = 300
    lr = [0.01 + 0.05 * (1 + math.cos(math.pi * (t % period) / period)) for t in range(900)]
    assert cut_steps(timeline(lr)) == (300, 600)
    rates = [0.1 * 0.5 * (1.1 + math.cos(math.pi * (e % 6) / 6)) for e in range(18)]
    assert cut_steps(timeline(by_epoch(20, *rates))) == (120, 240)


def test_a_warm_up_has_no_cuts_and_ends_at_its_maximum():
    lr = np.concatenate([np.linspace(1e-4, 0.1, 200), np.full(300, 0.1), np.full(100, 0.01)])
    line = timeline(lr)
    assert warm_up_end(line) == 199
    assert cut_steps(line) == (500,)
    steps = timeline(by_epoch(50, 0.01, 0.04, 0.07, 0.1, 0.1, 0.1))
    assert warm_up_end(steps) == 150 and cut_steps(steps) == ()


@pytest.mark.parametrize(
    "lr",
    [np.full(100, 0.1), np.linspace(0.1, 0.0, 100), np.linspace(0.08, 0.1, 100), np.array([])],
    ids=["constant", "falling", "climbs less than 1.5x", "empty"],
)
def test_no_warm_up(lr):
    assert warm_up_end(timeline(lr)) is None


def test_unknown_rates_are_no_cuts():
    lr = np.full(300, np.nan)
    lr[100:200] = 0.1
    assert cut_steps(timeline(lr)) == ()
    assert warm_up_end(timeline(lr)) is None


SCHEDULES = {
    "constant": lambda t, n: 0.1,
    "steps": lambda t, n: 0.1 * 0.1 ** (3 * t // n),
    "cosine": lambda t, n: 0.05 * (1 + math.cos(math.pi * t / n)),
    "warm-up, cosine": lambda t, n: (
        0.1 * (t + 1) / (n // 10)
        if t < n // 10
        else 0.05 * (1 + math.cos(math.pi * (t - n // 10) / (n - n // 10)))
    ),
    "linear": lambda t, n: 0.1 * (1 - t / n),
    "exponential": lambda t, n: 0.1 * 1e-4 ** (t / n),
    "inverse root": lambda t, n: 0.1 * min((t + 1) / 500, (500 / (t + 1)) ** 0.5),
    "restarts": lambda t, n: 0.01 + 0.05 * (1 + math.cos(math.pi * (t % (n // 7)) / (n // 7))),
    "cosine by epochs": lambda t, n: 0.05 * (1 + math.cos(math.pi * (t // 97) * 97 / n)),
    "triangles": lambda t, n: 0.01 + 0.09 * abs((t % 1000) / 500 - 1),
}


def hyper_of(segments, groups=1):
    nobody = Optimizer(OptimizerKind.SGD, None, 0.9, False, 0.0, None, None, False, None, "test")
    members = tuple(
        ParamGroup(g, f"group {g}", (f"w{g}",), 1e-3, 0.9, None, "test") for g in range(groups)
    )
    return HyperParameters(nobody, members, tuple(segments))


@pytest.mark.parametrize("total", [999, 20_000, 150_001])
@pytest.mark.parametrize("name", SCHEDULES)
def test_segments_give_the_rates_back(name, total):
    lr = np.array([SCHEDULES[name](t, total) for t in range(total)])
    line = timeline(lr, start=37)
    segments = to_segments(line, 0)
    assert len(segments) <= MAX_SEGMENTS
    assert segments[0].step_from == 37 and segments[-1].step_to == 37 + total
    assert all(a.step_to == b.step_from for a, b in itertools.pairwise(segments))
    found, decay = hyper_of(segments).rates(0, 37, 37 + total)
    # 2000 straight pieces cannot follow seven cosines any better than this.
    error = 1e-5 if name == "restarts" else 1e-6
    assert np.abs(found - lr).max() <= error * lr.max()
    assert (decay == 1e-3).all()


def test_constant_pieces_stay_exact():
    lr = np.repeat([0.1, 0.0123456789, 0.001], [333, 334, 1])
    segments = to_segments(timeline(lr), 0)
    assert [s.lr_to for s in segments] == [None] * 3
    np.testing.assert_array_equal(hyper_of(segments).rates(0, 0, len(lr))[0], lr)


def test_unknown_rates_have_no_segment():
    lr = np.full(300, 0.1)
    lr[100:200] = np.nan
    found = hyper_of(to_segments(timeline(lr), 0)).rates(0, 0, 300)[0]
    np.testing.assert_array_equal(found, lr)


def test_an_unknown_decay_stays_unknown():
    segments = to_segments(timeline(np.full(50, 0.1), np.nan), 0)
    assert [s.weight_decay for s in segments] == [None]
    assert np.isnan(hyper_of(segments).rates(0, 0, 50)[1]).all()


def test_a_decay_that_changes_under_a_smooth_rate():
    total = 5000
    lr = np.array([SCHEDULES["cosine"](t, total) for t in range(total)])
    decay = np.where(np.arange(total) < 1234, 1e-3, 2e-3)
    found, wd = hyper_of(to_segments(timeline(lr, decay), 0)).rates(0, 0, total)
    np.testing.assert_array_equal(wd, decay)
    assert np.abs(found - lr).max() <= 1e-6 * 0.1


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.floats(1e-6, 1.0)), min_size=1, max_size=30),
    st.integers(0, 40),
)
def test_any_staircase_comes_back_and_in_any_window(stairs, offset):
    lr = np.repeat([rate for _, rate in stairs], [length for length, _ in stairs])
    hyper = hyper_of(to_segments(timeline(lr, start=10), 0))
    first = 10 + min(offset, len(lr) - 1)
    found, _ = hyper.rates(0, first, 10 + len(lr))
    np.testing.assert_allclose(found, lr[first - 10 :], rtol=1e-6, atol=1e-6 * lr.max())
