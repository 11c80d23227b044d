"""The trend test against all orders, another implementation and its own level."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from smdlens.theory.trend import FEWEST, falling


@pytest.mark.parametrize("n", [5, 6, 7])
def test_exact_chance_by_all_orders(n):
    orders = [np.array(order, dtype=float) for order in itertools.permutations(range(n))]
    i, j = np.triu_indices(n, 1)
    sums = np.array([np.sign(o[j] - o[i]).sum() for o in orders])
    at = np.arange(n, dtype=float)
    for order, s in list(zip(orders, sums, strict=True))[:: max(1, len(orders) // 60)]:
        assert falling(at, order)[1] == pytest.approx(np.mean(sums <= s), abs=1e-12)


def test_beside_scipy():
    rng = np.random.default_rng(5)
    for n in (8, 9, 30, 80):
        at, values = np.sort(rng.random(n)), rng.standard_normal(n)
        change, p = falling(at, values)
        theirs = stats.kendalltau(at, values, alternative="less", method="exact").pvalue
        assert p == pytest.approx(theirs, rel=1e-9)
        slope = stats.theilslopes(values, at).slope
        assert change == pytest.approx(slope * (at[-1] - at[0]), rel=1e-12)


def test_level_and_power():
    """About 1% of series without a trend fall at the level of 1%; those that do fall are seen."""
    rng = np.random.default_rng(6)
    at = np.arange(20.0)
    alarms = sum(falling(at, rng.standard_normal(20))[1] < 0.01 for _ in range(4000))
    assert alarms / 4000 == pytest.approx(0.01, abs=0.005)
    seen = sum(falling(at, rng.standard_normal(20) - 0.2 * at)[1] < 0.01 for _ in range(300))
    assert seen > 280


def test_few_values_and_ties():
    assert FEWEST == 5
    assert falling(np.arange(4.0), np.arange(4.0)) == (None, None)
    change, p = falling(np.arange(6.0), np.ones(6))
    assert change == 0.0
    assert p > 0.4
    change, p = falling(np.arange(5.0), -np.arange(5.0))
    assert (change, p) == (-4.0, pytest.approx(1 / math.factorial(5)))


def test_many_values():
    rng = np.random.default_rng(8)
    at = np.arange(3000.0)
    assert falling(at, rng.standard_normal(3000) - 1e-3 * at)[1] < 1e-6
    assert falling(at, rng.standard_normal(3000) + 1e-3 * at)[1] > 0.999
