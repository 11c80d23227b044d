import numpy as np
import pytest
from theory_helpers import walk

from smdlens.theory import epsilon_leak, unit_gradient
from smdlens.theory.decay_root import decay_root
from smdlens.theory.exponential_schedule import (
    effective_rate,
    equivalent_rate,
    intrinsic_time,
    next_effective_rate,
)
from smdlens.theory.moments import advance, heavy_ball, nesterov
from smdlens.theory.shooting import initial_moments, shoot
from smdlens.theory.uncertainty import (
    SYSTEMATIC,
    boundary_correlation,
    momentum_factor,
    relative_sigma,
)


def gamma_run(rule, lr, decay, seed=0):
    """Gamma of 6 channels under arbitrary gradients; everything the leak needs, and the truth."""
    rng = np.random.default_rng(seed)
    n = len(lr)
    gradients = 0.3 + rng.standard_normal((n, 6)).cumsum(0) * 0.05
    gamma, b = np.ones(6), np.zeros(6)
    gammas, buffers = [gamma], [b]
    for eta, g in zip(lr, gradients, strict=True):
        h = g + decay * gamma
        b = rule.a * b + rule.c * h
        gamma = gamma - eta * (rule.p * b + rule.q * h)
        gammas.append(gamma)
        buffers.append(b)
    return np.array(gammas), np.array(buffers), gradients


@pytest.mark.parametrize(
    ("rule", "is_nesterov", "dampening"),
    [
        (heavy_ball(0.9), False, 0.0),
        (heavy_ball(0.9, 0.4), False, 0.4),
        (nesterov(0.9), True, 0.0),
        (heavy_ball(0.0), False, 0.0),
    ],
)
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_gamma_gives_back_its_mean_gradient(rule, is_nesterov, dampening, schedule):
    n, start, decay = 400, 100, 5e-4
    t = np.arange(n)
    lr = np.full(n, 0.01) if schedule == "constant" else 0.005 * (1.2 + np.cos(np.pi * t / n))
    gammas, buffers, gradients = gamma_run(rule, lr, decay)
    f = np.array([0.01, 0.02, 0.05, 0.001, 0.03, 0.1])
    eta = lr[start:, None]
    kwargs = {
        "leak_shift": np.sum(f * (gammas[start] - gammas[n])),
        "leak_gamma": np.sum(f * (eta * gammas[start:n]).sum(0) / eta.sum()),
        "lr_first": lr[start],
        "lr_last": lr[-1],
        "lr_sum": eta.sum(),
        "momentum": rule.a,
        "gamma_decay": decay,
        "w2_mean": 2.0,
        "nesterov": is_nesterov,
        "dampening": dampening,
        "shrink": 1.0,
    }
    want = np.sum(f * (eta * gradients[start:]).sum(0)) / eta.sum() / 2.0
    ends = np.sum(f * buffers[start]), np.sum(f * buffers[n])
    got = epsilon_leak.kappa_from_gamma(leak_buffer_from=ends[0], leak_buffer_to=ends[1], **kwargs)
    assert got == pytest.approx(want, rel=1e-10 if schedule == "constant" or rule.a == 0 else 0.01)
    without = epsilon_leak.kappa_from_gamma(
        leak_buffer_from=np.nan, leak_buffer_to=np.nan, **kwargs
    )
    assert without == pytest.approx(want, rel=0.1)
    shrunk = epsilon_leak.kappa_from_gamma(
        leak_buffer_from=ends[0],
        leak_buffer_to=ends[1],
        **{**kwargs, "shrink": epsilon_leak.KAPPA_SHRINK},
    )
    assert shrunk == pytest.approx(epsilon_leak.KAPPA_SHRINK * got)
    assert epsilon_leak.kappa_error(-shrunk) == pytest.approx(0.35 * abs(shrunk))


def test_leak_identity_of_batch_norm():
    """<w_c, g_c> = f_c gamma_c dL/dgamma_c by finite differences of a batch-normalised layer."""
    rng = np.random.default_rng(1)
    x, w, gamma, target, eps = (
        rng.standard_normal((64, 5)),
        0.05 * rng.standard_normal(5),
        1.3,
        rng.standard_normal(64),
        1e-3,
    )

    def loss(w, gamma):
        y = x @ w
        return np.mean(np.tanh(gamma * (y - y.mean()) / np.sqrt(y.var() + eps) - target) ** 2)

    step = 1e-5
    along = (loss(w * (1 + step), gamma) - loss(w * (1 - step), gamma)) / (2 * step)
    by_gamma = (loss(w, gamma + step) - loss(w, gamma - step)) / (2 * step)
    f = eps / ((x @ w).var() + eps)
    assert f > 0.05
    assert along == pytest.approx(f * gamma * by_gamma, rel=1e-7)


def test_unit_gradient_from_angles():
    lr, decay = 0.1, 5e-3
    run = walk(heavy_ball(0.0), np.full(50, lr), decay, 0.0, norm=1.7, start=1.2, replicas=4)
    angle = 2 * np.arcsin(np.sqrt(run.turn2) / 2)
    got = unit_gradient.unit_gradient_norm_plain_sgd(angle, run.W[:-1], lr, decay)
    assert np.allclose(got, 1.7, rtol=1e-10)
    run = walk(
        heavy_ball(0.9), np.full(600, 0.02), decay, 0.0, norm=1.7, start=2.757, replicas=30, dim=300
    )
    got = unit_gradient.unit_gradient_rms_from_turn2(
        run.turn2[100:].mean(0), (run.W[100:-1] ** 2).mean(0), 0.02, 0.9
    )
    assert got.mean() == pytest.approx(1.7, rel=0.01)
    assert unit_gradient.unit_gradient_norm(9.0, 4.0) == 6.0


def test_consecutive_snapshots_give_the_gradient_itself():
    run = walk(
        heavy_ball(0.9), np.full(20, 0.1), 0.01, 0.0, norm=2.5, replicas=3, keep_vectors=True
    )
    g = run.buffers[11] - 0.9 * run.buffers[10] - 0.01 * run.weights[10]
    got = unit_gradient.unit_gradient_norm(np.sum(g * g, 1), run.W[10])
    assert np.allclose(got, 2.5, rtol=1e-10)


@pytest.mark.parametrize("a", [0.5, 0.9])
@pytest.mark.parametrize("n", [200, 500])
def test_scatter_of_one_interval(a, n):
    """Independent h~ of relative scatter c_h: the recovered mean scatters by k(a) c_h / n."""
    rng = np.random.default_rng(2)
    rule, lr, decay, c_h, batch = heavy_ball(a), 0.1, 1e-4, 0.5, 1500
    W, P, V = (np.full(batch, x) for x in (100.0, 0.0, 0.0))
    shape = 1 / c_h**2
    G = 3.0 * rng.gamma(shape, 1 / shape, (150 + n, batch))
    for t in range(150):
        W, P, V, _ = advance(rule, W, P, V, G[t], lr, decay, 0.0)
    W0, total = W, np.zeros(batch)
    for t in range(150, 150 + n):
        W, P, V, turn2 = advance(rule, W, P, V, G[t], lr, decay, 0.0)
        total += turn2
    # no buffers saved: quasi-steady ends
    trend = np.log(np.mean(W) / np.mean(W0)) / n
    P0, V0 = initial_moments(rule, W0, trend, lr, decay, 0.0)
    shot = shoot(rule, lr, decay, 0.0, W0, P0, V0, W, n)
    scatter = np.std(shot.turn2_mean / (total / n))
    assert scatter == pytest.approx(float(momentum_factor(a)) * c_h / n, rel=0.35)


def test_momentum_factor_is_the_sum_over_the_past():
    a, m = 0.9, np.arange(2000)
    weights = (a**m - a ** (2 * m + 1)) / (1 - a)
    # two ends, 2 a lr B / (1 + a), against lr^2 h / (1 - a^2)
    want = np.sqrt(2 * np.sum(weights**2)) * 2 * a / (1 + a) * (1 - a**2)
    assert momentum_factor(a) == pytest.approx(want, rel=1e-12)


def test_momentum_factor_and_sum_of_errors():
    got = momentum_factor(np.array([0, 0.5, 0.8, 0.9, 0.95, 0.99]))
    assert np.allclose(got, [0, 0.96, 1.73, 2.52, 3.61, 8.14], atol=6e-3)
    q, n = 0.8, 200
    want = np.sqrt((2.5154 * 0.9 / n) ** 2 + SYSTEMATIC["heavy_ball"] ** 2 + (0.35 * 0.1 / q) ** 2)
    assert relative_sigma(q, n, 0.9, 0.9, "heavy_ball", -0.1) == pytest.approx(want, rel=1e-4)
    assert relative_sigma(0.0, n, 0.0, 1.0, "jump") == SYSTEMATIC["jump"]
    assert np.isinf(relative_sigma(0.0, n, 0.0, 1.0, "jump", 0.1))


def scale_invariant_gradient(w, targets):
    unit = w / np.linalg.norm(w)
    g = targets @ (targets.T @ unit) * 0.3 + targets[:, 0]
    return (g - (g @ unit) * unit) / np.linalg.norm(w)


@pytest.mark.parametrize("a", [0.0, 0.9])
def test_exponential_schedule_walks_the_same_directions(a):
    rng = np.random.default_rng(3)
    lr, decay = 0.1, 5e-3
    x1 = float(decay_root(lr * decay, a))
    targets = rng.standard_normal((8, 3))
    w = rng.standard_normal(8)
    other, v, v_other = w.copy(), np.zeros(8), np.zeros(8)
    if a:
        # w~_(-1) = x1^(-(-1)) w_(-1) with w_(-1) = w_0
        v_other = (w * x1 - w) / equivalent_rate(-1.0, lr, decay, a)
    for t in range(200):
        v = a * v + scale_invariant_gradient(w, targets) + decay * w
        w = w - lr * v
        v_other = a * v_other + scale_invariant_gradient(other, targets)
        other = other - equivalent_rate(float(t), lr, decay, a) * v_other
        assert np.allclose(w / np.linalg.norm(w), other / np.linalg.norm(other), atol=1e-11)
    assert np.allclose(w, x1**200 * other, rtol=1e-9)


def test_schedule_law_of_plain_sgd():
    rng = np.random.default_rng(4)
    w = rng.standard_normal(20)
    lr, decay = rng.uniform(0.01, 0.2, 31), rng.uniform(0, 0.02, 31)
    phi = effective_rate(lr[0], w @ w) / (1 - lr[0] * decay[0])
    for t in range(30):
        g = rng.standard_normal(20)
        g -= (g @ w) / (w @ w) * w
        unit2 = (g @ g) * (w @ w)
        w = (1 - lr[t] * decay[t]) * w - lr[t] * g
        phi = next_effective_rate(phi, unit2, lr[t], lr[t + 1], decay[t], decay[t + 1])
        assert phi == pytest.approx(lr[t + 1] / (1 - lr[t + 1] * decay[t + 1]) / (w @ w), rel=1e-11)


def test_clocks():
    assert np.allclose(intrinsic_time(np.array([0.1, 0.1, 0.01]), 1e-3, 0.9), [1e-3, 2e-3, 2.1e-3])
    assert effective_rate(0.1, 4.0) == 0.025
    assert effective_rate(0.1, 4.0, normalised=True) == 0.05


@pytest.mark.parametrize("momentum", [0.5, 0.9, 0.97])
def test_boundary_terms_close_together_move_together(momentum):
    """Against the sums over past gradients that both ends are made of."""
    back = np.arange(4000)

    def weights(m):
        return momentum**m - momentum ** (2.0 * m + 1)

    for n in (0, 1, 7, 60):
        want = (weights(back) * weights(back + n)).sum() / (weights(back) ** 2).sum()
        assert boundary_correlation(momentum, float(n)) == pytest.approx(want, rel=1e-9, abs=1e-15)
