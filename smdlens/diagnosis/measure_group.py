"""Everything measured for the tensors of one parameter group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.adam_l2 import adam_l2_ratios
from smdlens.diagnosis.estimate import Ratios, interval_ratios
from smdlens.diagnosis.leak import Leak, leak_of
from smdlens.diagnosis.merged import with_short_intervals_merged
from smdlens.diagnosis.one_step import OneStep, one_step
from smdlens.diagnosis.rates import IntervalRates, expected_turn2, interval_rates
from smdlens.diagnosis.tracks import Tracks
from smdlens.diagnosis.update_rule import Law, law_of
from smdlens.hyper.optimizer import SAVED
from smdlens.hyper.records import HyperParameters, ParamGroup
from smdlens.symmetry.records import ScaleGroups

Array = NDArray[np.float64]


@dataclass(frozen=True)
class GroupMeasurement:
    """Arrays [T, I] of the tensors of one parameter group.

    Attributes:
        index: Place of the group in `HyperParameters.groups`; None for tensors of no known group.
        law: Theory of its optimizer.
        tracks: Its tensors' tracks.
        rates: Its recorded rates.
        kappa: Epsilon leak.
        steps: One-step angles.
        expected: Equilibrium turn2.
        ratios: Squared ratios with intervals.
        has_decay: False where weight decay is 0 throughout, None where unknown.
    """

    index: int | None
    law: Law | None
    tracks: Tracks
    rates: IntervalRates
    kappa: Array
    steps: OneStep
    expected: Array
    ratios: Ratios
    has_decay: bool | None

    def is_listed(self, name: str, groups: ScaleGroups) -> bool:
        """Invariant tensors, and the decayed matrices that the theory does not bind."""
        tensor = groups.tensors[name]
        if tensor.on_sphere:
            return True
        return len(tensor.shape) >= 2 and self.has_decay is not False


def measure_groups(
    tracks: Tracks, hyper: HyperParameters, groups: ScaleGroups
) -> list[GroupMeasurement]:
    """One measurement per parameter group that holds a measured tensor, in group order."""
    members: dict[int | None, list[int]] = {}
    place = {id(group): at for at, group in enumerate(hyper.groups)}
    for row, name in enumerate(tracks.tensors):
        group = hyper.group_of(name)
        members.setdefault(None if group is None else place[id(group)], []).append(row)
    ordered = sorted(members.items(), key=lambda item: (item[0] is None, item[0] or 0))
    return [
        _measure_group(tracks, hyper, groups, index, np.array(rows, dtype=np.intp))
        for index, rows in ordered
    ]


def _measure_group(
    tracks: Tracks,
    hyper: HyperParameters,
    groups: ScaleGroups,
    index: int | None,
    rows: NDArray[np.intp],
) -> GroupMeasurement:
    own = tracks.take(rows)
    law = None if index is None else law_of(hyper.optimizer, hyper.groups[index])
    rates = interval_rates(hyper, -1 if index is None else index, tracks.steps)
    leak = leak_of_group(own, hyper, groups, law, rates)
    found = _interval_by_interval(own, law, rates, leak)
    if law is not None and law.rule is not None and not law.is_l2_adam:
        found = with_short_intervals_merged(found, own, law, rates, leak, _interval_by_interval)
    steps, expected, ratios = found
    return GroupMeasurement(
        index, law, own, rates, leak.kappa, steps, expected, ratios, _has_decay(rates, hyper, index)
    )


def _interval_by_interval(
    own: Tracks, law: Law | None, rates: IntervalRates, leak: Leak
) -> tuple[OneStep, Array, Ratios]:
    """One-step angles, their equilibrium values and their ratios."""
    steps = one_step(own, law, rates, leak.kappa)
    expected = np.full(leak.kappa.shape, np.nan)
    if law is not None and law.is_l2_adam:
        return steps, *adam_l2_ratios(own, law, rates, steps, leak)
    if law is not None:
        expected[:] = expected_turn2(law, rates)
    return steps, expected, interval_ratios(own, law, rates, steps, expected, leak)


def leak_of_group(
    own: Tracks,
    hyper: HyperParameters,
    groups: ScaleGroups,
    law: Law | None,
    rates: IntervalRates,
    *,
    raw: bool = False,
) -> Leak:
    """Epsilon leak, tensors taken together whose gains share a group; `raw` as in `leak_of`."""
    kappa, doubt = (np.zeros((len(own.tensors), len(rates.count))) for _ in range(2))
    by_gain: dict[int, list[int]] = {}
    for row, name in enumerate(own.tensors):
        norm = groups.tensors[name].norm
        gain = None if norm is None or norm.gamma is None else hyper.group_of(norm.gamma)
        if gain is not None:
            by_gain.setdefault(hyper.groups.index(gain), []).append(row)
    for at, members in by_gain.items():
        rows = np.array(members, dtype=np.intp)
        gain_rates = interval_rates(hyper, at, own.steps)
        gain_law = law_of(hyper.optimizer, hyper.groups[at])
        certain = hyper.groups[at].source.startswith(SAVED)
        found = leak_of(
            own, rows, law, rates, gain_law, gain_rates, decay_is_certain=certain, raw=raw
        )
        kappa[rows], doubt[rows] = found.kappa, found.doubt
    return Leak(kappa, doubt)


def _has_decay(rates: IntervalRates, hyper: HyperParameters, index: int | None) -> bool | None:
    if rates.known.any():
        return bool((rates.decay > 0.0).any())
    declared: ParamGroup | None = None if index is None else hyper.groups[index]
    if declared is None or declared.weight_decay is None:
        return None
    return declared.weight_decay > 0.0
