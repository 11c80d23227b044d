"""Ratios of Adam with L2 decay, from its saved moments.

What pulls on a weight is the L2 term over sqrt(vhat) + eps, whose mean the moments tell: a decay
like AdamW's, one for each tensor and interval. Held against it, an angle says whether the norm
stands still. That decay grows with the norm, so the equilibrium lies nearer than the balance of
the moment shows (docs/theory.md §5).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.estimate import Ratios, bounds, interval_ratios
from smdlens.diagnosis.leak import Leak
from smdlens.diagnosis.one_step import OneStep
from smdlens.diagnosis.rates import IntervalRates
from smdlens.diagnosis.tracks import Tracks
from smdlens.diagnosis.update_rule import Law
from smdlens.theory.equilibrium import adam_l2_from_balance
from smdlens.theory.moments import steady_state

Array = NDArray[np.float64]

# Relative error of q per unit of ln(remembered norm / norm): a quarter of what it corrects. Norms
# are known at the snapshots only, and the unit gradient is taken as steady meanwhile.
_MEMORY_ERROR = 1.0 / 3.0


def adam_l2_ratios(
    tracks: Tracks, law: Law, rates: IntervalRates, steps: OneStep, leak: Leak
) -> tuple[Array, Ratios]:
    """Equilibrium turn2, [T, I], and squared ratios; NaN where the moments are not saved.

    Args:
        tracks: Tensors of one parameter group.
        law: Adam with L2 decay.
        rates: The group's rates.
        steps: One-step angles, measured with the L2 term as it acts.
        leak: Epsilon leak, none under Adam.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        acting = rates.mean_decay() / tracks.between["s_mean"]
    balance = _balance(law, rates.mean_lr(), acting)
    found = _joined(
        [_of_one(tracks, law, rates, steps, leak, balance, row) for row in range(len(acting))]
    )
    memory = remembered_norm(tracks, law)
    with np.errstate(divide="ignore", invalid="ignore"):
        q = adam_l2_from_balance(found.q, memory)
        slope = np.where(found.q > 0.0, 2.0 / 3.0 * q / found.q, 1.0)
        expected = np.where(q > 0.0, steps.turn2 / q, balance)
    systematic = np.hypot(slope * found.systematic, _MEMORY_ERROR * np.abs(np.log(memory)) * q)
    drawn2 = np.maximum(found.sigma**2 - found.systematic**2, 0.0)
    sigma = np.hypot(slope * np.sqrt(drawn2), systematic)
    low, high = bounds(q, sigma, found.bias_low)
    return expected, dataclasses.replace(
        found,
        q=q,
        low=low,
        high=high,
        sigma=sigma,
        systematic=systematic,
        independent=slope * found.independent,
        boundary=2.0 / 3.0 * found.boundary,
    )


def _balance(law: Law, lr: Array, acting: Array) -> Array:
    """Turn2 at which a decay inside the first moment holds the norm."""
    rule = law.white_rule
    assert rule is not None
    usable = np.isfinite(lr * acting) & (lr > 0.0) & (acting > 0.0)
    steady = steady_state(rule, np.where(usable, lr, 1e-3), np.where(usable, acting, 1.0), 0.0)
    return np.where(usable, steady.turn2, np.nan)


def remembered_norm(tracks: Tracks, law: Law | None) -> Array:
    """Norm that the second moment remembers over the norm there is, [T, I].

    The second moment averages |g|^2, which goes as 1 / |w|^2, over 1 / (1 - beta2) updates;
    between snapshots norms are taken on a straight line of 1 / |w|^2, before the first snapshot of
    a run that began earlier as they are there.
    """
    inverse, lengths = 1.0 / tracks.at["w2"], tracks.lengths
    beta2 = ((law and law.betas) or (0.9, 0.999))[1]
    # The average is kept undivided, with its weight beside it: Adam unbiases it the same way.
    weight = 0.0 if tracks.steps[0] == 0 else 1.0
    mean = inverse[:, 0] * weight
    at = [np.ones(len(inverse))]
    for i, n in enumerate(lengths):
        kept = beta2**n
        # Weights beta2^k of a line from `inverse[i]`, n updates ago, to `inverse[i + 1]`, now.
        ago = (1.0 / (1.0 - beta2) - n * kept / (1.0 - kept)) / n if kept < 1.0 else 0.5
        recent = inverse[:, i + 1] + (inverse[:, i] - inverse[:, i + 1]) * ago
        mean = kept * mean + (1.0 - kept) * recent
        weight = kept * weight + (1.0 - kept)
        at.append(np.sqrt(inverse[:, i + 1] * weight / mean))
    both = np.stack(at, axis=1)
    return np.asarray(np.sqrt(both[:, :-1] * both[:, 1:]))


def _of_one(
    tracks: Tracks,
    law: Law,
    rates: IntervalRates,
    steps: OneStep,
    leak: Leak,
    balance: Array,
    row: int,
) -> Ratios:
    """One tensor as if under AdamW with the decay that acts on it."""
    at = np.array([row], dtype=np.intp)
    acting = dataclasses.replace(rates, decay=rates.decay / tracks.between["s_mean"][row])
    return interval_ratios(
        tracks.take(at),
        dataclasses.replace(law, decoupled=True),
        acting,
        OneStep(**{f.name: getattr(steps, f.name)[at] for f in dataclasses.fields(steps)}),
        balance[at],
        Leak(leak.kappa[at], leak.doubt[at]),
    )


def _joined(parts: Sequence[Ratios]) -> Ratios:
    names = [field.name for field in dataclasses.fields(Ratios)]
    return Ratios(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})
