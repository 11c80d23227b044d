"""Cubic interpolation of a smooth schedule between the few rates a run has saved."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def interpolate(x: Array, y: Array, at: Array) -> Array:
    """Not-a-knot cubic spline through (x, y), evaluated at `at`; linear for two points.

    Args:
        x: Strictly increasing float64 [k], k >= 2.
        y: float64 [k].
        at: float64 [m]; outside x the end cubics go on.

    Returns:
        float64 [m]. The error is of fourth order in the spacing, where linear interpolation of a
        cosine's tail between snapshots would be 50% off in its last interval.
    """
    if len(x) < 3:
        return np.asarray(y[0] + (y[1] - y[0]) * (at - x[0]) / (x[1] - x[0]))
    h = np.diff(x)
    slope = np.diff(y) / h
    k = len(x)
    matrix = np.zeros((k, k))
    right = np.zeros(k)
    inner = np.arange(1, k - 1)
    matrix[inner, inner - 1] = h[:-1]
    matrix[inner, inner] = 2.0 * (h[:-1] + h[1:])
    matrix[inner, inner + 1] = h[1:]
    right[1:-1] = 6.0 * np.diff(slope)
    if k == 3:
        # One parabola through three points: a constant second derivative.
        matrix[0, :2] = [1.0, -1.0]
        matrix[-1, -2:] = [1.0, -1.0]
    else:
        matrix[0, :3] = [h[1], -(h[0] + h[1]), h[0]]
        matrix[-1, -3:] = [h[-1], -(h[-2] + h[-1]), h[-2]]
    second = np.linalg.solve(matrix, right)
    piece = np.clip(np.searchsorted(x, at, side="right") - 1, 0, k - 2)
    t, width = at - x[piece], h[piece]
    first = slope[piece] - width * (2.0 * second[piece] + second[piece + 1]) / 6.0
    third = (second[piece + 1] - second[piece]) / width
    return np.asarray(y[piece] + t * (first + t * (second[piece] / 2.0 + t * third / 6.0)))
