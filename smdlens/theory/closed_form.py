"""One-step angle between two snapshots when the norm has a steady trend: no iteration needed.

Weights and gradient each drive the buffer at their own rate; the two responses add because the
recursion of `moments` is linear in (|w|^2, |g|^2). Derivation: docs/theory.md §6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smdlens.theory.arrays import Array, Flags, Real, as_float64, as_floats, broadcast
from smdlens.theory.moments import UpdateRule

RESOLUTION = 64 * np.finfo(np.float64).eps


@dataclass(frozen=True, slots=True)
class Trend:
    """The quasi-steady moments of a tensor whose ln |w|^2 moves by s per update.

    Attributes:
        turn2: 2 (1 - cos Delta) of one update.
        gradient_ratio: |g|^2 / |w|^2 that balances the trend.
        P_over_W: <w, v'> / |w|^2.
        V_over_W: |v'|^2 / |w|^2.
        below_resolution: The norm falls at least as fast as decay alone would make it, or the
            terms cancel to rounding: turn2 is then 0 or not known.
    """

    turn2: Array
    gradient_ratio: Array
    P_over_W: Array
    V_over_W: Array
    below_resolution: Flags


def _response(
    rule: UpdateRule,
    rate: Array,
    lr: Array,
    coupled: Array,
    keep: Array,
    source: Array,
    pull: Array,
) -> tuple[Array, Array]:
    """P and V driven at `rate` per step by `source` in V and by `pull` in P."""
    a, c, p, q = rule.a, rule.c, rule.p, rule.q
    slow = rate - a * keep + lr * q * a * coupled
    cross = 2.0 * a * c * coupled
    det = (rate - a * a) * slow + cross * lr * p * rate
    P = ((rate - a * a) * pull - lr * p * rate * source) / det
    V = (source * slow + cross * pull) / det
    return P, V


def trend_moments(
    rule: UpdateRule,
    s: Real,
    lr: Real,
    coupled: Real,
    decoupled: Real,
    gradient_ratio: Real | None = None,
    growing_unit_gradient: bool = False,
) -> Trend:
    """Moments of a tensor whose ln |w|^2 moves by `s` per update, and the angle that implies.

    Right in both limits: s = 0 is the exact fixed point of `steady_state` [Wan2021, Thm 3], and
    pure decay (e^s = x1^2) turns by exactly 0. Derived in docs/theory.md §6 [smdlens-theory].

    Args:
        rule: The optimizer.
        s: Trend of ln |w|^2 per update, |s| well below 1 - a.
        lr: Learning rate.
        coupled: Decay inside the gradient.
        decoupled: Decay applied to the weights directly.
        gradient_ratio: |g|^2 / |w|^2 where known; otherwise found from the norm balance.
        growing_unit_gradient: |g|^2 grows with |w|^2 (early training) instead of the unit gradient
            standing still.

    Returns:
        The quasi-steady moments, broadcast shape.
    """
    s, lr, coupled, decoupled = broadcast(s, lr, coupled, decoupled)
    a, c, p, q = rule.a, rule.c, rule.p, rule.q
    keep = 1.0 - lr * decoupled
    growth = np.exp(s)
    if growing_unit_gradient:
        gradient_growth = growth
    else:
        gradient_growth = np.ones_like(s) if rule.normalised else np.exp(-s)
    with np.errstate(divide="ignore", invalid="ignore"):
        Pw, Vw = _response(
            rule,
            growth,
            lr,
            coupled,
            keep,
            (c * coupled) ** 2,
            c * coupled * (keep - lr * q * coupled),
        )
        rho = rule.correlation
        drawn = np.full_like(s, c * (c + 2.0 * a * rho))
        Pg, Vg = _response(rule, gradient_growth, lr, coupled, keep, drawn, -lr * q * (c + a * rho))
        if gradient_ratio is None:
            mix = q * q + 2.0 * p * q * c
            step_w = p * p * growth * Vw + mix * coupled**2 + 2.0 * p * q * a * coupled * Pw
            step_g = p * p * gradient_growth * Vg + mix + 2.0 * p * q * a * (coupled * Pg + rho)
            terms = (
                np.expm1(s),
                lr * decoupled * (1.0 + keep),
                2.0 * lr * keep * (p * (a * Pw + c * coupled) + q * coupled),
                -(lr**2) * step_w,
            )
            missing = terms[0] + terms[1] + terms[2] + terms[3]
            size = sum(np.abs(term) for term in terms)
            ratio = missing / (lr**2 * step_g - 2.0 * lr * keep * p * a * Pg)
            below = ~(missing > RESOLUTION * size) | ~(ratio >= 0.0)
            ratio = np.where(below, np.where(np.isnan(ratio), np.nan, 0.0), ratio)
        else:
            ratio = np.broadcast_to(as_float64(gradient_ratio), s.shape)
            below = np.zeros(s.shape, dtype=bool)
        lean = Pw + Pg * ratio
        buffer = Vw + Vg * ratio
        # Where only decay acts the buffer lies along w up to rounding: no turn is left.
        across = np.where(ratio > 0.0, np.maximum(buffer - lean**2, 0.0), 0.0)
        radial = keep - lr * (p * (a * lean + c * coupled) + q * coupled)
        kick = (p * c + q) * (p * c + q + 2.0 * p * a * rho)
        energy = (p * a) ** 2 * across + kick * ratio
        grown = np.sqrt(radial**2 + lr**2 * energy)
        turn2 = 2.0 * lr**2 * energy / (grown * (grown + radial))
    return Trend(turn2[()], ratio[()], lean[()], buffer[()], below[()])


def one_step_turn2(
    rule: UpdateRule,
    W0: Real,
    W1: Real,
    n: Real,
    lr: Real,
    coupled: Real,
    decoupled: Real = 0.0,
    growing_unit_gradient: bool = False,
) -> tuple[Array, Flags]:
    """Mean one-step 2 (1 - cos Delta) from the norms of two snapshots `n` updates apart.

    s = ln(W1 / W0) / n in `trend_moments`: the balance of centrifugal and centripetal growth of
    [Wan2021, Thm 1-2] read backwards. Valid for a constant rate and a steady trend; through jumps,
    schedules and the first interval use `shooting.shoot`. Derived in docs/theory.md §6
    [smdlens-theory].

    Args:
        rule: The optimizer.
        W0: |w|^2 at the first snapshot.
        W1: |w|^2 at the second.
        n: Updates between them.
        lr: Learning rate.
        coupled: Decay inside the gradient (plus epsilon leak).
        decoupled: Decay applied to the weights directly.
        growing_unit_gradient: See `trend_moments`.

    Returns:
        turn2 (0 where below resolution) and the flag, broadcast shape.
    """
    W0, W1, n = as_floats(W0, W1, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        # log1p of the measured change keeps digits that ln W1 - ln W0 would lose
        s = np.log1p((W1 - W0) / W0) / n
    trend = trend_moments(
        rule, s, lr, coupled, decoupled, growing_unit_gradient=growing_unit_gradient
    )
    return trend.turn2, trend.below_resolution
