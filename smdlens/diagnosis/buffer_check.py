"""The weights held against their own momentum: do they belong together, at the recorded rates?

Three independent readings of heavy ball's saved buffers (docs/theory.md §12): their radial part is
<g, w> / |w|^2 and vanishes for scale-invariant weights; their energy is the unit gradient that the
norm balance must find too; and a radial part of minus the decay means that no decay acts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.measure_group import GroupMeasurement
from smdlens.diagnosis.radial import radial_ratio
from smdlens.symmetry.records import ScaleGroups

Array = NDArray[np.float64]

# One snapshot's reading scatters by 0.1 or so: this many make a mean worth having.
_READINGS = 8
# Batch-normalised convolutions stay within 0.07, other weights lie beyond 0.3 (docs/theory.md §12).
_RADIAL = 0.2
# Buffers and norms find the same unit gradient to this factor.
_ENERGY = np.log(1.7)
# Squared length of a buffer over that of the decay's share, above which gradients make it.
_PULL = 3.0
# Change of the buffer's energy over an interval, logarithm; one draw of it scatters by 0.3.
_RESTLESS = np.log(4.0)
# How many standard errors away a reading must lie.
_SIGMAS = 4.0


class Mismatch(StrEnum):
    """How a tensor's weights and momentum contradict each other."""

    AVERAGED = "averaged"
    NO_DECAY_ACTS = "no_decay_acts"
    OTHER_RATE = "other_rate"
    RADIAL_MOMENTUM = "radial_momentum"


@dataclass(frozen=True, slots=True)
class Contradiction:
    """One tensor whose momentum does not fit its weights.

    Attributes:
        tensor: Its name.
        kind: What is wrong.
        value: Mean radial part over the decay, or the factor on the learning rate.
        step: From which step on, where it began inside the run.
    """

    tensor: str
    kind: Mismatch
    value: float
    step: int | None


def contradictions(
    measured: list[GroupMeasurement], groups: ScaleGroups
) -> tuple[Contradiction, ...]:
    """Scale-invariant tensors whose buffers contradict their weights, in group order.

    Where most of a run's tensors have a radial part that points outwards, the weights are not those
    the momentum acted on: an averaged copy.
    """
    found: list[Contradiction] = []
    outward = looked_at = 0
    for part in measured:
        law = part.law
        if law is None or not law.is_heavy_ball or law.momentum == 0.0 or law.decoupled:
            continue
        radial = radial_ratio(part) - part.ratios.kappa_ratio
        # A frozen tensor keeps the buffer it had: it says nothing about weights that stand still.
        radial = np.where(part.steps.angle == 0.0, np.nan, radial)
        energy = _energy(part, law.momentum)
        for row, name in enumerate(part.tracks.tensors):
            if not groups.tensors[name].on_sphere:
                continue
            verdict = _check(name, radial[row], energy[row], part.tracks.steps)
            if np.isfinite(radial[row]).sum() >= _READINGS:
                looked_at += 1
                # A wrong rate leans too, but finds its own factor in every interval.
                explained = verdict is not None and verdict.kind is not Mismatch.RADIAL_MOMENTUM
                outward += bool(np.nanmean(radial[row]) > _RADIAL) and not explained
            if verdict is not None:
                found.append(verdict)
    if looked_at >= 2 and outward > looked_at / 2:
        return tuple(
            Contradiction(name, Mismatch.AVERAGED, 0.0, None)
            for part in measured
            for name in part.tracks.tensors
            if groups.tensors[name].on_sphere
        )
    return tuple(found)


def _energy(part: GroupMeasurement, a: float) -> Array:
    """Unit gradient in the buffer over that in the norms, logarithm, at interval ends, [T, I].

    NaN where the two cannot be compared: where the decay's own share of the buffer is no trifle,
    and where the unit gradient changes so fast that the end of an interval is not its mean.
    """
    tracks = part.tracks
    with np.errstate(divide="ignore", invalid="ignore"):
        buffer = tracks.at["v2"][:, 1:] * tracks.at["w2"][:, 1:] * (1.0 - a * a)
        ratio = np.log(buffer / part.steps.drive)
        change = np.abs(np.diff(np.log(tracks.at["v2"] * tracks.at["w2"]), axis=1))
        pull = part.rates.mean_decay() / (1.0 - a)
        decaying = tracks.at["v2"][:, 1:] < _PULL * pull**2 * tracks.at["w2"][:, 1:]
    restless = change > _RESTLESS
    still = part.steps.angle == 0.0
    blind = part.steps.below | (tracks.lengths == 1) | decaying | restless | still
    return np.where(np.isfinite(ratio) & ~blind, ratio, np.nan)


def _check(
    name: str, radial: Array, energy: Array, steps: NDArray[np.int64]
) -> Contradiction | None:
    known = np.isfinite(radial[1:])
    late = radial[1:][known]
    if len(late) < _READINGS:
        return None
    inactive = _without_decay_since(radial, steps)
    if inactive is not None:
        return Contradiction(name, Mismatch.NO_DECAY_ACTS, -1.0, inactive)
    drawn = energy[1:][np.isfinite(energy[1:])]
    if len(drawn) >= _READINGS:
        middle, error = float(np.median(drawn)), 1.25 * float(np.std(drawn)) / len(drawn) ** 0.5
        if abs(middle) > max(_ENERGY, _SIGMAS * error):
            return Contradiction(name, Mismatch.OTHER_RATE, float(np.exp(-middle)), None)
    mean, error = float(late.mean()), float(late.std()) / len(late) ** 0.5
    if abs(mean) > max(_RADIAL, _SIGMAS * error):
        return Contradiction(name, Mismatch.RADIAL_MOMENTUM, mean, None)
    return None


def _without_decay_since(radial: Array, steps: NDArray[np.int64]) -> int | None:
    """First step from which the radial part stays at minus the decay, if it does for long."""
    absent = np.abs(radial + 1.0) < 0.25
    count = len(absent)
    while count > 0 and absent[count - 1]:
        count -= 1
    stays = len(absent) - count
    if stays < _READINGS // 2 or abs(float(np.mean(radial[count:])) + 1.0) > 0.1:
        return None
    return int(steps[count])
