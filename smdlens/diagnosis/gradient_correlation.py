"""How gradients oppose the momentum under Nesterov's rule, from how far the weights get.

Norms fix the angle but for rho = <v', g> / |g|^2 (docs/theory.md §5). What makes rho negative also
keeps the weights in place: between snapshots n updates apart a free walk gets sqrt(D n) far, one
that is pulled back by a share e per update no further than sqrt(D / e), and its gradients oppose
the momentum by a multiple of e (docs/theory.md §11).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from smdlens.diagnosis.one_step_record import Array, OneStep
from smdlens.theory.moments import UpdateRule, steady_state

# rho = -(2a + 1) / (2 (1 + a)) e where all directions are pulled back alike. The steep ones, which
# steer most, are pulled back more: some five times on real networks. Then it levels off.
_STEEPER, _LARGEST = 5.0, 0.25
# Error of that: relative, absolute, and of e from one walk of n updates, times n.
_RELATIVE, _ABSOLUTE, _WALK = 0.9, 0.02, 2.2
# Scatter of rho over real networks where the walk shows nothing.
_PRIOR = 0.1
# Below this cosine nothing is left between two snapshots of where the weights came from.
_LOST = 0.05
_GRID = np.linspace(-0.5, 0.2, 71)


def use_shown_correlation(found: OneStep, rule: UpdateRule, lengths: Array) -> None:
    """Puts the correlation that the walk shows in place of the assumed one.

    Args:
        found: Measured with `rule.correlation`; turn2 and `assumed_error` change in place.
        rule: Nesterov's.
        lengths: Updates per interval, [I].
    """
    rho, error = shown_correlation(found, rule, lengths)
    angles = _settled_turn2(rule)
    settled = float(np.interp(rule.correlation, _GRID, angles))
    found.turn2[:] *= np.interp(rho, _GRID, angles) / settled
    high, low = (np.interp(rho + side * error, _GRID, angles) for side in (-1.0, 1.0))
    found.assumed_error[:] = (high - low) / (2.0 * np.interp(rho, _GRID, angles))


def shown_correlation(found: OneStep, rule: UpdateRule, lengths: Array) -> tuple[Array, Array]:
    """Rho of each interval and its standard error, [T, I] each."""
    a, n = rule.a, lengths
    # The sum of the steps grows as that of the gradients over 1 - a: D over turn2.
    step2 = (1.0 + a) ** 2 + a**4 / (1.0 - a * a)
    with np.errstate(divide="ignore", invalid="ignore"):
        free = found.turn2 / (step2 * (1.0 - a) ** 2) * np.maximum(n - 1.0 / (1.0 - a), 1.0)
        cosine = 1.0 - (2.0 * np.sin(found.angle / 2.0) ** 2 - found.floor**2 / 2.0)
        walked = -2.0 * np.log(np.clip(cosine, _LOST, 1.0))
        pulled = _pull_back(walked / free) / n
    rate = _STEEPER * (2.0 * a + 1.0) / (2.0 * (1.0 + a)) * pulled
    shown = -_LARGEST * -np.expm1(-rate / _LARGEST)
    error = np.sqrt((_RELATIVE * shown) ** 2 + _ABSOLUTE**2 + (_WALK / n) ** 2)
    clear = np.isfinite(shown) & (cosine > _LOST) & (found.angle > 2.0 * found.floor)
    weight = np.where(clear, error**-2.0, 0.0)
    believed = _PRIOR**-2.0
    total = weight + believed
    mean = (weight * np.where(clear, shown, 0.0) + believed * rule.correlation) / total
    return mean, total**-0.5


def _pull_back(share: Array) -> Array:
    """X >= 0 of (1 - e^-x) / x = share, the walk's squared length over a free one's."""
    x = np.where(share < 1.0, 1.0 / np.maximum(share, 1e-6), 0.0)
    for _ in range(8):
        # x = (1 - e^-x) / share contracts for x away from 0.
        x = np.where(share < 1.0, -np.expm1(-x) / np.maximum(share, 1e-6), 0.0)
    return x


def _settled_turn2(rule: UpdateRule) -> Array:
    """Equilibrium turn2 at each correlation of the grid, up to a factor."""
    rules = (dataclasses.replace(rule, correlation=float(rho)) for rho in _GRID)
    return np.array([float(steady_state(each, 1.0, 1e-6, 0.0).turn2) for each in rules])
