import mpmath
import numpy as np
import pytest
from theory_helpers import close_in_mean, walk

from smdlens.theory.moments import (
    UpdateRule,
    adam_direction,
    advance,
    heavy_ball,
    nesterov,
    steady_state,
)

RULES = {
    "sgd": (heavy_ball(0.0), 2e-2, 0.0),
    "heavy_ball": (heavy_ball(0.9), 5e-3, 0.0),
    "dampened": (heavy_ball(0.8, 0.3), 5e-3, 0.0),
    "nesterov": (nesterov(0.9), 5e-3, 0.0),
    "sgdw": (heavy_ball(0.9), 0.0, 2e-2),
    "adamw": (adam_direction(0.9), 0.0, 5e-2),
    "adamw_leaking": (adam_direction(0.9), 2e-3, 5e-2),
    "nesterov_both": (nesterov(0.7), 1e-2, 1e-2),
    "odd": (UpdateRule(0.6, 0.5, 1.3, 0.4, False), 1e-2, 5e-3),
}


def textbook_step(rule, W, P, V, G, lr, coupled, decoupled):
    """The recursion in (W, P, V) as one writes it down, in 60 digits."""
    a, c, p, q = (mpmath.mpf(x) for x in (rule.a, rule.c, rule.p, rule.q))
    gg = G if rule.normalised else G / W
    al = 1 - lr * decoupled
    d = a * P + c * coupled * W
    v2 = a**2 * V + c**2 * (gg + coupled**2 * W) + 2 * a * c * coupled * P
    x = a * coupled * P + c * (gg + coupled**2 * W)
    e = p * d + q * coupled * W
    u2 = p**2 * v2 + q**2 * (gg + coupled**2 * W) + 2 * p * q * x
    y = p * v2 + q * x
    new = al**2 * W - 2 * lr * al * e + lr**2 * u2
    turn2 = 2 * (1 - (al * W - lr * e) / mpmath.sqrt(W * new))
    return new, al * d - lr * y, v2, turn2


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("size", [1e-6, 1.0, 50.0])
def test_advance_is_the_textbook_recursion(name, size):
    rule, coupled, decoupled = RULES[name]
    state = [1.7, 0.03 * size, 0.9 * size**2]
    args = [0.8 * size, 0.05, coupled, decoupled]
    with mpmath.workdps(60):
        want = textbook_step(rule, *(mpmath.mpf(x) for x in (*state, *args)))
        got = advance(rule, *state, *args)
        for g, w in zip(got, want, strict=True):
            assert abs(mpmath.mpf(float(g)) / w - 1) < 1e-13


def test_pure_decay_turns_by_exactly_nothing():
    rule = heavy_ball(0.9)
    W, P, V = 2.0, 2.0 * 0.3, 2.0 * 0.3**2
    for _ in range(50):
        W, P, V, turn2 = advance(rule, W, P, V, 0.0, 0.1, 5e-4, 0.0)
        assert turn2 == pytest.approx(0.0, abs=1e-17)


@pytest.mark.parametrize("name", RULES)
def test_steady_state_is_a_fixed_point(name):
    rule, coupled, decoupled = RULES[name]
    lr = np.array([[1e-6], [1e-3], [0.1]])
    fixed = steady_state(rule, lr, coupled, np.array([decoupled, decoupled]))
    W = fixed.w_over_g
    state = (W, fixed.P_over_W * W, fixed.V_over_W * W)
    after = advance(rule, *state, 1.0, lr, coupled, decoupled)
    assert after[0].shape == (3, 2)
    for old, new in zip((*state, fixed.turn2), after, strict=True):
        assert np.allclose(new, old, rtol=1e-12)


def test_steady_state_is_theorem_2():
    lr, decay, a = 0.1, 5e-4, 0.9
    fixed = steady_state(heavy_ball(a), lr, decay, 0.0)
    assert fixed.w_over_g**2 == pytest.approx(
        lr / (decay * (1 - a) * (2 - decay * lr / (1 + a))), rel=1e-12
    )
    assert fixed.turn2 == pytest.approx(2 * lr * decay / (1 + a), rel=1e-12)


def test_scalars_give_scalars_and_no_decay_no_motion():
    fixed = steady_state(heavy_ball(0.9), 0.1, 0.0, 0.0)
    assert np.ndim(fixed.turn2) == 0
    assert fixed.turn2 == 0.0
    assert np.isinf(fixed.w_over_g)


@pytest.mark.parametrize("name", RULES)
def test_equilibrium_of_the_real_optimizer(name):
    rule, coupled, decoupled = RULES[name]
    lr = 0.1
    fixed = steady_state(rule, lr, coupled, decoupled)
    start = float(np.sqrt(fixed.w_over_g))
    burn = 300
    run = walk(rule, np.full(1100, lr), coupled, decoupled, start=start, dim=150, replicas=24)
    # constant unit gradient: what is left is <v', g>, whose mean is zero
    assert close_in_mean(run.turn2[burn:].mean(0), fixed.turn2, floor=4e-3)
    assert close_in_mean(run.W[burn:].mean(0), fixed.w_over_g, floor=1e-2)
    ratio = (run.P / run.W)[burn:].mean(0)
    assert close_in_mean(ratio, fixed.P_over_W, floor=5e-3)


@pytest.mark.parametrize("name", ["heavy_ball", "nesterov", "adamw"])
def test_advance_follows_the_real_optimizer_through_a_cut(name):
    rule, coupled, decoupled = RULES[name]
    lr = np.where(np.arange(240) < 120, 0.1, 0.02)
    run = walk(rule, lr, coupled, decoupled, start=1.5, dim=400, replicas=24)
    W, P, V = 1.5**2, 0.0, 0.0
    for t, eta in enumerate(lr):
        W, P, V, turn2 = advance(rule, W, P, V, 1.0, eta, coupled, decoupled)
        if t in (0, 5, 60, 119, 120, 125, 239):
            assert close_in_mean(run.W[t + 1], W, errors=4, floor=1e-3)
            assert close_in_mean(run.turn2[t], turn2, errors=4, floor=1e-3)
            assert close_in_mean(run.V[t + 1], V, errors=4, floor=1e-3)
