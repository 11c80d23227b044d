"""Angles between weights from plain float64 sums, and what rounding leaves of them."""

from __future__ import annotations

import numpy as np

from smdlens.theory.arrays import Array, Real, as_float64, as_floats


def angle(a2: Real, b2: Real, chord2: Real, dot: Real) -> Array:
    """Angle between vectors a and b, full relative accuracy down to the smallest angles.

    theta = 2 atan2(|b - c a|, |b + c a|) with c = |b| / |a| and |b + c a|^2 = 2 |b|^2 + 2 c <a, b>.
    Identical vectors (chord2 = 0) give exactly 0. The arc cosine of a cosine loses every angle
    below 1e-8 even in float64, and |a - b|^2 loses them when the norm moves [Kahan2006];
    this is the angular update of [Wan2021, Def 3] for vectors one iteration apart.

    Args:
        a2: |a|^2, any shape.
        b2: |b|^2.
        chord2: |b - c a|^2, summed from the differences themselves.
        dot: <a, b>.

    Returns:
        Radians in [0, pi], broadcast shape; NaN where a norm is zero or not finite. Relative error
        about 1e-15 for small angles, absolute error about 1e-8 within 1e-8 of pi.
    """
    a2, b2, chord2, dot = as_floats(a2, b2, chord2, dot)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        scale = np.sqrt(b2 / a2)
        sum2 = 2.0 * (b2 + scale * dot)
        theta = 2.0 * np.arctan2(np.sqrt(chord2), np.sqrt(np.maximum(sum2, 0.0)))
        defined = (a2 > 0) & (b2 > 0) & np.isfinite(scale) & np.isfinite(chord2)
    return np.where(defined, theta, np.nan)[()]


def rounding_floor(round2_a: Real, a2: Real, round2_b: Real, b2: Real) -> Array:
    """Angle that rounding to the storage dtype alone would show between two equal vectors.

    sqrt(round2_a / |a|^2 + round2_b / |b|^2), round2 = sum of ulp(w)^2 / 12 over the elements: the
    variance of a uniform rounding error, two independent ends adding in quadrature. Derived in
    docs/theory.md §13 [smdlens-theory].

    Returns:
        Radians, broadcast shape; NaN where a norm is zero.
    """
    round2_a, a2, round2_b, b2 = as_floats(round2_a, a2, round2_b, b2)
    with np.errstate(divide="ignore", invalid="ignore"):
        floor = np.sqrt(round2_a / a2 + round2_b / b2)
    return np.where((a2 > 0) & (b2 > 0), floor, np.nan)[()]


def angle_from_turn2(turn2: Real) -> Array:
    """Radians of the angle whose squared unit chord is `turn2` = 2 (1 - cos Delta).

    Delta = 2 asin(sqrt(turn2) / 2); turn2 is Delta^2 to second order and adds over steps without
    cancellation, so means are taken of turn2. Derived in docs/theory.md §1 [smdlens-theory].

    Args:
        turn2: Squared chord, in [0, 4]; values outside are clipped.

    Returns:
        Radians in [0, pi], same shape.
    """
    half_chord = np.sqrt(np.clip(as_float64(turn2), 0.0, 4.0)) / 2.0
    return np.asarray(2.0 * np.arcsin(half_chord))[()]


def turn2_from_angle(angle_rad: Real) -> Array:
    """Squared unit chord 2 (1 - cos Delta) = 4 sin^2(Delta / 2) of an angle in radians.

    The inverse of `angle_from_turn2`, derived in docs/theory.md §1 [smdlens-theory].
    """
    return np.asarray(4.0 * np.sin(as_float64(angle_rad) / 2.0) ** 2)[()]
