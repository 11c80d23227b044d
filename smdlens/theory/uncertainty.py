"""How far one interval's ratio of angles may be off."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np

from smdlens.theory.arrays import Array, Real, as_floats
from smdlens.theory.epsilon_leak import KAPPA_RELATIVE_ERROR

ErrorKind = Literal[
    "plain_sgd",
    "heavy_ball_state",
    "heavy_ball",
    "nesterov",
    "adamw_state",
    "one_sided",
    "jump",
]

# Systematic relative error of q = (Delta / Delta*)^2 per way of measuring, chosen on small real
# networks against per-step logs (docs/theory.md §11): the exact identity of plain SGD; heavy ball
# with buffers at both ends, and from norms; Nesterov (correlation assumed); AdamW in the
# state-weighted norm, and without its state; an interval that holds or follows a jump of the rate.
SYSTEMATIC: Final[dict[ErrorKind, float]] = {
    "plain_sgd": 0.00003,
    "heavy_ball_state": 0.00015,
    "heavy_ball": 0.0015,
    "nesterov": 0.004,
    "adamw_state": 0.013,
    "one_sided": 0.03,
    "jump": 0.04,
}


def momentum_factor(momentum: Real) -> Array:
    """k(a) = (2 sqrt2 a / (1+a)) sqrt((1 + a^3) / ((1 + a^2)(1 - a^3))).

    Relative scatter of the recovered mean Delta^2 is k(a) c_h / n for independent h~ of relative
    scatter c_h: 0, 0.96, 1.73, 2.52, 3.61, 8.14 for a = 0, .5, .8, .9, .95, .99. c_h = sqrt(V) / L
    of [Wan2021, Thm 2, assumption 6]. Derived in docs/theory.md §11 [smdlens-theory].
    """
    (a,) = as_floats(momentum)
    spread = np.sqrt((1.0 + a**3) / ((1.0 + a**2) * (1.0 - a**3)))
    return np.asarray(2.0 * np.sqrt(2.0) * a / (1.0 + a) * spread)[()]


def boundary_correlation(momentum: Real, n: Real) -> Array:
    """Correlation of the boundary terms <w, v> of two snapshots n updates apart.

    Each is a sum over past h~ with weights proportional to a^m - a^(2m+1), m updates back; the
    correlation is the normalised overlap of the weights with themselves shifted by n. Independent
    ends are its limit 0. Derived in docs/theory.md §11 [smdlens-theory].
    """
    a, n = as_floats(momentum, n)

    def overlap(shift: Array) -> Array:
        once, twice = a**shift, a ** (2.0 * shift)
        return np.asarray(
            once / (1.0 - a**2) - (once + twice) * a / (1.0 - a**3) + twice * a**2 / (1.0 - a**4)
        )

    return np.asarray(overlap(n) / overlap(np.zeros_like(n)))[()]


def relative_sigma(
    q: Real,
    n: Real,
    momentum: Real,
    c_h: Real,
    method: ErrorKind,
    kappa_ratio: Real = 0.0,
) -> Array:
    """Standard error of q = (Delta / Delta*)^2 of one interval, relative to q.

    sigma_q^2 = (k(a) c_h q / n)^2 + (m q)^2 + (0.35 kappa / decay)^2. Derived in docs/theory.md §11
    [smdlens-theory].

    Args:
        q: Measured squared ratio.
        n: Updates in the interval.
        momentum: a (beta1 for AdamW).
        c_h: Relative scatter of h~, about 0.8 to 1 on real networks.
        method: How q was measured, see `SYSTEMATIC`.
        kappa_ratio: Epsilon leak over weight decay.

    Returns:
        sigma_q / q, broadcast shape; infinite at q = 0 with a leak.
    """
    q, n, c_h, kappa_ratio = as_floats(q, n, c_h, kappa_ratio)
    with np.errstate(divide="ignore", invalid="ignore"):
        leak = np.where(kappa_ratio == 0.0, 0.0, KAPPA_RELATIVE_ERROR * np.abs(kappa_ratio) / q)
        scatter = momentum_factor(momentum) * c_h / n
    return np.asarray(np.sqrt(scatter**2 + SYSTEMATIC[method] ** 2 + leak**2))[()]
