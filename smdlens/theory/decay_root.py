"""How fast weight decay alone shrinks the weights: the larger root of the two-step recursion."""

from __future__ import annotations

import numpy as np

from smdlens.theory.arrays import Array, Flags, Real, broadcast


def _shrink(lr_decay: Real, momentum: Real, nesterov: bool) -> tuple[Array, Array, Flags]:
    """1 - x1 where the roots are real, the squared modulus, and whether they are real."""
    y, a = broadcast(lr_decay, momentum)
    slope = 1.0 - a + (y * (1.0 + a) if nesterov else y)
    discriminant = slope**2 - 4.0 * y
    # 1 - x solves z^2 - slope z + y = 0; this form of its small root has no cancellation
    z = 2.0 * y / (slope + np.sqrt(np.maximum(discriminant, 0.0)))
    modulus2 = a * (1.0 - y) if nesterov else a
    return z, np.asarray(modulus2), discriminant >= 0.0


def decay_root(lr_decay: Real, momentum: Real, nesterov: bool = False) -> Array:
    """x1: weights without gradient shrink as x1^n.

    Heavy ball: larger root of x^2 - (1 + a - lr decay) x + a; Nesterov: of
    x^2 - (1 + a)(1 - lr decay) x + a (1 - lr decay); a = 0: 1 - lr decay. [Li2020a, Thm 2.1];
    Nesterov derived in docs/theory.md §3 [smdlens-theory].

    Args:
        lr_decay: lr times decay, any shape.
        momentum: a in [0, 1).
        nesterov: Nesterov's update.

    Returns:
        x1, broadcast shape; the modulus of the roots where they are complex
        (lr decay > (1 - sqrt a)^2, outside assumption 5 of [Wan2021, Thm 2]).
    """
    z, modulus2, real = _shrink(lr_decay, momentum, nesterov)
    return np.where(real, 1.0 - z, np.sqrt(np.maximum(modulus2, 0.0)))[()]


def decay_log_rate(lr_decay: Real, momentum: Real, nesterov: bool = False) -> Array:
    """-ln x1, accurate for small lr decay: about lr decay / (1 - a), larger by 1 to 12 %.

    [Li2020a, Thm 2.1], stable form derived in docs/theory.md §3 [smdlens-theory].

    Returns:
        Per update, broadcast shape.
    """
    z, modulus2, real = _shrink(lr_decay, momentum, nesterov)
    with np.errstate(divide="ignore"):
        complex_rate = -0.5 * np.log(np.maximum(modulus2, 0.0))
        return np.where(real, -np.log1p(-np.minimum(z, 1.0)), complex_rate)[()]
