import mpmath
import numpy as np
import pytest

from smdlens.theory.angles import angle, angle_from_turn2, rounding_floor, turn2_from_angle


def sums(a, b):
    a2, b2 = float(np.sum(a * a)), float(np.sum(b * b))
    chord = b - np.sqrt(b2 / a2) * a
    return a2, b2, float(np.sum(chord * chord)), float(np.sum(a * b))


def exact_angle(a, b):
    with mpmath.workdps(50):
        a, b = [mpmath.mpf(float(x)) for x in a], [mpmath.mpf(float(x)) for x in b]
        dot = mpmath.fsum(x * y for x, y in zip(a, b, strict=True))
        norms = mpmath.sqrt(mpmath.fsum(x * x for x in a) * mpmath.fsum(y * y for y in b))
        return mpmath.acos(dot / norms)


@pytest.mark.parametrize("size", [1e-7, 1e-4, 1e-2, 1.0, 100.0])
@pytest.mark.parametrize("stretch", [1.0, 1.01, 0.1])
def test_angle_against_mpmath(size, stretch):
    rng = np.random.default_rng(1)
    a = rng.standard_normal(300)
    b = stretch * (a + size * rng.standard_normal(300))
    got, want = angle(*sums(a, b)), exact_angle(a, b)
    # a change of norm costs chord2 the digits of c, never more than eps / angle
    assert abs(got / want - 1) < 1e-13 + 4e-16 / float(want)


def test_identical_opposite_and_empty():
    a = np.array([3.0, 4.0])
    assert angle(*sums(a, a)) == 0.0
    assert angle(*sums(a, -a)) == pytest.approx(np.pi, abs=2e-8)
    assert np.isnan(angle(0.0, 1.0, 1.0, 0.0))
    assert np.isnan(angle(1.0, 0.0, 0.0, 0.0))
    assert angle(np.ones((2, 1)), np.ones(3), np.zeros(3), 1.0).shape == (2, 3)


def test_arc_cosine_would_have_lost_it():
    rng = np.random.default_rng(2)
    a = rng.standard_normal(1000)
    b = a + 3e-9 * rng.standard_normal(1000)
    a2, b2, chord2, dot = sums(a, b)
    want = float(exact_angle(a, b))
    assert angle(a2, b2, chord2, dot) == pytest.approx(want, rel=1e-6)
    assert np.arccos(min(1.0, dot / np.sqrt(a2 * b2))) != pytest.approx(want, rel=0.1)


@pytest.mark.parametrize(
    ("dtype", "digits", "low"), [(np.float32, 24, 2e-8), (np.float16, 11, 1.5e-4)]
)
def test_rounding_floor_is_the_angle_of_rounding(dtype, digits, low):
    w = np.random.default_rng(3).standard_normal(200_000)
    stored = w.astype(dtype).astype(np.float64)
    ulp = 2.0 ** (np.floor(np.log2(np.abs(stored))) + 1 - digits)
    floor = rounding_floor(np.sum(ulp**2) / 12, np.sum(stored**2), 0.0, np.sum(w**2))
    assert floor == pytest.approx(angle(*sums(w, stored)), rel=0.02)
    assert low < floor < 2 * low
    assert np.isnan(rounding_floor(0.0, 0.0, 0.0, 1.0))
    assert rounding_floor(3.0, 1.0, 4.0, 1.0) == pytest.approx(np.sqrt(7.0))


def test_turn2_and_angle_are_inverse():
    theta = np.array([0.0, 1e-9, 1e-3, 1.0, np.pi])
    assert np.allclose(angle_from_turn2(turn2_from_angle(theta)), theta, rtol=1e-14, atol=0)
    for x in theta[1:]:
        want = 2 * (1 - mpmath.cos(mpmath.mpf(float(x)))) if x > 0.1 else mpmath.mpf(float(x)) ** 2
        assert turn2_from_angle(x) == pytest.approx(float(want), rel=1e-6)
    assert angle_from_turn2(-1e-20) == 0.0
