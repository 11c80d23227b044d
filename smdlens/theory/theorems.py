"""The statements of the paper's three theorems and of their assumptions, as numbers.

L_t is the conditional mean of h~_t = (|g|^2 + 2 a <v', g>) |w|^2 (|g~|^2 without momentum), V a
bound on its conditional variance, l its lower bound. Learning rate and decay are those of coupled
decay; with dampening the rate is lr (1 - dampening).
"""

from __future__ import annotations

import numpy as np

from smdlens.theory.arrays import Array, Real, as_floats


def norm2_variance_bound(variance: Real, lr: Real, lower: Real) -> Array:
    """Bound on E(|w|^2 - w*^2)^2 once equilibrium is reached: 2 V lr^2 / l [Wan2021, Eq 8].

    Plain SGD. For heavy ball the bound is V lr^2 C / l with a C of which [Wan2021, Eq 12] only says
    that it depends on a: see `norm2_scatter` for what white gradients do.

    Args:
        variance: V.
        lr: Learning rate.
        lower: l.

    Returns:
        In units of |w|^4, broadcast shape; infinite at l = 0.
    """
    variance, lr, lower = as_floats(variance, lr, lower)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(lower > 0.0, 2.0 * variance * lr**2 / lower, np.inf)[()]


def relative_norm2_variance_bound(
    variance: Real, mean: Real, lower: Real, lr: Real, decay: Real
) -> Array:
    """The same over w*^4: 4 V lr decay / (L l) [Wan2021, Eq 9]; a theorem says little beyond 1.

    Args:
        variance: V.
        mean: L.
        lower: l.
        lr: Learning rate.
        decay: Weight decay.
    """
    variance, mean, lower, lr, decay = as_floats(variance, mean, lower, lr, decay)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(lower > 0.0, 4.0 * variance * lr * decay / (mean * lower), np.inf)[()]


def norm2_scatter(scatter: Real, lr: Real, decay: Real, momentum: Real = 0.0) -> Array:
    """Relative standard deviation of |w|^2 in equilibrium: c sqrt(lr decay / (2 (1-a))).

    Linearised around w*^2 with h~ independent from update to update, c = sqrt(V) / L; leading order
    in lr decay / (1 - a). So C of [Wan2021, Eq 12] is no less than 1 / (4 (1-a)^2), and the 2 of
    [Wan2021, Eq 8] is 8 times what l = L needs. Derived in docs/theory.md §14 [smdlens-theory].

    Args:
        scatter: c.
        lr: Learning rate.
        decay: Weight decay.
        momentum: a.
    """
    scatter, lr, decay, a = as_floats(scatter, lr, decay, momentum)
    return np.asarray(scatter * np.sqrt(lr * decay / (2.0 * (1.0 - a))))[()]


def vanishing_factor(updates: Real, lr: Real, decay: Real, momentum: Real = 0.0) -> Array:
    """What is left of the start after t updates: (1 - 2 lr decay / (1-a))^t [Wan2021, Eq 8, 12].

    Args:
        updates: t.
        lr: Learning rate.
        decay: Weight decay.
        momentum: a.

    Returns:
        Between 0 and 1; 0 where the base is not positive.
    """
    updates, lr, decay, a = as_floats(updates, lr, decay, momentum)
    shrink = np.minimum(2.0 * lr * decay / (1.0 - a), 1.0)
    with np.errstate(divide="ignore"):
        return np.asarray(np.exp(updates * np.log1p(-shrink)))[()]


def smoothness_limit(scatter: Real, lr: Real, decay: Real) -> Array:
    """Largest allowed |L_(t+1) - L_t| / L: 4 c (lr decay)^(3/2), c = sqrt(V) / L.

    [Wan2021, Thm 1, assumption 3], [Wan2021, Thm 2, assumption 7]; both sides over L.
    """
    scatter, lr, decay = as_floats(scatter, lr, decay)
    return np.asarray(4.0 * scatter * (lr * decay) ** 1.5)[()]


def lower_bound_limit(lr: Real, decay: Real, momentum: Real = 0.0) -> Array:
    """What l / L must exceed.

    2 (2 x / (1 - 2 x))^2 with x = lr decay for plain SGD [Wan2021, Thm 1, assumption 4]; for heavy
    ball 2 (6 x / ((1-a)^3 (1+a) - 8 x (1-a)))^2 [Wan2021, Thm 2, assumption 8].

    Args:
        lr: Learning rate.
        decay: Weight decay.
        momentum: a.

    Returns:
        Broadcast shape; infinite where the denominator is not positive: no l is enough.
    """
    lr, decay, a = as_floats(lr, decay, momentum)
    x = lr * decay
    plain = a == 0.0
    over = np.where(plain, 2.0 * x, 6.0 * x)
    under = np.where(plain, 1.0 - 2.0 * x, (1.0 - a) ** 3 * (1.0 + a) - 8.0 * x * (1.0 - a))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(under > 0.0, 2.0 * (over / under) ** 2, np.inf)[()]


def oscillation_limit(momentum: Real) -> Array:
    """What lr decay must stay below: (1 - sqrt a)^2 [Wan2021, Thm 2, assumption 5]."""
    (a,) = as_floats(momentum)
    return np.asarray((1.0 - np.sqrt(a)) ** 2)[()]


def angle_bound(variance: Real, mean: Real, lower: Real) -> Array:
    """(V / (L l))^(1/3) [Wan2021, Eq 14]: both the bound on |Delta - Delta*| and 1 - probability.

    The bound is an order of magnitude (its constant is not given) in radians, and from 1 on the
    theorem promises nothing at all. sqrt(V) is of the size of L and l is less, so that is usual;
    its authors say so.

    Args:
        variance: V.
        mean: L.
        lower: l.
    """
    variance, mean, lower = as_floats(variance, mean, lower)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(lower > 0.0, np.cbrt(variance / (mean * lower)), np.inf)[()]


def scatter_from_energies(relative_variance: Real, momentum: Real) -> Array:
    """Scatter c = sqrt(V) / L from the relative variance of |v|^2 |w|^2 at snapshots far apart.

    |v_t|^2 is the sum of a^(2j) h_(t-j), so independent h of relative variance c^2 leave
    c^2 (1 - a^2) / (1 + a^2) [Wan2021, Thm 2, assumption 6]; derived in docs/theory.md §14
    [smdlens-theory].

    Args:
        relative_variance: Variance of |v|^2 |w|^2 over its squared mean.
        momentum: a.
    """
    relative_variance, a = as_floats(relative_variance, momentum)
    return np.asarray(np.sqrt(relative_variance * (1.0 + a**2) / (1.0 - a**2)))[()]
