"""Is a norm held constant, or free and in equilibrium? Where rounding blurs it, by likelihood.

A norm that an optimizer holds shows rounding alone, of a variance that the storage dtype gives. A
free norm in equilibrium wanders besides: gradients whose squared length scatters by c_h move
ln |w|^2 by p c_h per update, p the pull of the decay, and it is drawn back at the rate 2p (SGD),
which leaves a variance of c_h^2 p / 4 (docs/theory.md §14). Both are Gaussian, so the ends of a
stage's intervals decide between them by a ratio of likelihoods.
"""

from __future__ import annotations

import enum

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# The least scatter of gradients taken for granted, and larger ones that runs show.
_SCATTERS = (0.2, 0.4, 0.8, 1.6)
# Variance of rounding over its Gaussian estimate: heavy-tailed weights round worse, weights that
# do not move between snapshots round alike.
_ROUNDINGS = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
# Beyond this multiple of the variance of rounding no held norm scatters.
_FREE = 6.0
# Odds at which one of the two is called.
_ODDS = np.log(20.0)
# Snapshots compared; more are thinned out.
_MOST = 48
_FEWEST = 3


class Norm(enum.Enum):
    """What the norms of a stage show."""

    FREE = "free"
    HELD = "held"
    UNCLEAR = "unclear"


def norm_of(log_norm2: Array, error: Array, steps: Array, pull: float) -> Norm:
    """Whether the norms of one tensor in one stage are held, [S] each.

    Args:
        log_norm2: ln |w|^2 at the snapshots.
        error: Its standard error from rounding to the storage dtype.
        steps: Steps of the snapshots.
        pull: Fall of ln |w|^2 per update by decay alone, positive.
    """
    thin = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), _MOST)).round().astype(int))
    x, s2, t = log_norm2[thin], error[thin] ** 2, steps[thin].astype(np.float64)
    if len(x) < _FEWEST or not (np.isfinite(x + s2).all() and (s2 > 0.0).all()):
        return Norm.FREE
    weighted = np.average(x, weights=1.0 / s2)
    if ((x - weighted) ** 2 / s2).sum() > _FREE * (len(x) - 1):
        return Norm.FREE
    walk = pull / 4.0 * np.exp(-2.0 * pull * np.abs(t[:, None] - t))
    held = max(_log_likelihood(x, np.diag(f * s2)) for f in _ROUNDINGS)
    free = max(
        _log_likelihood(x, np.diag(f * s2) + c * c * walk) for f in _ROUNDINGS for c in _SCATTERS
    )
    if held - free > _ODDS:
        return Norm.HELD
    return Norm.FREE if free - held > _ODDS else Norm.UNCLEAR


def _log_likelihood(x: Array, covariance: Array) -> float:
    """Of Gaussian x around an unknown mean, up to a constant."""
    scale = float(np.trace(covariance)) / len(x)
    factor = np.linalg.cholesky(covariance / scale)
    y = np.linalg.solve(factor, np.stack([x - x.mean(), np.ones_like(x)], axis=1))
    mean2 = float(y[:, 1] @ y[:, 1])
    residual = float(y[:, 0] @ y[:, 0]) - float(y[:, 0] @ y[:, 1]) ** 2 / mean2
    log_det = 2.0 * float(np.log(np.diag(factor)).sum()) + (len(x) - 1) * np.log(scale)
    return -0.5 * float(log_det + np.log(mean2) + residual / scale)
