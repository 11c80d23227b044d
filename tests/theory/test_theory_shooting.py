import time

import numpy as np
import pytest
from theory_helpers import close_in_mean, walk

from smdlens.theory.moments import adam_direction, advance, heavy_ball, nesterov, steady_state
from smdlens.theory.shooting import initial_moments, shoot

RULES = {
    "sgd": (heavy_ball(0.0), 5e-4, 0.0, 0.1),
    "heavy_ball": (heavy_ball(0.9), 5e-4, 0.0, 0.1),
    "nesterov": (nesterov(0.9), 5e-4, 0.0, 0.1),
    "sgdw": (heavy_ball(0.9, 0.1), 1e-4, 5e-4, 0.02),
    "adamw": (adam_direction(0.9), 1e-4, 0.05, 1e-3),
}


def forward(rule, lr, coupled, decoupled, W, P, V, G, counts):
    """Step-by-step oracle: finished intervals stand still."""
    total, last = np.zeros_like(W), np.zeros_like(W)
    for t in range(len(lr)):
        W2, P2, V2, turn2 = advance(rule, W, P, V, G, lr[t], coupled, decoupled)
        on = t < counts
        W, P, V = (np.where(on, x, y) for x, y in ((W2, W), (P2, P), (V2, V)))
        total += np.where(on, turn2, 0.0)
        last = np.where(on, turn2, last)
    return W, P, V, total / counts, last


@pytest.mark.parametrize("name", RULES)
def test_finds_a_known_gradient_through_a_cut(name):
    rule, coupled, decoupled, rate = RULES[name]
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 300, (6, 5))
    lr = rate * np.where(np.arange(300) < 120, 1.0, 0.1)[:, None, None]
    lr = lr * np.linspace(0.9, 1.1, 5)
    W0 = np.full((6, 5), 50.0)
    G = np.exp(rng.normal(4.0, 1.0, (6, 5)))
    P0, V0 = np.zeros((6, 5)), np.zeros((6, 5))
    P0[:3], V0[:3] = 0.5, 4.0
    W1, P1, V1, mean, last = forward(rule, lr, coupled, decoupled, W0, P0, V0, G, counts)
    shot = shoot(rule, lr, coupled, decoupled, W0, P0, V0, W1, counts)
    assert shot.converged.all()
    assert not shot.below_resolution.any()
    assert np.abs(shot.residual).max() < 4e-12
    # a norm to 1e-12 fixes an angle that moved it by x to 1e-12 / x
    room = 1e-8 + 1e-11 / np.abs(counts * mean)
    for got, want in (
        (shot.G, G),
        (shot.turn2_mean, mean),
        (shot.turn2_last, last),
        (shot.V_end, V1),
    ):
        assert np.all(np.abs(got / want - 1) < room)
    assert np.allclose(shot.P_end, P1, rtol=1e-6, atol=1e-9)
    assert shot.evaluations.max() <= 9


def test_equilibrium_gives_the_steady_state():
    rule, coupled, decoupled, lr = RULES["nesterov"]
    fixed = steady_state(rule, lr, coupled, decoupled)
    W = 2.0
    shot = shoot(rule, lr, coupled, decoupled, W, fixed.P_over_W * W, fixed.V_over_W * W, W, 200)
    assert np.ndim(shot.G) == 0
    assert shot.turn2_mean == pytest.approx(fixed.turn2, rel=1e-9)
    assert pytest.approx((W / fixed.w_over_g) ** 2, rel=1e-9) == shot.G


def test_pure_decay_is_below_resolution():
    rule = heavy_ball(0.9)
    P, V = initial_moments(rule, 1.0, 0.0, 0.1, 5e-4, 0.0)
    shot = shoot(rule, 0.1, 5e-4, 0.0, 1.0, P, V, np.array([0.5, 0.9999]), 100)
    assert list(shot.below_resolution) == [True, False]
    assert shot.G[0] == 0.0
    assert not shot.converged[0]
    assert shot.converged[1]
    assert shot.W_end[0] > 0.5


def test_unusable_inputs_do_not_spoil_the_batch():
    W0 = np.array([1.0, np.nan, 0.0, 1.0, 1.0])
    W1 = np.array([1.0, 1.0, 1.0, np.inf, 1.0])
    shot = shoot(heavy_ball(0.9), 0.1, 5e-4, 0.0, W0, 0.0, 0.0, W1, np.array([10, 10, 10, 10, 0]))
    assert list(shot.converged) == [True, False, False, False, False]
    assert np.isnan(shot.turn2_mean[1:]).all()
    assert shot.turn2_mean[0] > 0


def test_huge_growth_and_rates_of_zero():
    rule = heavy_ball(0.9)
    shot = shoot(rule, 0.1, 5e-4, 0.0, 1.0, 0.0, 0.0, np.array([1e6, 1.0 + 1e-9]), 100)
    assert shot.converged.all()
    warm_up = np.array([0.0, 0.01, 0.02, 0.03])
    shot = shoot(rule, warm_up, 5e-4, 0.0, 1.0, 0.0, 0.0, 1.01)
    assert shot.converged
    shot = shoot(rule, np.zeros(4), 5e-4, 0.0, 1.0, 0.0, 0.0, 1.01)
    assert not shot.converged


@pytest.mark.parametrize("name", RULES)
def test_initial_moments_of_a_drifting_norm(name):
    rule, coupled, decoupled, lr = RULES[name]
    fixed = steady_state(rule, lr, coupled, decoupled)
    W, P, V = float(fixed.w_over_g) * 3.0, 0.0, 0.0
    for _ in range(300):
        before = W
        W, P, V, _ = advance(rule, W, P, V, 1.0, lr, coupled, decoupled)
    s = np.log(W / before)
    for known in (None, 1.0):
        got_P, got_V = initial_moments(rule, W, s, lr, coupled, decoupled, known)
        assert got_P == pytest.approx(P, rel=2e-3)
        assert got_V == pytest.approx(V, rel=2e-3)


@pytest.mark.parametrize("name", ["heavy_ball", "nesterov", "adamw"])
def test_real_optimizer_with_jump_and_first_interval(name):
    rule, coupled, decoupled, rate = RULES[name]
    lr = rate * np.where(np.arange(400) < 250, 1.0, 0.1)
    scale = float(steady_state(rule, rate, coupled, decoupled).w_over_g) ** 0.5
    run = walk(rule, lr, coupled, decoupled, start=0.8 * scale, dim=300, replicas=24)
    P, V = np.zeros(24), np.zeros(24)
    for start in range(0, 400, 100):
        span = slice(start, start + 100)
        shot = shoot(rule, lr[span], coupled, decoupled, run.W[start], P, V, run.W[start + 100])
        assert shot.converged.all()
        ratio = shot.turn2_mean / run.turn2[span].mean(0)
        assert close_in_mean(ratio, 1.0, errors=4, floor=3e-3)
        # the gradient had unit norm throughout
        assert close_in_mean(shot.G, 1.0, errors=4, floor=6e-3)
        P, V = shot.P_end, shot.V_end


def test_a_second_pass_hands_the_buffers_over():
    """All intervals at once, quasi-steady starts first: the error falls by 1 / ((1 - a) n)."""
    rule, coupled, decoupled, rate = RULES["heavy_ball"]
    W, P, V = 2 * float(steady_state(rule, rate, coupled, decoupled).w_over_g), 0.0, 0.0
    norms, ends, lr = [W], [(0.0, 0.0)], rate * np.where(np.arange(300) < 170, 1.0, 0.1)
    for t in range(300):
        W, P, V, _ = advance(rule, W, P, V, 1.0, lr[t], coupled, decoupled)
        if t % 75 == 74:
            norms.append(W)
            ends.append((P, V))
    W, steps = np.array(norms), lr.reshape(4, 75).T
    P, V = initial_moments(rule, W[:-1], np.log(W[1:] / W[:-1]) / 75, steps[0], coupled, decoupled)
    P[0] = V[0] = 0.0
    errors, guess = [], None
    for _ in range(6):
        shot = shoot(rule, steps, coupled, decoupled, W[:-1], P, V, W[1:], guess=guess)
        errors.append(np.abs(shot.G - 1.0).max())
        P[1:], V[1:], guess = shot.P_end[:-1], shot.V_end[:-1], shot.G
    assert errors[0] > 1e-3
    assert errors[-1] < 1e-6
    assert np.allclose(shot.P_end, [p for p, _ in ends[1:]], rtol=1e-4)
    assert np.allclose(shot.V_end, [v for _, v in ends[1:]], rtol=1e-4)


def test_a_long_run_takes_seconds():
    rule = heavy_ball(0.9)
    lr = np.linspace(0.1, 0.001, 1000)[:, None]
    rng = np.random.default_rng(7)
    W1 = 100.0 * np.exp(0.02 * rng.standard_normal(5000))
    started = time.perf_counter()
    shot = shoot(rule, lr, 5e-4, 0.0, 100.0, 0.0, 0.0, W1)
    assert shot.converged.all()
    assert shot.evaluations.mean() <= 8
    # 5 million updates; generous for a busy machine
    assert time.perf_counter() - started < 10
