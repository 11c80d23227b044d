"""The paper's statements against simulations of known L, V and l, and against 50 digits."""

import mpmath
import numpy as np
import pytest

from smdlens.theory import theorems
from smdlens.theory.equilibrium import norm_sgd


def simulated(momentum, lr, decay, *, dim=40, replicas=400, updates=1500, spread=0.8, seed=1):
    """|w|^2 at the end, h~ and |v|^2 |w|^2 over the last third; |g~|^2 uniform around 1."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((replicas, dim))
    w *= float(norm_sgd(lr, decay, 1.0, momentum)) / np.linalg.norm(w, axis=1, keepdims=True)
    v = np.zeros_like(w)
    ends, hs, energies = [], [], []
    for t in range(updates):
        w2 = (w * w).sum(1)
        g = rng.standard_normal(w.shape)
        g -= ((g * w).sum(1) / w2)[:, None] * w
        unit2 = rng.uniform(1 - spread, 1 + spread, replicas)
        g *= (np.sqrt(unit2 / w2) / np.linalg.norm(g, axis=1))[:, None]
        h = ((g * g).sum(1) + 2 * momentum * (v * g).sum(1)) * w2
        v = momentum * v + g + decay * w
        w = w - lr * v
        if t >= 2 * updates // 3:
            hs.append(h)
            if t % 50 == 0:
                ends.append((w * w).sum(1))
                energies.append((v * v).sum(1) * (w * w).sum(1))
    return np.array(ends), np.array(hs), np.array(energies)


LR, DECAY = 0.1, 0.02


@pytest.fixture(scope="module")
def plain():
    return simulated(0.0, LR, DECAY)


@pytest.fixture(scope="module")
def heavy():
    return simulated(0.9, 0.02, DECAY)


def test_norms_stay_within_the_bound_of_theorem_1(plain):
    ends, h, _ = plain
    lower, mean, variance = 0.2, 1.0, 0.8**2 / 3
    assert h.mean() == pytest.approx(mean, rel=4e-3)
    assert h.var() == pytest.approx(variance, rel=1e-2)
    assert h.min() > lower - 1e-9
    w_star2 = norm_sgd(LR, DECAY, mean) ** 2
    deviation2 = ((ends - w_star2) ** 2).mean()
    bound = theorems.norm2_variance_bound(variance, LR, lower)
    assert 0.001 * bound < deviation2 < bound
    assert bound / w_star2**2 == pytest.approx(
        theorems.relative_norm2_variance_bound(variance, mean, lower, LR, DECAY), rel=3e-3
    )


@pytest.mark.parametrize(("run", "momentum", "lr"), [("plain", 0.0, LR), ("heavy", 0.9, 0.02)])
def test_the_scatter_of_norms_is_the_derived_one(run, momentum, lr, request):
    ends, h, _ = request.getfixturevalue(run)
    scatter = h.std() / h.mean()
    expected = theorems.norm2_scatter(scatter, lr, DECAY, momentum)
    w_star2 = norm_sgd(lr, DECAY, h.mean(), momentum) ** 2
    assert ends.mean() == pytest.approx(w_star2, rel=5e-3)
    assert ends.std() / w_star2 == pytest.approx(expected, rel=0.06)


def test_buffer_energies_show_the_scatter_of_h(heavy):
    _, h, energies = heavy
    relative = energies.var() / energies.mean() ** 2
    assert theorems.scatter_from_energies(relative, 0.9) == pytest.approx(
        h.std() / h.mean(), rel=0.05
    )


def test_the_start_vanishes_as_the_theorem_says():
    """Mean |w|^2 relaxes from twice its equilibrium no slower than (1 - 2 lr decay)^t."""
    start2 = 2 * norm_sgd(LR, DECAY, 1.0) ** 2
    w2 = start2
    for _ in range(400):
        w2 = (1 - LR * DECAY) ** 2 * w2 + LR**2 / w2
    left = theorems.vanishing_factor(400, LR, DECAY)
    # The bound speaks of the squared deviation.
    ratio = (w2 - start2 / 2) / (start2 / 2)
    assert ratio**2 < left
    assert left == pytest.approx((1 - 2 * LR * DECAY) ** 400, rel=1e-12)
    assert theorems.vanishing_factor(10, 0.5, 1.5) == 0.0


@pytest.mark.parametrize("x", [1e-9, 1e-5, 2e-4, 1e-3])
@pytest.mark.parametrize("a", [0.0, 0.6, 0.9])
def test_printed_limits_in_many_digits(x, a):
    with mpmath.workdps(50):
        X, A = mpmath.mpf(x), mpmath.mpf(a)
        if a == 0.0:
            inner = 2 * X / (1 - 2 * X)
        else:
            inner = 6 * X / ((1 - A) ** 3 * (1 + A) - 8 * X * (1 - A))
        assert float(2 * inner**2) == pytest.approx(
            theorems.lower_bound_limit(x, 1.0, a), rel=1e-12
        )
        smooth = 4 * mpmath.mpf("0.9") * X ** mpmath.mpf("1.5")
        assert float(smooth) == pytest.approx(theorems.smoothness_limit(0.9, 1.0, x), rel=1e-13)
        assert float((1 - mpmath.sqrt(A)) ** 2) == pytest.approx(
            theorems.oscillation_limit(a), rel=1e-12
        )
        assert float(mpmath.cbrt(X / (2 * mpmath.mpf("0.3")))) == pytest.approx(
            theorems.angle_bound(x, 2.0, 0.3), rel=1e-13
        )


def test_no_lower_bound_is_enough_where_the_denominator_is_gone():
    # (1-a)^2 (1+a) / 8 at a = 0.9
    assert theorems.lower_bound_limit(0.1, 2.4e-2, 0.9) == np.inf
    assert np.isfinite(theorems.lower_bound_limit(0.1, 2.3e-2, 0.9))


def test_gradients_that_may_vanish_leave_no_bound():
    assert theorems.norm2_variance_bound(1.0, 0.1, 0.0) == np.inf
    assert theorems.relative_norm2_variance_bound(1.0, 1.0, -0.1, 0.1, 0.1) == np.inf
    assert theorems.angle_bound(1.0, 1.0, 0.0) == np.inf
