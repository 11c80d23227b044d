"""Ratios with their intervals: q = (angle / equilibrium angle)^2, for one interval or several.

sigma_q^2 = (k(a) c_h q / n)^2 + (m q)^2 + (0.2 kappa / lam)^2 (docs/theory.md §11). The first term
is the boundary term of the norm balance; it telescopes, so neighbouring intervals that are pooled
count as one long interval, not as independent draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.one_step import OneStep
from smdlens.diagnosis.rates import IntervalRates
from smdlens.diagnosis.tracks import Tracks
from smdlens.diagnosis.update_rule import Law
from smdlens.theory.epsilon_leak import kappa_error
from smdlens.theory.uncertainty import SYSTEMATIC, ErrorKind, momentum_factor
from smdlens.vocabulary import Method

Array = NDArray[np.float64]
Z95 = 1.959963984540054
# c_h = sqrt(V) / L, the relative scatter of h~: 0.8 to 1 on real networks (docs/theory.md §11).
GRADIENT_SCATTER = 0.9
# AdamW without its saved moments: the truth lies up to this far below q (docs/theory.md §6).
ADAM_ONE_SIDED = 0.1
# An interval whose rate changes by more than this within it holds a jump.
_JUMP = 1.5


@dataclass(frozen=True)
class Ratios:
    """Squared ratios per tensor and interval with a 95% interval; [T, I], NaN where unknown.

    `kappa_ratio` is the epsilon leak over the weight decay; `bias_low` is how far the truth may lie
    below q from a known one-sided error.
    """

    q: Array
    low: Array
    high: Array
    systematic: Array
    kappa_ratio: Array
    bias_low: Array


def interval_ratios(
    tracks: Tracks,
    law: Law | None,
    rates: IntervalRates,
    steps: OneStep,
    expected: Array,
    kappa: Array,
) -> Ratios:
    """Squared ratio of each interval with its uncertainty.

    Args:
        tracks: The tensors, for interval lengths.
        law: Their optimizer's theory.
        rates: Recorded rates; an interval with more than one is treated as holding a jump.
        steps: Measured one-step angles.
        expected: Equilibrium 2 (1 - cos Delta*) per interval, [I] or [T, I].
        kappa: Epsilon leak, [T, I].
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        q = steps.turn2 / expected
        q = np.where(np.broadcast_to(expected, q.shape) > 0.0, q, np.nan)
        kappa_ratio = np.where(rates.mean_decay() > 0.0, kappa / rates.mean_decay(), 0.0)
    systematic = np.zeros_like(q)
    statistical = np.zeros_like(q)
    bias_low = np.zeros_like(q)
    if law is not None:
        model = np.where(
            steps.with_state, SYSTEMATIC[_kind(law, True)], SYSTEMATIC[_kind(law, False)]
        )
        systematic = np.where(holds_jump(rates), np.maximum(model, SYSTEMATIC["jump"]), model) * q
        statistical = np.where(steps.with_state, 0.0, scatter(law) * q / rates.lengths)
        if law.adaptive and law.rule is not None:
            bias_low = np.where(steps.with_state, 0.0, ADAM_ONE_SIDED)
    adjacent = steps.method == Method.ADJACENT.value
    with np.errstate(divide="ignore", invalid="ignore"):
        blur = 2.0 * (steps.floor / steps.angle) * q
    # Measured directly, only rounding blurs the angle.
    sigma = np.where(
        adjacent,
        blur,
        np.sqrt(statistical**2 + systematic**2 + kappa_error(kappa_ratio) ** 2),
    )
    direct = adjacent | ((rates.lengths == 1) & (steps.method == Method.OPTIMIZER_STATE.value))
    bias_low = np.where(direct, 0.0, bias_low)
    return Ratios(
        q=q,
        low=np.maximum(q - Z95 * sigma - bias_low, 0.0),
        high=q + Z95 * sigma,
        systematic=np.where(direct, 0.0, systematic),
        kappa_ratio=kappa_ratio,
        bias_low=bias_low,
    )


def scatter(law: Law) -> float:
    """k(a) c_h: relative standard error of q times the number of updates."""
    if law.rule is None:
        return 0.0
    return float(momentum_factor(law.momentum)) * GRADIENT_SCATTER


def _kind(law: Law, with_state: bool) -> ErrorKind:
    if law.adaptive:
        return "adamw_state" if with_state else "one_sided"
    return "nesterov" if law.rule is not None and law.rule.q != 0.0 else "heavy_ball"


def holds_jump(rates: IntervalRates) -> NDArray[np.bool_]:
    """Intervals within which neighbouring updates differ by a factor of 1.5 or more in rate."""
    if len(rates.lr) < 2:
        return np.zeros(len(rates.count), dtype=bool)
    within = np.arange(1, len(rates.lr))[:, None] < rates.count
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.abs(np.log(rates.lr[1:] / rates.lr[:-1]))
    return np.asarray((within & (change > np.log(_JUMP))).any(axis=0))
