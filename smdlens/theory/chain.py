"""Shooting through a whole series of snapshots, every interval handing its buffer to the next.

Done for all intervals at once and repeated, instead of one after the other: a wrong buffer at the
start of an interval of n updates changes its end by about 1 / ((1 - a) n) of the error only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smdlens.theory.arrays import Array, Real, as_float64, as_floats
from smdlens.theory.moments import UpdateRule
from smdlens.theory.shooting import Shot, initial_moments, shoot

AGREEMENT = 1e-6


def shoot_series(
    rule: UpdateRule,
    lr: Real,
    coupled: Real,
    decoupled: Real,
    W: Array,
    count: NDArray[np.int64],
    P: Real = np.nan,
    V: Real = np.nan,
    max_passes: int = 6,
) -> Shot:
    """`shooting.shoot` over consecutive snapshots, with (P, V) carried between the intervals.

    Derived in docs/theory.md §7 [smdlens-theory].

    Args:
        rule: The optimizer.
        lr: Rates [n_steps, m, *batch], batch axes of length 1 allowed; or a number.
        coupled: Decay inside the gradient, broadcastable likewise (kappa per interval and tensor).
        decoupled: Decay on the weights directly, likewise.
        W: |w|^2 of the m + 1 snapshots, [m + 1, *batch].
        count: Updates of each interval, broadcastable to [m, *batch].
        P: <w, v'> at the start of each interval where known (a saved buffer; 0 at step 0), NaN
            elsewhere, broadcastable to [m, *batch].
        V: |v'|^2 likewise.
        max_passes: Rounds of handing over; they stop when starts agree to `AGREEMENT`.

    Returns:
        One shot per interval, arrays [m, *batch].
    """
    W = as_float64(W)
    shape = (len(W) - 1, *W.shape[1:])
    counts = np.broadcast_to(count, shape)
    known_P, known_V = (np.broadcast_to(x, shape) for x in as_floats(P, V))
    with np.errstate(divide="ignore", invalid="ignore"):
        s = np.log(W[1:] / W[:-1]) / counts
        rate, pull, shrink = (x[0] if x.ndim else x for x in as_floats(lr, coupled, decoupled))
        guess_P, guess_V = initial_moments(rule, W[:-1], s, rate, pull, shrink)
    start_P = np.where(np.isnan(known_P), guess_P, known_P)
    start_V = np.where(np.isnan(known_V), guess_V, known_V)
    shot = shoot(rule, lr, coupled, decoupled, W[:-1], start_P, start_V, W[1:], counts)
    for _ in range(max_passes - 1):
        before = start_P, start_V
        start_P, start_V = (
            _handed_over(known, ended, old)
            for known, ended, old in (
                (known_P, shot.P_end, start_P),
                (known_V, shot.V_end, start_V),
            )
        )
        if _agree(before[0], start_P) and _agree(before[1], start_V):
            break
        shot = shoot(
            rule, lr, coupled, decoupled, W[:-1], start_P, start_V, W[1:], counts, guess=shot.G
        )
    return shot


def _handed_over(known: Array, ended: Array, old: Array) -> Array:
    """What the interval before ended with, where nothing was saved and it ended with a number."""
    start = old.copy()
    start[1:] = np.where(np.isfinite(ended[:-1]), ended[:-1], old[1:])
    return np.where(np.isnan(known), start, known)


def _agree(old: Array, new: Array) -> bool:
    both = np.isfinite(old) & np.isfinite(new)
    return bool(np.all(np.abs(new - old)[both] <= AGREEMENT * np.abs(new)[both]))
