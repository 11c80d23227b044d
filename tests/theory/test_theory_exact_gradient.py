"""Products of the gradient from consecutive snapshots, against the gradient itself."""

import mpmath
import numpy as np
import pytest

from smdlens.theory import exact_gradient as exact


def run(momentum, dampening, decoupled, lr=(0.05, 0.03, 0.02), decay=0.04, dim=40, seed=3):
    """Three updates of heavy ball with arbitrary (not tangent) gradients."""
    rng = np.random.default_rng(seed)
    w, v = rng.standard_normal(dim), 0.3 * rng.standard_normal(dim)
    rows = []
    for eta in lr:
        g = rng.standard_normal(dim)
        new_v = momentum * v + (1 - dampening) * (g + (0 if decoupled else decay) * w)
        new_w = (1 - (eta * decay if decoupled else 0)) * w - eta * new_v
        rows.append((w, v, g, eta, new_v, new_w))
        w, v = new_w, new_v
    return rows, decay


def sums_of(w, new_w, lr, keep):
    a2, b2 = w @ w, new_w @ new_w
    chord = new_w - np.sqrt(b2 / a2) * w
    return exact.step_sums(a2, b2, chord @ chord, lr, keep)


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize(("momentum", "dampening"), [(0.0, 0.0), (0.9, 0.0), (0.9, 0.4)])
def test_radial_part_and_h_come_back_from_weights_alone(momentum, dampening, decoupled):
    rows, decay = run(momentum, dampening, decoupled)
    gain, coupled = 1 - dampening, 0.0 if decoupled else decay
    steps = [sums_of(w, new, eta, 1 - (eta * decay if decoupled else 0))
             for w, _, _, eta, _, new in rows]  # fmt: skip
    for before, now, (w, v, g, *_) in zip(steps, steps[1:], rows[1:], strict=False):
        radial = exact.radial_product(now.before, before.after, w @ w, coupled, momentum, gain)
        assert radial == pytest.approx(g @ w, rel=1e-10, abs=1e-12)
        h = exact.adjusted_from_steps(
            now.v2, before.v2, before.after, radial, w @ w, coupled, momentum, gain
        )
        true = (g @ g + 2 * momentum * (v @ g) / gain) * (w @ w)
        assert h == pytest.approx(true, rel=1e-10)
        assert h == pytest.approx(
            exact.adjusted_gradient2(g @ g, g @ v, w @ w, momentum, gain), rel=1e-10
        )


@pytest.mark.parametrize("angle", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("growth", [1e-2, 1e-7, 0.0])
def test_nothing_cancels_in_the_step(angle, growth):
    """<v, a> of a nearly tangent, tiny step against 60 digits; naive sums lose every digit."""
    with mpmath.workdps(60):
        A, t, s = mpmath.mpf(7), mpmath.mpf(angle), mpmath.mpf(growth)
        c = mpmath.exp(s / 2)
        B, dot = c**2 * A, c * A * mpmath.cos(t)
        chord2 = 2 * B * (1 - mpmath.cos(t))
        lr, k = mpmath.mpf("0.1"), 1 - mpmath.mpf("1e-5")
        v2 = (k**2 * A + B - 2 * k * dot) / lr**2
        before, after = (k * A - dot) / lr, (k * dot - B) / lr
        got = exact.step_sums(7.0, float(B), float(chord2), 0.1, float(k))
        # |b| / |a| is known to 1e-16: that is the only error left.
        radial = abs(float(A / lr)) * 4e-16
        assert got.v2 == pytest.approx(float(v2), rel=1e-9, abs=1e-9 * abs(float(before)) ** 2)
        assert got.before == pytest.approx(float(before), rel=1e-9, abs=radial)
        assert got.after == pytest.approx(float(after), rel=1e-9, abs=radial)


def test_cosine():
    w, g = np.array([3.0, 4.0]), np.array([4.0, -3.0])
    assert exact.cosine(w @ g, g @ g, w @ w) == 0.0
    assert exact.cosine(w @ w, w @ w, w @ w) == pytest.approx(1.0)
    assert np.isnan(exact.cosine(0.0, 0.0, 1.0))
