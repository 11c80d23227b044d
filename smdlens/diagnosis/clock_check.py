"""The recorded rates held against the clocks in the weights (docs/theory.md §3).

A clock shows lr * decay / (1 - a) of what really ran, without any declared value: it confirms the
hyper-parameters, contradicts them, or stands in where none are known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.rates import interval_rates
from smdlens.diagnosis.records import Finding
from smdlens.diagnosis.tracks import Tracks
from smdlens.diagnosis.update_rule import Law, law_of
from smdlens.hyper.records import HyperParameters, RateCut
from smdlens.symmetry.records import ScaleGroups
from smdlens.theory.decay_root import decay_log_rate
from smdlens.vocabulary import OptimizerKind, Outcome, Role

Array = NDArray[np.float64]

# Below this share of the norm what rounding leaves of the gradients (fp32) spoils a clock by 2%.
_ALIVE = 3e-4
# A classifier is a clock only for losses that a common shift of the logits leaves unchanged. Its
# reading is believed when it stays the same share of the recorded rate over several intervals.
_STEADY = 0.02
_READINGS = 3
# Agreement within this confirms; beyond it by a clock that keeps time, it contradicts.
_AGREES = 0.02
_DISAGREES = 0.05


@dataclass(frozen=True, slots=True)
class Reading:
    """What one clock says: its rate over the recorded one, or alone.

    Attributes:
        tensor: The clock.
        share: Measured over recorded rate, median over intervals; None where none is recorded.
        worst: The interval's share that lies farthest from 1.
        steps: Where that interval lies.
        per_update: Measured fall of its logarithm per update, median over intervals.
        trusted: It kept time well enough to be believed against the record.
    """

    tensor: str
    share: float | None
    worst: float
    steps: tuple[int, int]
    per_update: float
    trusted: bool


def read_clocks(
    tracks: Tracks,
    hyper: HyperParameters,
    groups: ScaleGroups,
    uncertain: tuple[RateCut, ...] = (),
) -> list[Reading]:
    """Readings of every clock that ticked for several intervals, most trusted first."""
    starts, ends = tracks.steps[:-1], tracks.steps[1:]
    certain = np.ones(len(starts), dtype=bool)
    for cut in uncertain:
        certain &= (ends <= cut.step_low) | (starts >= cut.step_high)
    readings = []
    for row, name in enumerate(tracks.tensors):
        tensor = groups.tensors[name]
        if not tensor.clock or hyper.optimizer.kind in (
            OptimizerKind.ADAM,
            OptimizerKind.ADAMW,
            OptimizerKind.LION,
        ):
            continue
        reading = _read(tracks, hyper, row, name, tensor.role is Role.IRRELEVANT, certain)
        if reading is not None:
            readings.append(reading)
    return sorted(readings, key=lambda reading: not reading.trusted)


def _read(
    tracks: Tracks,
    hyper: HyperParameters,
    row: int,
    name: str,
    irrelevant: bool,
    certain: NDArray[np.bool_],
) -> Reading | None:
    clock2, w2 = tracks.at["clock2"][row], tracks.at["w2"][row]
    alive = (clock2 > 0.0) & (np.sqrt(clock2) > _ALIVE * np.sqrt(w2))
    if irrelevant:
        # The clock is the tensor: it is alive while it is far above where it started rounding.
        alive = clock2 > (_ALIVE**2) * np.nanmax(clock2)
    usable = alive[:-1] & alive[1:] & certain
    usable[0] = False  # the momentum of the first updates has yet to build up
    with np.errstate(divide="ignore", invalid="ignore"):
        fall = -np.diff(np.log(clock2)) / 2.0
    group = hyper.group_of(name)
    law = None if group is None else law_of(hyper.optimizer, group)
    expected = np.full(len(fall), np.nan)
    if group is not None and law is not None:
        expected = _expected_fall(tracks, hyper, hyper.groups.index(group), law)
    if np.isfinite(expected).any():
        usable &= expected > 0.0
    usable &= np.isfinite(fall)
    if usable.sum() < 2:
        return None
    per_update = float(np.median(fall[usable] / tracks.lengths[usable]))
    recorded = usable & (expected > 0.0)
    shares = fall[recorded] / expected[recorded]
    if len(shares) == 0:
        return Reading(name, None, np.nan, (0, 0), per_update, irrelevant)
    # A clock keeps time from one interval to the next; a wrong schedule may change in between.
    steady = np.abs(np.diff(shares)) <= _STEADY * np.abs(shares[1:])
    keeps_time = len(shares) >= _READINGS and bool(steady.mean() > 0.5) and bool((shares > 0).all())
    at = int(np.argmax(np.abs(shares - 1.0)))
    interval = int(np.flatnonzero(recorded)[at])
    where = int(tracks.steps[interval]), int(tracks.steps[interval + 1])
    return Reading(name, float(np.median(shares)), float(shares[at]), where, per_update, keeps_time)


def _expected_fall(tracks: Tracks, hyper: HyperParameters, group: int, law: Law) -> Array:
    """Fall of a clock's logarithm over each interval at the recorded rates, [I]."""
    rates = interval_rates(hyper, group, tracks.steps)
    rate = decay_log_rate(
        rates.lr * rates.decay,
        0.0 if law.decoupled else law.momentum,
        law.family == "nesterov",
    )
    return np.where(rates.known, np.asarray(rate).sum(axis=0), np.nan)


def clock_findings(
    tracks: Tracks,
    hyper: HyperParameters,
    groups: ScaleGroups,
    uncertain: tuple[RateCut, ...] = (),
) -> Iterator[Finding]:
    """One finding: the clocks confirm the recorded rates, contradict them, or replace them.

    Args:
        tracks: All measured tensors.
        hyper: Hyper-parameters with every cut placed.
        groups: Scale groups.
        uncertain: Cuts as recorded that lie somewhere between two snapshots: wherever they were
            placed, the clock of that interval says nothing against the record.
    """
    readings = read_clocks(tracks, hyper, groups, uncertain)
    believed = [r for r in readings if r.trusted and r.share is not None]
    confirming = [
        r
        for r in believed
        if r.share is not None
        and abs(r.share - 1.0) <= _AGREES
        and abs(r.worst - 1.0) <= _DISAGREES
    ]
    if confirming:
        best = min(confirming, key=lambda r: abs((r.share or 0.0) - 1.0))
        yield Finding(
            "SMD030",
            Outcome.PASS,
            best.tensor,
            f"what gets no gradient in it decays at {best.share:.3f} of the recorded "
            "lr x weight decay: the schedule is the one that ran",
        )
        return
    for reading in believed:
        if abs(reading.worst - 1.0) > _DISAGREES:
            first, last = reading.steps
            yield Finding(
                "SMD031",
                Outcome.WARN,
                reading.tensor,
                f"what gets no gradient in it decays at {reading.worst:.2f} of the "
                f"recorded lr x weight decay / (1 - momentum) in steps {first}-{last}: another "
                "weight decay or schedule ran",
                f"Check both there: {reading.worst:.2f} times the recorded product explains it.",
            )
            return
    for reading in readings:
        if reading.share is None and reading.per_update > 0.0 and reading.trusted:
            yield Finding(
                "SMD032",
                Outcome.WARN,
                reading.tensor,
                f"no rate is recorded, but what gets no gradient in it decays by "
                f"{reading.per_update:.4g} per update: that is lr x weight decay / (1 - momentum)",
                "Give --lr and --weight-decay with that product.",
            )
            return
