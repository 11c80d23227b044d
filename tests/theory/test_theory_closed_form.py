import mpmath
import numpy as np
import pytest
from theory_helpers import walk

from smdlens.theory.closed_form import one_step_turn2, trend_moments
from smdlens.theory.decay_root import decay_log_rate
from smdlens.theory.moments import adam_direction, advance, heavy_ball, nesterov, steady_state

RULES = [
    (heavy_ball(0.0), 5e-4, 0.0),
    (heavy_ball(0.9), 5e-4, 0.0),
    (heavy_ball(0.9, 0.2), 5e-4, 1e-4),
    (nesterov(0.9), 5e-4, 0.0),
    (heavy_ball(0.9), 0.0, 5e-4),
    (adam_direction(0.9), 1e-4, 5e-3),
]


def relax(rule, W, G, lr, coupled, decoupled, steps):
    """Run the recursion past its momentum transient; the last state and angles."""
    P, V = 0.0, 0.0
    states = []
    for _ in range(steps):
        W, P, V, turn2 = advance(rule, W, P, V, G, lr, coupled, decoupled)
        states.append((W, P, V, turn2))
    return np.array(states)


@pytest.mark.parametrize(("rule", "coupled", "decoupled"), RULES)
@pytest.mark.parametrize("ratio", [0.03, 0.3, 1.0, 3.0])
def test_recovers_the_angle_of_a_relaxing_norm(rule, coupled, decoupled, ratio):
    lr = 0.1
    fixed = steady_state(rule, lr, coupled, decoupled)
    W = float(fixed.w_over_g) / ratio ** (1.0 if rule.normalised else 0.5)
    states = relax(rule, W, 1.0, lr, coupled, decoupled, 300)
    before, after = states[200], states[210]
    turn2, below = one_step_turn2(rule, before[0], after[0], 10, lr, coupled, decoupled)
    assert not below
    assert turn2 == pytest.approx(states[201:211, 3].mean(), rel=2e-3)


@pytest.mark.parametrize(("rule", "coupled", "decoupled"), RULES)
def test_no_trend_is_the_steady_state(rule, coupled, decoupled):
    fixed = steady_state(rule, 0.1, coupled, decoupled)
    turn2, below = one_step_turn2(rule, 3.0, 3.0, 50, 0.1, coupled, decoupled)
    assert turn2 == pytest.approx(fixed.turn2, rel=1e-12)
    assert not below


@pytest.mark.parametrize("a", [0.0, 0.5, 0.9])
def test_pure_decay_and_faster_is_below_resolution(a):
    fall = -float(decay_log_rate(0.1 * 5e-4, a))
    for s in (2 * fall, 3 * fall, 2 * fall * (1 + 1e-13)):
        trend = trend_moments(heavy_ball(a), s, 0.1, 5e-4, 0.0)
        assert trend.below_resolution
        assert trend.turn2 == 0.0
    above = trend_moments(heavy_ball(a), 1.9 * fall, 0.1, 5e-4, 0.0)
    assert not above.below_resolution
    assert above.turn2 > 0.0


def bracket_form(s, lr, decay, a, g):
    """The heavy-ball formula driven by the trends of |w|^2 and |v|^2, in 60 digits."""
    es, eg = mpmath.exp(s), mpmath.exp(g)
    delta2 = (es - 1 + 2 * lr * decay * es / (es - a)) * (eg - a) / (eg + a)
    return (delta2 - (mpmath.exp(s / 2) - 1) ** 2) / mpmath.exp(s / 2)


@pytest.mark.parametrize("growing", [False, True])
def test_agrees_with_the_buffer_trend_form(growing):
    lr, decay, a = 0.1, 5e-4, 0.9
    with mpmath.workdps(60):
        for s in (-8e-4, -3e-4, 1e-5, 5e-4):
            g = s if growing else -s
            want = bracket_form(*(mpmath.mpf(x) for x in (s, lr, decay, a, g)))
            got = trend_moments(heavy_ball(a), s, lr, decay, 0.0, growing_unit_gradient=growing)
            # they differ in how the decay's own share of |v|^2 drifts, of the order s / (1 - a)
            assert abs(float(got.turn2 / want) - 1) < 1e-4 + 0.1 * abs(s) / (1 - a)


def test_plain_sgd_is_a_right_triangle_in_60_digits():
    s = -5e-5
    with mpmath.workdps(60):
        keep = 1 - mpmath.mpf(0.1) * mpmath.mpf(5e-4)
        want = 2 * (1 - keep / mpmath.exp(mpmath.mpf(s) / 2))
    got = trend_moments(heavy_ball(0.0), s, 0.1, 5e-4, 0.0)
    assert got.turn2 == pytest.approx(float(want), rel=1e-11)


def test_real_optimizer_far_from_equilibrium():
    rule, decay, lr = heavy_ball(0.9), 5e-4, 0.1
    fixed = steady_state(rule, lr, decay, 0.0)
    run = walk(
        rule,
        np.full(300, lr),
        decay,
        0.0,
        start=float(np.sqrt(fixed.w_over_g) * 1.8),
        dim=300,
        replicas=30,
    )
    turn2, below = one_step_turn2(rule, run.W[100], run.W[300], 200, lr, decay)
    ratio = turn2 / run.turn2[100:].mean(0)
    assert not below.any()
    assert ratio.mean() == pytest.approx(1.0, abs=4 * ratio.std() / np.sqrt(30) + 2e-3)


def test_shapes_and_missing_numbers():
    turn2, below = one_step_turn2(heavy_ball(0.9), np.ones((2, 1)), np.ones(3), 10, 0.1, 1e-4)
    assert turn2.shape == below.shape == (2, 3)
    turn2, below = one_step_turn2(heavy_ball(0.9), np.nan, 1.0, 10, 0.1, 1e-4)
    assert np.isnan(turn2)
    assert below
