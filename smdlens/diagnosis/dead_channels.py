"""Channels that get no gradient inside a tensor that does: dead units, pruned or masked filters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.measure_group import GroupMeasurement
from smdlens.diagnosis.records import Finding, Stage
from smdlens.diagnosis.stages import last_part
from smdlens.symmetry.records import ScaleGroups
from smdlens.theory.decay_root import decay_log_rate
from smdlens.vocabulary import INVARIANT_ROLES, Outcome

Array = NDArray[np.float64]

# The mean norm of channels that only decay falls as decay alone makes it, to this share.
_AS_DECAY = 0.05
# Change of ln |w|^2 that counts as none.
_NO_CHANGE = 1e-5
# Decay that lowers a norm by less than this many rounding floors does not show.
_FLOORS = 3.0


@dataclass(frozen=True, slots=True)
class DeadChannels:
    """Channels of one tensor that stand still at the end of a stage.

    Attributes:
        tensor: Its name.
        stage: Index of the stage.
        count: How many channels stand still through the stage's end, those of norm zero included.
        empty: How many of them are zero.
        of: How many there are.
        since: Step of the first snapshot from which so many stand still.
        decaying: Their norm falls as weight decay alone makes it; None where there is no saying.
    """

    tensor: str
    stage: int
    count: int
    empty: int
    of: int
    since: int
    decaying: bool | None

    @property
    def words(self) -> str:
        """What they do."""
        if self.empty == self.count:
            return "are zero"
        if self.decaying is None:
            return "keep their direction while the others turn: they get no gradient"
        if self.decaying:
            return "get no gradient: their norm only decays"
        return "do not move at all while the others do"


def dead_channels(
    measured: Sequence[GroupMeasurement],
    stages: tuple[Stage, ...],
    owner: NDArray[np.int64],
    groups: ScaleGroups,
) -> tuple[DeadChannels, ...]:
    """Of each scale-invariant tensor the last stage that ends with dead channels.

    A tensor all of whose channels stand still is none of these: its own state says so.
    """
    found: list[DeadChannels] = []
    for part in measured:
        for row, name in enumerate(part.tracks.tensors):
            tensor = groups.tensors[name]
            if tensor.role not in INVARIANT_ROLES:
                continue
            every = (_in_stage(part, row, stage, owner, tensor.groups) for stage in stages)
            dead = [item for item in every if item is not None]
            found.extend(dead[-1:])
    return tuple(found)


def _in_stage(
    part: GroupMeasurement, row: int, stage: Stage, owner: NDArray[np.int64], of: int
) -> DeadChannels | None:
    tracks = part.tracks
    last = last_part(stage, owner, tracks.steps)
    empty = tracks.between["empty_channels"][row]
    still = tracks.between["still_channels"][row] + empty
    if len(last) < 2 or not np.isfinite(still[last]).all():
        return None
    count = int(still[last].min())
    if not 0 < count < of:
        return None
    first = last[-1]
    while first > 0 and still[first - 1] >= count:
        first -= 1
    return DeadChannels(
        tensor=tracks.tensors[row],
        stage=stage.index,
        count=count,
        empty=int(empty[last].min()),
        of=of,
        since=int(tracks.steps[first]),
        decaying=_decaying(part, row, last),
    )


def _decaying(part: GroupMeasurement, row: int, last: NDArray[np.intp]) -> bool | None:
    growth = part.tracks.between["still_growth"][row, last]
    if not np.isfinite(growth).all():
        return None
    fall = _decay_fall(part)[last]
    if 0.0 < fall.sum() < _FLOORS * part.steps.floor[row, last].max():
        return None  # rounding hides what decay would do
    if (np.abs(growth) < _NO_CHANGE).all():
        return False
    # What was left in the buffers, and noise in the norm of a single channel, average out.
    if np.isfinite(fall).all() and abs(float(-growth.sum() / fall.sum()) - 1.0) < _AS_DECAY:
        return True
    return None


def _decay_fall(part: GroupMeasurement) -> Array:
    """Fall of ln |w|^2 by decay alone over each interval; NaN where rates are not known."""
    law, rates = part.law, part.rates
    if law is None:
        return np.full(len(rates.count), np.nan)
    product = rates.lr * rates.decay
    if law.family in ("sgd", "nesterov"):
        rate = 2.0 * decay_log_rate(product, law.momentum, law.family == "nesterov")
    else:
        rate = -2.0 * np.log1p(-product)
    return np.where(rates.known, np.asarray(rate).sum(axis=0), np.nan)


def dead_channel_findings(found: Sequence[DeadChannels]) -> Iterator[Finding]:
    """One finding per tensor."""
    for item in found:
        yield Finding(
            "SMD052",
            Outcome.WARN,
            item.tensor,
            f"{item.count} of {item.of} channels {item.words} (from step {item.since} on)",
            "Look for units that never fire, or a mask; their share of the norm is no motion.",
        )
