"""How an undisturbed tensor returns to equilibrium after the rate changes.

y = (|w| / |w*|)^m relaxes exponentially, m = 4 for the SGD family and 2 for AdamW and Lion, and the
squared angle stands to its equilibrium value as 1 / y. Derivation: docs/theory.md §8.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from smdlens.theory.arrays import Array, Real, as_float64, as_floats, broadcast
from smdlens.theory.decay_root import decay_log_rate, decay_root

__all__ = [
    "Family",
    "decay_root",
    "iterations_corollary",
    "iterations_from_ratio",
    "iterations_lower_bound",
    "iterations_to_tolerance",
    "norm_power",
    "ratio_after_cut",
    "relaxation_rate",
    "relaxed_turn2_ratio",
]

Family = Literal["sgd", "nesterov", "sgdw", "adamw", "lion"]


def norm_power(family: Family) -> int:
    """The power m of |w| that relaxes linearly: 4 (gradient ~ 1/|w|) or 2 (normalised steps).

    [Wan2021, Thm 1] for 4, [Kosson2024] for 2.
    """
    return 2 if family in ("adamw", "lion") else 4


def relaxation_rate(lr: Real, decay: Real, momentum: Real, family: Family) -> Array:
    """Rate R per update at which y = (|w| / |w*|)^m returns to 1: y - 1 ~ exp(-R n).

    SGD with momentum: R = -4 ln x1(lr decay), about 4 lr decay / (1 - a); decoupled decay on SGD:
    -4 ln(1 - lr decay); AdamW and Lion: -2 ln(1 - lr decay). lr is the NEW rate. Plain SGD is
    [Li2020b]; derived in docs/theory.md §8 [smdlens-theory].

    Args:
        lr: Learning rate after the change.
        decay: Weight decay (plus epsilon leak).
        momentum: a; unused for decoupled families, whose decay does not pass the buffer.
        family: Which optimizer.

    Returns:
        Per update, broadcast shape; 0 without decay. Valid beyond about 10 / (1 - a) updates.
    """
    lr_decay = as_float64(lr) * as_float64(decay)
    if family in ("sgd", "nesterov"):
        log_rate = decay_log_rate(lr_decay, momentum, nesterov=family == "nesterov")
    else:
        log_rate = np.broadcast_arrays(-np.log1p(-lr_decay), as_float64(momentum))[0][()]
    return norm_power(family) * log_rate


def relax_adam_l2(level: Real, rate: Real, target: Real, n: Real) -> Array:
    """(r / r0)^3 of Adam with L2 decay after n updates at constant rates.

    Its decay grows with the norm, dr/dn = -R (r^2 / r0 - r*^3 / (r0 r)) with R = lr times the decay
    that acts at r0: y = (r / r0)^3 obeys dy/dn = -3 R y^(1/3) (y - (r*/r0)^3). One exponential step
    at the present y^(1/3). A second moment that remembers m r multiplies both R and r*^3 by m.
    Derived in docs/theory.md §8 [smdlens-theory].

    Args:
        level: y now.
        rate: R per update.
        target: (r* / r0)^3 at the rates of these updates.
        n: Updates.
    """
    level, rate, target, n = as_floats(level, rate, target, n)
    with np.errstate(invalid="ignore"):
        return np.asarray(target + (level - target) * np.exp(-3.0 * rate * np.cbrt(level) * n))[()]


def ratio_after_cut(n: Real, k: Real, rate: Real) -> Array:
    """Delta(n) / Delta*_new = (1 + (k - 1) exp(-R n))^(-1/2), n updates after a cut by k.

    From equilibrium at the old rate with the unit gradient unchanged (k < 1: an increase); at n = 0
    it is 1/sqrt(k). The mean-field law behind [Wan2021, Cor 3.1], derived in docs/theory.md §8
    [smdlens-theory].

    Args:
        n: Updates since the cut, beyond the momentum transient of about 10 / (1 - a).
        k: lr_before / lr_after.
        rate: R of `relaxation_rate` at the new learning rate.

    Returns:
        Ratio of angles, broadcast shape.
    """
    n, k, rate = as_floats(n, k, rate)
    return np.asarray(1.0 / np.sqrt(1.0 + (k - 1.0) * np.exp(-rate * n)))[()]


def iterations_to_tolerance(k: Real, tolerance: Real, rate: Real) -> Array:
    """Updates until the angle is within a fraction e of its new equilibrium, after a cut by k.

    ln((k - 1) / ((1-e)^-2 - 1)) / R for a cut, ln((1 - k) / (1 - (1+e)^-2)) / R for an increase.
    Derived in docs/theory.md §8 [smdlens-theory].

    Args:
        k: lr_before / lr_after (or y itself).
        tolerance: e, as a fraction of the equilibrium angle.
        rate: R of `relaxation_rate` at the new learning rate.

    Returns:
        Real number of updates; 0 where already within tolerance, infinite where nothing relaxes
        (rate 0). Below about 10 / (1 - a) the momentum transient decides, not this.
    """
    k, tolerance, rate = broadcast(k, tolerance, rate)
    with np.errstate(divide="ignore", invalid="ignore"):
        below_target = np.where(tolerance < 1.0, (1.0 - tolerance) ** -2.0 - 1.0, np.inf)
        above_target = 1.0 - (1.0 + tolerance) ** -2.0
        excess = np.where(k >= 1.0, (k - 1.0) / below_target, (1.0 - k) / above_target)
        updates = np.where(excess <= 1.0, 0.0, np.log(excess) / rate)
    return np.where(np.isnan(k), np.nan, updates)[()]


def iterations_from_ratio(ratio: Real, tolerance: Real, rate: Real) -> Array:
    """`iterations_to_tolerance` restarted from a measured Delta / Delta*: y = ratio^-2.

    A ratio of 0 (no motion measured) gives infinity. Derived in docs/theory.md §8
    [smdlens-theory].
    """
    ratio = as_float64(ratio)
    with np.errstate(divide="ignore"):
        return iterations_to_tolerance(ratio**-2.0, tolerance, rate)


def iterations_corollary(k: Real, lr: Real, decay: Real, momentum: Real = 0.0) -> Array:
    """The paper's least number of updates, ceil(ln(k) (1-a) / (2 decay lr)) [Wan2021, Cor 3.1].

    Read with the NEW rate (the paper does not say which). It is where the angle is practically
    there (.894/.928/.958/.995 of equilibrium for k = 2/5/10/100), not a bound: for that see
    `iterations_lower_bound`.

    Returns:
        Whole updates as float64; 0 for k <= 1, infinite without decay.
    """
    k, lr, decay, a = as_floats(k, lr, decay, momentum)
    with np.errstate(divide="ignore", invalid="ignore"):
        count = np.ceil(np.log(k) * (1.0 - a) / (2.0 * decay * lr))
    return np.where(k <= 1.0, 0.0, count)[()]


def iterations_lower_bound(k: Real, rate: Real, tolerance: Real = 0.0) -> Array:
    """Fewest updates in which a steady unit gradient can reach equilibrium: ln(k (1-e)^2) / R.

    Decay alone shrinks y by exp(-R) per update and gradients only push outwards, so y = k cannot
    reach (1-e)^-2 sooner; with R = -4 ln x1 and e = 0 it is ln k / (-4 ln x1). What is reached by
    then is .82/.75/.73/.71 of equilibrium for k = 2/5/10/100. The rigorous form of
    [Wan2021, Cor 3.1], derived in docs/theory.md §8 [smdlens-theory].

    Args:
        k: lr_before / lr_after, a cut (k > 1).
        rate: R of `relaxation_rate` at the new learning rate.
        tolerance: e; 0 for equilibrium itself.

    Returns:
        Real number of updates; 0 for k <= (1-e)^-2, infinite at rate 0.
    """
    k, rate, tolerance = broadcast(k, rate, tolerance)
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = np.log(k) + 2.0 * np.log1p(-np.minimum(tolerance, 1.0))
        return np.where(needed > 0.0, needed / rate, np.where(np.isnan(k), np.nan, 0.0))[()]


def relaxed_turn2_ratio(
    y0: Real,
    lr: Real,
    decay: Real,
    momentum: float = 0.0,
    family: Family = "sgd",
) -> Array:
    """(Delta_t / Delta*_t)^2 of an undisturbed tensor under any schedule, update by update.

    Integrates d|w|^m/dn = -R_t (|w|^m - |w*_t|^m) exactly over each update with its own rate and
    |w*_t|^m proportional to lr_t / decay_t. SGD: d r^4/dn = -4 decay lr/(1-a) r^4 +
    2 lr^2 L/(1-a)^2; AdamW: d r^2/dn = -2 decay lr r^2 + lr^2 d (up to the accuracy of R). Derived
    in docs/theory.md §8 [smdlens-theory]; the
    continuous law is [Li2020b].

    Args:
        y0: (|w| / |w*|)^m before the first update, w.r.t. the first rate; shape `batch`.
        lr: Rates of the updates, [n] or [n, *batch].
        decay: Weight decay, scalar or broadcastable to lr.
        momentum: a.
        family: Which optimizer.

    Returns:
        [n, *batch]: squared ratio of angle to the equilibrium of that update's own rate, at the
        start of the update. NaN where the first rate or a decay is 0. Unit gradient unchanged,
        momentum transients (about 10 / (1-a) updates after a jump) left out.
    """
    lr, decay = broadcast(lr, decay)
    y0 = as_float64(y0)
    batch = np.broadcast_shapes(lr.shape[1:], y0.shape)
    shape = (len(lr), *(1,) * (len(batch) + 1 - lr.ndim), *lr.shape[1:])
    lr, decay = lr.reshape(shape), decay.reshape(shape)
    rate = as_float64(relaxation_rate(lr, decay, momentum, family))
    with np.errstate(divide="ignore", invalid="ignore"):
        target = (lr / decay) / (lr[:1] / decay[:1])
    ratio = np.empty((len(lr), *batch))
    worn = np.cumsum(rate, axis=0)  # -ln of what is left of the start after each update
    steepest = np.cumsum(rate.reshape(len(lr), -1).max(axis=1))
    level = np.broadcast_to(y0, batch)
    start, before = 0, np.zeros_like(worn[0])
    while start < len(lr):
        # exp(worn) must not overflow: go on in pieces over which no exponent grows past 300
        reach = 300.0 + (float(steepest[start - 1]) if start else 0.0)
        stop = max(start + 1, int(np.searchsorted(steepest, reach, side="right")))
        gone = np.concatenate([before[None], worn[start:stop]]) - before
        pushed = target[start:stop] * -np.expm1(-rate[start:stop]) * np.exp(gone[1:])
        gained = np.concatenate([np.zeros_like(gone[:1]), np.cumsum(pushed, axis=0)])
        levels = np.exp(-gone) * (level + gained)
        ratio[start:stop] = target[start:stop] / levels[:-1]
        level, before, start = levels[-1], worn[stop - 1], stop
    return ratio
