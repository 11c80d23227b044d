import numpy as np
import pytest

from smdlens.theory import equilibrium as eq
from smdlens.theory.moments import adam_direction, heavy_ball, nesterov, steady_state

TINY = 1e-7


@pytest.mark.parametrize("a", [0.0, 0.5, 0.9, 0.99])
def test_rows_are_the_limit_of_the_linear_system(a):
    lr = 0.1
    decay = TINY
    pairs = [
        (eq.angular_update_sgd(lr, decay, a), eq.angular_update(heavy_ball(a), lr, decay)),
        (eq.angular_update_nesterov(lr, decay, a), eq.angular_update(nesterov(a), lr, decay)),
        (eq.angular_update_sgdw(lr, decay, a), eq.angular_update(heavy_ball(a), lr, 0.0, decay)),
        (
            eq.angular_update_adamw(lr, decay, a),
            eq.angular_update(adam_direction(a), lr, 0.0, decay),
        ),
        (
            eq.norm_sgd(lr, decay, 2.0, a),
            (np.sqrt(2.0) * steady_state(heavy_ball(a), lr, decay, 0.0).w_over_g) ** 0.5,
        ),
        (
            eq.norm_sgdw(lr, decay, 2.0, a),
            (np.sqrt(2.0) * steady_state(heavy_ball(a), lr, 0.0, decay).w_over_g) ** 0.5,
        ),
        (
            eq.norm_adamw(lr, decay, 7.0),
            (7.0 * steady_state(adam_direction(a), lr, 0.0, decay).w_over_g) ** 0.5,
        ),
    ]
    for row, exact in pairs:
        assert row == pytest.approx(exact, rel=3e-5)


def test_nesterov_against_heavy_ball_at_point_nine():
    ratio = eq.angular_update_nesterov(0.1, 1e-4, 0.9) / eq.angular_update_sgd(0.1, 1e-4, 0.9)
    assert ratio == pytest.approx(1.1584, abs=1e-4)


def test_leading_order_row_is_off_by_what_docs_say():
    lr, decay = 1.0, 5e-3
    exact = eq.angular_update(nesterov(0.9), lr, decay)
    assert abs(exact / eq.angular_update_nesterov(lr, decay, 0.9) - 1) < 0.02
    assert eq.angular_update(heavy_ball(0.9), lr, decay) == pytest.approx(
        np.arccos(1 - lr * decay / 1.9), rel=1e-9
    )


def adam_like(rng, steps, step, w):
    """Angles and norms after a burn-in of half the steps."""
    angles, norms = [], []
    for t in range(steps):
        new = step(t, w)
        if t >= steps // 2:
            cos = np.sum(w * new, 1) / np.sqrt(np.sum(w * w, 1) * np.sum(new * new, 1))
            angles.append(2 * (1 - cos))
            norms.append(np.sum(new * new, 1))
        w = new
    return np.mean(angles, 0), np.mean(norms, 0)


def test_adam_l2_by_simulation():
    rng = np.random.default_rng(4)
    lr, decay, b1, b2, d, norm = 2e-3, 0.5, 0.9, 0.99, 300, 3.0
    start = float(eq.norm_adam_l2(lr, decay, d, norm))
    w = rng.standard_normal((16, d))
    w *= start / np.linalg.norm(w, axis=1, keepdims=True)
    m, second = np.zeros_like(w), np.full(w.shape, norm**2 / start**2 / d)

    def step(t, w):
        nonlocal m, second
        g = rng.standard_normal(w.shape)
        g -= (np.sum(g * w, 1) / np.sum(w * w, 1))[:, None] * w
        g *= (
            norm
            / np.linalg.norm(g, axis=1, keepdims=True)
            / np.linalg.norm(w, axis=1, keepdims=True)
        )
        h = g + decay * w
        m = b1 * m + (1 - b1) * h
        second = b2 * second + (1 - b2) * h * h
        return w - lr * m / np.sqrt(second) / (1 - b1 ** (t + 1))

    turn2, w2 = adam_like(rng, 3000, step, w)
    want = float(eq.angular_update_adam_l2(lr, decay, b1, d, norm))
    assert np.sqrt(turn2.mean()) == pytest.approx(want, rel=0.04)
    assert np.sqrt(w2.mean()) == pytest.approx(start, rel=0.04)


@pytest.mark.parametrize(
    ("lr", "decay", "b1", "b2"),
    # Memories of 100, 50 and 1000 updates, short beside the relaxation's and not.
    [
        (1e-4, 1.0, 0.9, 0.99),
        (1e-3, 1.0, 0.9, 0.99),
        (3e-3, 1.0, 0.95, 0.98),
        (1e-3, 1.0, 0.9, 0.999),
    ],
)
def test_lion_by_simulation(lr, decay, b1, b2):
    rng = np.random.default_rng(5)
    d = 400
    start = float(eq.norm_lion(lr, decay, b1, b2, d))
    w = rng.standard_normal((16, d))
    w *= start / np.linalg.norm(w, axis=1, keepdims=True)
    m = np.sqrt((1 - b2) / (1 + b2)) * rng.standard_normal(w.shape)
    norms = [np.sum(w * w, 1)]

    def step(t, w):
        nonlocal m
        g = rng.standard_normal(w.shape)
        g -= (np.sum(g * w, 1) / np.sum(w * w, 1))[:, None] * w
        u = np.sign(b1 * m + (1 - b1) * g)
        m = b2 * m + (1 - b2) * g
        after = (1 - lr * decay) * w - lr * u
        norms.append(np.sum(after * after, 1))
        return after

    turn2, w2 = adam_like(rng, 8000, step, w)
    want = float(eq.angular_update_lion(lr, decay, b1, b2))
    # The simulation's own error: norms that relax over 1 / (2 lr decay) updates in 16 copies.
    assert np.sqrt(turn2.mean()) == pytest.approx(want, rel=0.006)
    assert np.sqrt(w2.mean()) == pytest.approx(start, rel=0.006)
    # Update by update it is an identity.
    W = np.array(norms)
    one = eq.turn2_lion(lr, decay, d, W[:-1], W[1:])
    np.testing.assert_allclose(one[4000:].mean(0), turn2, rtol=1e-9)


def test_lion_to_leading_order():
    """Slow relaxation and signs that agree little: the formula of the literature."""
    X = 0.1**2 + 0.9**2 * 0.001 / 1.999
    want = np.sqrt(np.pi * 1e-9 * X)
    assert eq.angular_update_lion(1e-8, 0.1, 0.9, 0.999) == pytest.approx(want, rel=0.005)


def test_lion_between_two_norms():
    """The mean of 1 / W along a relaxation, from above, below, at rest and without steps."""
    t = np.linspace(0.0, 1.0, 200_001)
    for start, end, fall in ((1.0, 0.3, 2.0), (1.0, 3.0, 0.5), (2.0, 2.0, 1.0), (1.0, 0.4, 1e-3)):
        target = (end - start * np.exp(-fall)) / -np.expm1(-fall)
        path = target + (start - target) * np.exp(-fall * t)
        got = float(eq.mean_inverse_norm2_lion(start, end, fall))
        assert got == pytest.approx(np.trapezoid(1.0 / path, t), rel=1e-8)
    assert float(eq.mean_inverse_norm2_lion(1.0, np.exp(-0.7), 0.7)) == pytest.approx(
        np.expm1(0.7) / 0.7, rel=1e-12
    )
