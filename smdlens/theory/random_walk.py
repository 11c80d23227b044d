"""How far weights in equilibrium wander in n updates if gradients are white noise."""

from __future__ import annotations

import numpy as np

from smdlens.theory.angles import angle_from_turn2
from smdlens.theory.arrays import Array, Real, broadcast
from smdlens.theory.moments import UpdateRule, steady_state


def random_walk_turn2(
    n: Real, rule: UpdateRule, lr: Real, coupled: Real, decoupled: Real = 0.0
) -> Array:
    """2 (1 - rho_n), rho_n = E cos of the angle between weights n updates apart, in equilibrium.

    rho_j = f1 rho_(j-1) + f2 rho_(j-2) with f1 = kept + a - lr p c coupled, f2 = -a kept,
    kept = 1 - lr decoupled - lr q coupled, rho_0 = 1 and rho_1 = cos Delta* of `steady_state`:
    heavy ball f1 = 1 + a - lr decay, f2 = -a, rho_1 = f1 / (1 - f2). Solved by the two roots,
    complex ones included. Derived in docs/theory.md §9 [smdlens-theory].

    Args:
        n: Updates apart, any shape, up to 1e6 and beyond.
        rule: The optimizer.
        lr: Learning rate.
        coupled: Decay inside the gradient.
        decoupled: Decay on the weights directly.

    Returns:
        Squared chord, broadcast shape, accurate for small n too. White gradients: real networks
        late in training wander less.
    """
    n, lr, coupled, decoupled = broadcast(n, lr, coupled, decoupled)
    a, c, p, q = rule.a, rule.c, rule.p, rule.q
    lost = lr * (decoupled + q * coupled)
    # roots 1 - z of x^2 - f1 x - f2: z^2 - slope z + offset = 0, every term without cancellation
    slope = lost + (1.0 - a) + lr * p * c * coupled
    offset = lost * (1.0 - a) + lr * p * c * coupled
    split = np.sqrt((slope**2 - 4.0 * offset).astype(np.complex128))
    z_slow = 2.0 * offset / (slope + split)
    z_fast = (slope + split) / 2.0
    first = np.asarray(steady_state(rule, lr, coupled, decoupled).turn2) / 2.0
    with np.errstate(divide="ignore", invalid="ignore"):
        # x^n - 1 through log1p keeps the digits of slow decay; without momentum the fast root is 0
        slow = np.expm1(n * np.log1p(-z_slow))
        fast = np.where(z_fast == 1.0, -1.0, np.expm1(n * np.log1p(-z_fast)))
        separate = (-(z_fast - first) * slow - (first - z_slow) * fast) / split
        # equal roots x: 1 - x^n - n (rho_1 - x) x^(n-1)
        x = 1.0 - z_slow
        equal = -slow - n * (z_slow - first) * (slow + 1.0) / x
        lost_cosine = np.where(np.abs(split) > 1e-6 * np.abs(slope), separate, equal).real
    return np.where(n == 0.0, 0.0, 2.0 * lost_cosine)[()]


def random_walk_angle(
    n: Real, rule: UpdateRule, lr: Real, coupled: Real, decoupled: Real = 0.0
) -> Array:
    """Angle whose cosine is rho_n of `random_walk_turn2`, radians.

    At long lag theta^2 is about 2 lr decay n / (1 - a), not n Delta*^2: (1 + a) / (1 - a) times
    more. Derived in docs/theory.md §9 [smdlens-theory]; the walk is that of [Kosson2024].

    Returns:
        Radians in [0, pi], broadcast shape.
    """
    return angle_from_turn2(random_walk_turn2(n, rule, lr, coupled, decoupled))


def random_walk_correlation(
    n: Real, rule: UpdateRule, lr: Real, coupled: Real, decoupled: Real = 0.0
) -> Array:
    """rho_n itself; below 0.05 the gap is too long for an angle to carry anything.

    Derived in docs/theory.md §9 [smdlens-theory].
    """
    return np.asarray(1.0 - random_walk_turn2(n, rule, lr, coupled, decoupled) / 2.0)[()]
