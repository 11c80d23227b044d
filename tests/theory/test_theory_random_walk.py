import numpy as np
import pytest
from theory_helpers import close_in_mean, walk

from smdlens.theory.linear_scaling import scaling_ratio
from smdlens.theory.moments import adam_direction, heavy_ball, nesterov, steady_state
from smdlens.theory.random_walk import (
    random_walk_angle,
    random_walk_correlation,
    random_walk_turn2,
)

RULES = [
    (heavy_ball(0.0), 5e-3, 0.0),
    (heavy_ball(0.9), 5e-3, 0.0),
    (nesterov(0.9), 5e-3, 0.0),
    (heavy_ball(0.9), 0.0, 2e-2),
    (adam_direction(0.9), 0.0, 5e-2),
    (heavy_ball(0.9), 0.5, 0.1),  # complex roots
]


def by_recursion(n, rule, lr, coupled, decoupled):
    kept = 1 - lr * decoupled - lr * rule.q * coupled
    f1, f2 = kept + rule.a - lr * rule.p * rule.c * coupled, -rule.a * kept
    rho = [1.0, 1 - float(steady_state(rule, lr, coupled, decoupled).turn2) / 2]
    while len(rho) <= n:
        rho.append(f1 * rho[-1] + f2 * rho[-2])
    return np.array(rho[: n + 1])


@pytest.mark.parametrize(("rule", "coupled", "decoupled"), RULES)
def test_closed_form_is_the_recursion(rule, coupled, decoupled):
    rho = by_recursion(500, rule, 0.1, coupled, decoupled)
    got = random_walk_correlation(np.arange(501.0), rule, 0.1, coupled, decoupled)
    assert np.abs(got - rho).max() < 1e-11


@pytest.mark.parametrize("near", [0.0, 1e-13, 1e-9, 1e-5, -1e-9])
def test_double_root_has_no_seam(near):
    y = (1 - np.sqrt(0.9)) ** 2 * (1 + near)
    rho = by_recursion(300, heavy_ball(0.9), 1.0, y, 0.0)
    got = random_walk_correlation(np.arange(301.0), heavy_ball(0.9), 1.0, y)
    assert np.abs(got - rho).max() < 1e-9


def test_small_and_huge_lags():
    rule = heavy_ball(0.9)
    one = random_walk_turn2(np.array([0.0, 1.0, 1e6, 1e9]), rule, 1e-6, 1e-4)
    assert one[0] == 0.0
    assert one[1] == pytest.approx(2 * 1e-10 / 1.9, rel=1e-6)
    assert random_walk_turn2(1e6, rule, 0.1, 1e-4) == pytest.approx(2.0)
    # far below the relaxation time: 2 lr decay n / (1 - a)
    assert one[2] == pytest.approx(2 * 1e-10 * 1e6 / 0.1, rel=2e-3)
    naive = 1e4 * random_walk_turn2(1.0, rule, 1e-6, 1e-4)
    assert random_walk_turn2(1e4, rule, 1e-6, 1e-4) / naive == pytest.approx(19, rel=0.01)


@pytest.mark.parametrize(("rule", "coupled", "decoupled"), RULES[:5])
def test_real_optimizer_wanders_as_far(rule, coupled, decoupled):
    lr = 0.1
    start = float(np.sqrt(steady_state(rule, lr, coupled, decoupled).w_over_g))
    run = walk(
        rule,
        np.full(700, lr),
        coupled,
        decoupled,
        start=start,
        dim=200,
        replicas=16,
        keep_vectors=True,
    )
    unit = run.weights / np.linalg.norm(run.weights, axis=2, keepdims=True)
    for lag in (1, 2, 5, 20, 100):
        turn2 = np.sum((unit[300 + lag :] - unit[300:-lag]) ** 2, 2).mean(0)
        want = random_walk_turn2(lag, rule, lr, coupled, decoupled)
        assert close_in_mean(turn2, want, floor=0.01)


def test_angle_matches_correlation():
    theta = random_walk_angle(np.array([1.0, 50.0, 1e5]), heavy_ball(0.9), 0.1, 1e-3)
    rho = random_walk_correlation(np.array([1.0, 50.0, 1e5]), heavy_ball(0.9), 0.1, 1e-3)
    assert np.allclose(np.cos(theta), rho, rtol=1e-12)


def test_linear_scaling_figures():
    k = 2.0 ** np.arange(1, 7)
    got = scaling_ratio(k, heavy_ball(0.9), 1e-4, 1e-4)
    assert np.allclose(got, [1.38, 1.88, 2.49, 3.14, 3.68, 4.02], atol=6e-3)
    assert scaling_ratio(1e5, heavy_ball(0.9), 1e-9, 1e-4) == pytest.approx(np.sqrt(19), rel=2e-3)
    assert np.allclose(scaling_ratio(k, heavy_ball(0.0), 1e-4, 1e-4), 1.0, rtol=1e-6)
