"""The same walk over directions under another schedule, and the clocks that compare runs."""

from __future__ import annotations

import numpy as np

from smdlens.theory.arrays import Array, Real, as_float64, as_floats
from smdlens.theory.decay_root import decay_log_rate


def equivalent_rate(step: Real, lr: Real, decay: Real, momentum: Real = 0.0) -> Array:
    """Rate of update t that walks the same directions without decay: lr x1^(-2t-1).

    SGD with momentum a, decay and constant lr passes through the same directions as SGD with
    momentum a, no decay and this exponentially growing rate; w_t = x1^t w~_t, with the initial
    velocity matched: v~_(-1) such that both first steps agree [Li2020a, Thm 2.1].

    Args:
        step: t = 0, 1, ...
        lr: Constant rate of the run with decay.
        decay: Its weight decay.
        momentum: a.

    Returns:
        Learning rate, broadcast shape.
    """
    step, lr, decay, momentum = as_floats(step, lr, decay, momentum)
    return np.asarray(lr * np.exp((2.0 * step + 1.0) * decay_log_rate(lr * decay, momentum)))[()]


def intrinsic_time(lr: Real, decay: Real, momentum: Real = 0.0) -> Array:
    """Tau after each update: cumulative sum of lr_t decay / (1 - a) over the first axis.

    The axis on which runs with different rates and decays compare [Li2020b].

    Args:
        lr: [n, ...] rates.
        decay: Weight decay, broadcastable.
        momentum: a.

    Returns:
        [n, ...], dimensionless.
    """
    lr, decay, a = as_floats(lr, decay, momentum)
    return np.asarray(np.cumsum(lr * decay / (1.0 - a), axis=0))


def effective_rate(lr: Real, w2: Real, normalised: bool = False) -> Array:
    """Lr / |w|^2 (SGD family) or lr / |w| (normalised steps): the rate on the unit sphere.

    [vanLaarhoven2017] for SGD; [Kosson2024] for Adam.
    """
    lr, w2 = as_floats(lr, w2)
    return np.asarray(lr / (np.sqrt(w2) if normalised else w2))[()]


def next_effective_rate(
    phi: Real, unit_gradient2: Real, lr: Real, lr_next: Real, decay: Real, decay_next: Real
) -> Array:
    """Phi' = B Phi / (1 + Phi^2 |g~|^2) of plain SGD, Phi = lr / ((1 - lr decay) |w|^2).

    B = lr' / (lr (1 - lr decay)(1 - lr' decay')). With B = 1 the rate only falls: decay at constant
    lr is the growth of an exponential schedule [Li2020a, Thm 2.1]; derived in docs/theory.md §12
    [smdlens-theory].

    Args:
        phi: Phi before the update.
        unit_gradient2: |g~|^2 of the update.
        lr: Rate of the update.
        lr_next: Rate of the next one.
        decay: Weight decay of the update.
        decay_next: Of the next one.

    Returns:
        Phi before the next update, broadcast shape.
    """
    phi, unit_gradient2, lr, lr_next = as_floats(phi, unit_gradient2, lr, lr_next)
    keep = 1.0 - lr * as_float64(decay)
    keep_next = 1.0 - lr_next * as_float64(decay_next)
    boost = lr_next / (lr * keep * keep_next)
    return np.asarray(boost * phi / (1.0 + phi**2 * unit_gradient2))[()]
