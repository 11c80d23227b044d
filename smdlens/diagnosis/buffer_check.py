"""The weights held against their own buffers: do they belong together, at the recorded rates?

Two balances say what learning rate and weight decay really ran (`balance`); where no pair of them
brings the two together, weights and buffers are not of one trajectory.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.balance import Balance, Fit, balance_of, fit_rates
from smdlens.diagnosis.measure_group import GroupMeasurement
from smdlens.symmetry.records import ScaleGroups

Array = NDArray[np.float64]

# One snapshot's reading scatters by 0.1 or so: this many make a mean worth having.
_READINGS = 8
# Batch-normalised convolutions stay within 0.07, other weights lie beyond 0.3 (docs/theory.md §12).
_RADIAL = 0.2
# How many standard errors away a reading must lie.
_SIGMAS = 4.0
# Squared residual per balance, in standard errors, that still counts as agreement.
_FITS = 4.0
# Rate and decay are read to 5% or so; unlike the recorded ones from this factor on.
_OTHER = np.log(1.5)
# An average moves less than the weights it is of: it looks like a rate below this.
_AVERAGE = 0.3
# No decay acts where single readings of it stay within the first and their mean within the second.
_ABSENT, _ABSENT_MEAN = 0.25, 0.1


# A record that is wrong for all tensors is wrong by one factor; theirs differ by no more than this.
_SHARED = 1.3
_NOT_THESE = "no learning rate and weight decay bring them together with their buffers"


class Mismatch(StrEnum):
    """How a tensor's weights and buffers contradict each other, or the record."""

    AVERAGED = "averaged"
    NO_DECAY_ACTS = "no_decay_acts"
    OTHER_RATE = "other_rate"
    OTHER_DECAY = "other_decay"
    OTHER_PRODUCT = "other_product"
    RATE_OR_DECAY = "rate_or_decay"
    RADIAL_MOMENTUM = "radial_momentum"


_OTHERS = (Mismatch.OTHER_RATE, Mismatch.OTHER_DECAY, Mismatch.RATE_OR_DECAY)


@dataclass(frozen=True, slots=True)
class Contradiction:
    """One tensor whose buffers do not fit its weights.

    Attributes:
        tensor: Its name.
        kind: What is wrong.
        value: Factor on the rate or the decay, or the mean radial part over the decay.
        step: From which step on, where it began inside the run.
        evidence: What says so.
    """

    tensor: str
    kind: Mismatch
    value: float
    step: int | None
    evidence: str = "its buffers and its norm agree on that"


def contradictions(
    measured: list[GroupMeasurement], groups: ScaleGroups, owner: NDArray[np.int64]
) -> tuple[Contradiction, ...]:
    """Scale-invariant tensors whose buffers contradict their weights, in group order.

    Where that is so for most of a run's tensors and no rate or decay explains it, or another one
    for each tensor, the weights are not those the buffers acted on: an averaged copy.

    Args:
        measured: The parameter groups.
        groups: Scale groups.
        owner: Stage of each interval, -1 for none.
    """
    found: list[Contradiction] = []
    unexplained = looked_at = 0
    windows = [np.flatnonzero(owner == stage) for stage in np.unique(owner[owner >= 0])]
    for part in measured:
        balance = balance_of(part)
        if balance is None:
            continue
        for row, name in enumerate(part.tracks.tensors):
            fit = fit_rates(balance, row, windows)
            if not groups.tensors[name].on_sphere or fit is None:
                continue
            if fit.readings < _READINGS:
                continue
            looked_at += 1
            verdict = _check(name, balance, row, fit, part.tracks.steps, windows)
            explained = min(fit.misfit, fit.steady_misfit) <= _FITS
            if verdict is not None:
                slow = verdict.kind is Mismatch.OTHER_RATE and verdict.value < _AVERAGE
                explained = verdict.kind is Mismatch.NO_DECAY_ACTS or (explained and not slow)
            unexplained += not explained
            if verdict is not None:
                found.append(verdict)
    others = [item.value for item in found if item.kind in _OTHERS]
    if len(others) > looked_at / 2 and max(others) > _SHARED * min(others):
        unexplained += len(others)
    if looked_at >= 2 and unexplained > looked_at / 2:
        return tuple(
            Contradiction(name, Mismatch.AVERAGED, 0.0, None, _NOT_THESE)
            for part in measured
            for name in part.tracks.tensors
            if groups.tensors[name].on_sphere
        )
    return tuple(found)


def _check(
    name: str,
    balance: Balance,
    row: int,
    fit: Fit,
    steps: NDArray[np.int64],
    windows: list[NDArray[np.intp]],
) -> Contradiction | None:
    inactive = _without_decay_since(balance, row, steps)
    if inactive is not None and _belonged(balance, row, inactive, windows, steps):
        return Contradiction(name, Mismatch.NO_DECAY_ACTS, 0.0, inactive)
    if fit.steady_misfit <= _FITS:
        if fit.steady_decay > 0.0 and abs(np.log(fit.steady_decay)) < _OTHER:
            return None
        # In equilibrium, a larger decay and a smaller rate move weights and buffers alike.
        other = abs(np.log(fit.rate_alone)) > _OTHER and fit.alone_misfit <= _FITS
        kind = Mismatch.RATE_OR_DECAY if other else Mismatch.OTHER_DECAY
        return Contradiction(name, kind, fit.steady_decay, None)
    if fit.misfit <= _FITS:
        if abs(np.log(fit.rate)) > _OTHER:
            return Contradiction(name, Mismatch.OTHER_RATE, fit.rate, None)
        return None
    if not balance.coupled:
        return None
    radial = balance.decay_by_lean(1.0)[row] - 1.0
    radial = radial[np.isfinite(radial)]
    mean, error = float(radial.mean()), float(radial.std()) / len(radial) ** 0.5
    if abs(mean) > max(_RADIAL, _SIGMAS * error):
        return Contradiction(name, Mismatch.RADIAL_MOMENTUM, mean, None)
    return None


def _without_decay_since(balance: Balance, row: int, steps: NDArray[np.int64]) -> int | None:
    """First step from which no decay acts any more, if that stays so for long."""
    decay = (balance.decay_by_lean if balance.coupled else balance.decay_by_trend)(1.0)[row]
    known = np.flatnonzero(np.isfinite(decay))
    absent = np.abs(decay[known]) < _ABSENT
    stays = len(absent) if absent.all() else int(np.argmin(absent[::-1]))
    last = known[len(known) - stays :]
    if stays < _READINGS // 2 or abs(float(decay[last].mean())) > _ABSENT_MEAN:
        return None
    return int(steps[last[0]])


def _belonged(
    balance: Balance,
    row: int,
    since: int,
    windows: list[NDArray[np.intp]],
    steps: NDArray[np.int64],
) -> bool:
    """Whether weights and buffers fitted each other before a decay that stopped acting."""
    fit = fit_rates(balance, row, [w[steps[w + 1] <= since] for w in windows])
    return fit is None or fit.steady_misfit <= _FITS
