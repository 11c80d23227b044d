"""Does a series fall: a test of its trend that asks for no shape of it and no distribution."""

from __future__ import annotations

import numpy as np

from smdlens.theory.arrays import Array

# Five values can show a trend at the level of 1% (one order of 120), four cannot (one of 24).
FEWEST = 5
MOST = 200


def falling(at: Array, values: Array) -> tuple[float | None, float | None]:
    """Change over the time by the median slope, and the chance of so steep a fall without a trend.

    One-sided test of S, the number of rising pairs less that of falling ones [Mann1945], against
    its exact distribution over all orders; ties make it stricter. The slope is the median over all
    pairs [Sen1968]. Valid for values that are independent around their trend. Of more than 200
    values the means of 200 blocks are taken.

    Args:
        at: Places, increasing, [n].
        values: Values, [n].

    Returns:
        (change, p), each None with fewer than 5 values.
    """
    if len(values) > MOST:
        at, values = (
            np.array([part.mean() for part in np.array_split(x, MOST)]) for x in (at, values)
        )
    n = len(values)
    if n < FEWEST:
        return None, None
    i, j = np.triu_indices(n, 1)
    s = int(np.sign(values[j] - values[i]).sum())
    change = float(np.median((values[j] - values[i]) / (at[j] - at[i])) * (at[-1] - at[0]))
    return change, _chance(n, s)


def _chance(n: int, s: int) -> float:
    """Share of the orders of n values whose S is at most `s`, by their number of inversions.

    The k-th value adds 0..k-1 inversions, all equally likely; S = n (n-1)/2 - 2 inversions.
    """
    share = np.ones(1)
    for k in range(2, n + 1):
        total = np.cumsum(np.concatenate([share, np.zeros(k - 1)]))
        share = (total - np.concatenate([np.zeros(k), total[:-k]])) / k
    fewest = (n * (n - 1) // 2 - s + 1) // 2
    return float(np.clip(share[fewest:].sum(), 0.0, 1.0))
