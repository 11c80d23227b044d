import mpmath
import numpy as np
import pytest

from smdlens.theory import relaxation as rx
from smdlens.theory.decay_root import decay_log_rate, decay_root
from smdlens.theory.moments import adam_direction, advance, heavy_ball, nesterov, steady_state


def roots_by_brute_force(y, a, is_nesterov):
    b, c = ((1 + a) * (1 - y), a * (1 - y)) if is_nesterov else (1 + a - y, a)
    with mpmath.workdps(50):
        return max(abs(r) for r in mpmath.polyroots([1, -b, c], maxsteps=200, extraprec=200))


@pytest.mark.parametrize("is_nesterov", [False, True])
@pytest.mark.parametrize("a", [0.0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("y", [1e-9, 1e-5, 1e-3, 0.02, 0.2])
def test_decay_root_against_mpmath(y, a, is_nesterov):
    with mpmath.workdps(50):
        want = roots_by_brute_force(mpmath.mpf(y), mpmath.mpf(a), is_nesterov)
        # near a double root any formula in doubles loses half its digits
        close = 1e-13 if abs((1 - a) ** 2 - 4 * y) > 1e-2 * y else 1e-7
        assert abs(decay_root(y, a, is_nesterov) - want) < 1e-13
        assert abs(decay_log_rate(y, a, is_nesterov) / -mpmath.log(want) - 1) < close


@pytest.mark.parametrize("is_nesterov", [False, True])
def test_decay_root_is_how_weights_shrink(is_nesterov):
    a, y = 0.9, 1e-3
    w, v = 1.0, 0.0
    for _ in range(3000):
        before = w
        v = a * v + y * w
        w -= y * w + a * v if is_nesterov else v
    assert w / before == pytest.approx(decay_root(y, a, is_nesterov), rel=1e-12)


def test_measured_clock_of_the_docs():
    # -ln x1 exceeds lr decay / (1 - a) by 1 % at 1e-4 and 12 % at 1e-3
    for y, excess in ((1e-4, 0.01), (1e-3, 0.12)):
        assert decay_log_rate(y, 0.9) / (y / 0.1) - 1 == pytest.approx(excess, abs=0.006)


def updates_to_tolerance(rule, lr, decay, k, tolerance=0.05, limit=40_000):
    """From the old steady state, run the mean recursion at the new rate until within tolerance."""
    fixed, target = steady_state(rule, k * lr, decay, 0.0), steady_state(rule, lr, decay, 0.0)
    W = float(fixed.w_over_g)
    P, V = float(fixed.P_over_W) * W, float(fixed.V_over_W) * W
    a, wanted = rule.a, float(target.turn2)
    for n in range(limit):
        # heavy ball written out: the array version would take minutes
        drive = a * P + decay * W
        V = a * a * V + 1.0 / W + decay**2 * W + 2 * a * decay * P
        new = W - 2 * lr * drive + lr * lr * V
        P = drive - lr * V
        turn2 = 2 * (1 - (W - lr * drive) / np.sqrt(W * new))
        W = new
        if abs(np.sqrt(turn2 / wanted) - 1) <= tolerance and n > 60:
            return n
    raise AssertionError("did not settle")


@pytest.mark.parametrize(
    ("k", "simulated", "formula"), [(2, 278, 278), (5, 1128, 1129), (10, 2765, 2764)]
)
def test_plain_sgd_figures(k, simulated, formula):
    rate = rx.relaxation_rate(4e-3 / k, 1.0, 0.0, "sgd")
    got = rx.iterations_to_tolerance(k, 0.05, rate)
    assert np.ceil(got) == pytest.approx(formula, abs=1)
    assert updates_to_tolerance(heavy_ball(0.0), 4e-3 / k, 1.0, k) == pytest.approx(
        simulated, abs=2
    )


@pytest.mark.parametrize(("k", "simulated"), [(2, 271), (5, 1114), (10, 2747)])
def test_heavy_ball_figures(k, simulated):
    lr = 4e-4 / k
    got = updates_to_tolerance(heavy_ball(0.9), lr, 1.0, k)
    assert got == pytest.approx(simulated, abs=2)
    rate = rx.relaxation_rate(lr, 1.0, 0.9, "sgd")
    assert rx.iterations_to_tolerance(k, 0.05, rate) == pytest.approx(got, rel=0.01)
    if k == 2:
        assert rx.iterations_to_tolerance(k, 0.05, rate) == pytest.approx(272.6, abs=0.3)


def test_bound_corollary_and_what_they_reach():
    lr, decay, a = 1e-3, 1e-3, 0.9
    k = np.array([2.0, 5.0, 10.0, 100.0])
    rate = rx.relaxation_rate(lr, decay, a, "sgd")
    bound = rx.iterations_lower_bound(k, rate)
    assert np.allclose(bound, np.log(k) / (-4 * np.log(decay_root(lr * decay, a))), rtol=1e-6)
    reached = rx.ratio_after_cut(bound, k, rate)
    assert np.allclose(reached, [0.82, 0.75, 0.73, 0.71], atol=5e-3)
    corollary = rx.iterations_corollary(k, lr, decay, a)
    assert list(corollary) == [np.ceil(np.log(x) * 0.1 / 2e-6) for x in k]
    assert np.allclose(
        rx.ratio_after_cut(corollary, k, rate), [0.894, 0.928, 0.958, 0.995], atol=1e-3
    )
    within = rx.iterations_lower_bound(k, rate, 0.1)
    assert np.allclose(within, np.log(k * 0.81) / rate)
    assert np.all(within < rx.iterations_to_tolerance(k, 0.1, rate))


def test_no_gradient_can_beat_the_lower_bound():
    # even with the gradient switched off after the cut the norm needs this long
    rule, lr, decay, k = heavy_ball(0.9), 1e-2, 1e-3, 5.0
    fixed, target = (steady_state(rule, x, decay, 0.0) for x in (k * lr, lr))
    W = float(fixed.w_over_g)
    P, V = float(fixed.P_over_W) * W, float(fixed.V_over_W) * W
    bound = float(rx.iterations_lower_bound(k, rx.relaxation_rate(lr, decay, 0.9, "sgd")))
    n = 0
    while float(target.w_over_g) < W:
        W, P, V, _ = (float(x) for x in advance(rule, W, P, V, 0.0, lr, decay, 0.0))
        n += 1
    assert n >= bound
    assert n == pytest.approx(bound, rel=0.05)


def test_tolerance_edge_cases():
    rate = np.array([1e-3, 0.0])
    assert np.array_equal(rx.iterations_to_tolerance(1.0, 0.05, rate), [0.0, 0.0])
    assert np.array_equal(rx.iterations_to_tolerance(1.05, 0.05, rate), [0.0, 0.0])
    edge = np.array([0.95**-2.0, 1.05**-2.0])
    just_outside = rx.iterations_to_tolerance(edge * [1.001, 0.999], 0.05, 1e-3)
    assert np.all((just_outside > 0.0) & (just_outside < 30.0))
    assert np.array_equal(rx.iterations_to_tolerance(edge * [0.999, 1.001], 0.05, 1e-3), [0, 0])
    assert np.isinf(rx.iterations_to_tolerance(10.0, 0.05, 0.0))
    assert rx.iterations_to_tolerance(1.01, 0.0, 1e-3) == np.inf
    assert rx.iterations_to_tolerance(9.0, 1.5, 1e-3) == 0.0
    assert np.isnan(rx.iterations_to_tolerance(np.nan, 0.05, 1e-3))
    assert rx.iterations_lower_bound(1.0, 1e-3) == 0.0
    assert np.isinf(rx.iterations_lower_bound(2.0, 0.0))
    assert rx.iterations_corollary(0.5, 0.1, 1e-4) == 0.0
    assert np.isinf(rx.iterations_corollary(2.0, 0.1, 0.0))


@pytest.mark.parametrize("k", [0.1, 0.5, 2.0, 30.0])
def test_iterations_invert_the_ratio(k):
    n = rx.iterations_to_tolerance(k, 0.07, 3e-4)
    assert rx.ratio_after_cut(n, k, 3e-4) == pytest.approx(1.07 if k < 1 else 0.93, rel=1e-12)
    assert rx.ratio_after_cut(0.0, k, 3e-4) == pytest.approx(k**-0.5)
    again = rx.iterations_from_ratio(k**-0.5, 0.07, 3e-4)
    assert again == pytest.approx(n, rel=1e-12)
    assert np.isinf(rx.iterations_from_ratio(0.0, 0.07, 3e-4))


FAMILIES = [
    ("sgd", heavy_ball(0.9), 0.9, False),
    ("nesterov", nesterov(0.9), 0.9, False),
    ("sgdw", heavy_ball(0.9), 0.9, True),
    ("adamw", adam_direction(0.9), 0.9, True),
]


@pytest.mark.parametrize(("family", "rule", "a", "is_decoupled"), FAMILIES)
@pytest.mark.parametrize("shape", ["cosine", "cut"])
def test_relaxed_ratio_follows_the_mean_recursion(family, rule, a, is_decoupled, shape):
    n, decay = 3000, 1e-2 if is_decoupled else 1e-3
    t = np.arange(n)
    lr = 0.05 * (1 + np.cos(np.pi * t / n)) + 1e-3 if shape == "cosine" else 0.1 * 0.2 ** (t > 1500)
    coupled, decoupled = (0.0, decay) if is_decoupled else (decay, 0.0)
    fixed = steady_state(rule, lr, coupled, decoupled)
    y0 = 3.0
    W = float(fixed.w_over_g[0]) * y0 ** (2 / rx.norm_power(family))
    P, V = float(fixed.P_over_W[0]) * W, float(fixed.V_over_W[0]) * W
    turn2 = np.empty(n)
    for i in range(n):
        W, P, V, turn2[i] = advance(rule, W, P, V, 1.0, lr[i], coupled, decoupled)
    got = rx.relaxed_turn2_ratio(y0, lr, decay, a, family)
    settled = (t > 200) & ((t < 1500) | (t > 1600))
    assert np.allclose(got[settled], (turn2 / fixed.turn2)[settled], rtol=0.03)


def test_relaxed_ratio_batches_and_long_runs():
    lr = np.full((40_000, 2), 0.1)
    lr[20_000:, 1] = 0.01
    got = rx.relaxed_turn2_ratio(np.array([[1.0], [50.0], [0.02]]), lr[:, None, :], 0.05)
    assert got.shape == (40_000, 3, 2)
    assert np.all(np.isfinite(got))
    assert np.allclose(got[0, :, 0], [1.0, 0.02, 50.0])
    assert np.allclose(got[-1], 1.0)
    assert np.allclose(got[20_000, :, 1], 0.1)
    n = np.arange(1, 4000)
    slow = rx.relaxed_turn2_ratio(10.0, np.full(4000, 1e-2), 1e-2, 0.9)
    rate = rx.relaxation_rate(1e-2, 1e-2, 0.9, "sgd")
    assert np.allclose(slow[1:], rx.ratio_after_cut(n, 10.0, rate) ** 2, rtol=1e-10)
    assert np.isnan(rx.relaxed_turn2_ratio(1.0, np.array([0.0, 0.1]), 0.1)[1])


def test_resnet50_of_the_paper():
    per_epoch = 5004
    lr = np.repeat([0.1, 0.01, 0.001, 1e-4], np.array([30, 30, 20, 10]) * per_epoch)
    ratio = np.sqrt(rx.relaxed_turn2_ratio(1.0, lr, 1e-4, 0.9))
    at = np.array([45, 60, 80, 90]) * per_epoch - 1
    assert np.allclose(ratio[at], [0.83, 0.989, 0.373, 0.119], atol=2e-3)


@pytest.mark.parametrize(("start", "target"), [(1.7, 1.0), (0.6, 1.0), (1.0, 0.3)])
def test_adam_l2_relaxes_as_its_balance_says(start, target):
    """Against the balance itself, dr/dn = -R (r^2 - target / r), in far shorter steps."""
    rate, n = 2e-3, 400
    r = start ** (1 / 3)
    for _ in range(100_000):
        r -= rate * n / 100_000 * (r**2 - target / r)
    y = start
    for _ in range(40):
        y = float(rx.relax_adam_l2(y, rate, target, n / 40))
    assert y == pytest.approx(r**3, rel=5e-3)
    assert float(rx.relax_adam_l2(start, rate, target, 1e9)) == pytest.approx(target)
