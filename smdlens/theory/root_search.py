"""Bracketed secants for many increasing, nearly linear functions at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from smdlens.theory.arrays import Array, Flags
from smdlens.theory.trajectory import Indices

MAX_EVALUATIONS = 60


def find_roots(
    miss: Callable[[Array, Indices], Array],
    guess: Array,
    which: Indices,
    tolerance: float,
) -> tuple[Array, Flags, NDArray[np.int64]]:
    """Non-negative roots of increasing functions that are costly and nearly linear.

    Secants through the last two points, replaced by bisection (geometric once both ends are
    positive) or growth by 64 where they leave the bracket or do not halve the value; solved
    functions are not evaluated again. That the functions of `shooting` are nearly linear is
    derived in docs/theory.md §7 [smdlens-theory].

    Args:
        miss: Values of the functions `which` (second argument) at the points x[which] (first
            argument: all x).
        guess: Positive starting points, all of them.
        which: Functions to solve, in the order that `miss` wants.
        tolerance: Size of the value at which a root is good enough.

    Returns:
        Roots; flags of the functions that are at or above 0 at x = 0 already (root 0); the number
        of evaluations of each.
    """
    size = len(guess)
    root = guess.copy()
    evaluations = np.zeros(size, dtype=np.int64)
    low, high = np.zeros(size), np.full(size, np.inf)
    x, value = np.zeros(size), np.full(size, np.nan)
    value[which] = miss(x, which)
    evaluations[which] += 1
    at_floor = value >= 0.0
    root[at_floor] = 0.0
    active: Indices = which[value[which] < 0.0]
    trial = guess.copy()
    for _ in range(MAX_EVALUATIONS):
        if not len(active):
            break
        at, last = trial[active], x[active]
        found, before = miss(trial, active), value[active]
        evaluations[active] += 1
        x[active], value[active], root[active] = at, found, at
        lo = np.where(found < 0.0, at, low[active])
        hi = np.where(found < 0.0, high[active], at)
        low[active], high[active] = lo, hi
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            secant = at - found * (at - last) / (found - before)
        halved = np.where(lo > 0.0, np.sqrt(lo) * np.sqrt(hi), hi / 64.0)
        fallback = np.where(np.isfinite(hi), halved, 64.0 * at)
        inside = (secant > lo) & (secant < hi) & (secant <= 1e3 * at)
        # at the first trial there is no progress to judge: the point before was 0
        inside &= (np.abs(found) <= 0.5 * np.abs(before)) | (last == 0.0)
        trial[active] = np.where(inside, secant, fallback)
        pinned = np.isfinite(hi) & (hi - lo <= 4e-16 * hi)
        active = active[~((np.abs(found) <= tolerance) | pinned)]
    return root, at_floor, evaluations
