"""Where a cut really was, when the files only say that the rate changed between two snapshots.

Moved by the new rate alone, a tensor in equilibrium shrinks slowly; moved by the old one it stands
still. Read under the wrong rate the norm balance asks for a unit gradient off by the factor of the
cut, for every tensor at once. So the place of the cut is where the unit gradient that the interval
needs agrees with that of the interval after it (docs/theory.md §7).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.one_step import one_step
from smdlens.diagnosis.rates import interval_rates
from smdlens.diagnosis.tracks import Tracks
from smdlens.diagnosis.update_rule import law_of
from smdlens.hyper.records import HyperParameters, RateCut
from smdlens.hyper.resolve import with_cut_placed
from smdlens.symmetry.records import ScaleGroups
from smdlens.vocabulary import INVARIANT_ROLES

Array = NDArray[np.float64]

# Candidate places within the interval, as shares of it.
_GRID = np.linspace(0.0, 1.0, 21)
# A cut that the weights put this near to a snapshot (share of the interval) was made there:
# trainers change the rate where they save far more often than just beside it.
_SNAP = 0.1
# Unit gradients move by up to this factor within a few intervals on real networks.
_DRIFT = 2.0


def locate_cuts(tracks: Tracks, hyper: HyperParameters, groups: ScaleGroups) -> HyperParameters:
    """Places every uncertain cut as well as the weights can tell.

    A cut the weights put at a snapshot becomes certain (step_low == step_high); one inside keeps
    bounds around its most plausible step; one they say nothing about keeps its bounds.

    Args:
        tracks: All measured tensors.
        hyper: Hyper-parameters whose `cuts` may be uncertain.
        groups: Scale groups; only invariant tensors testify.
    """
    for cut in hyper.cuts:
        if cut.step_low < cut.step_high:
            hyper = _locate(tracks, hyper, groups, cut)
    return hyper


def _locate(
    tracks: Tracks, hyper: HyperParameters, groups: ScaleGroups, cut: RateCut
) -> HyperParameters:
    at = int(np.searchsorted(tracks.steps, cut.step_low))
    if at + 1 >= len(tracks.steps) or tracks.steps[at] != cut.step_low:
        return hyper
    witnesses = _witnesses(tracks, hyper, groups)
    if len(witnesses) == 0 or at + 2 >= len(tracks.steps):
        return hyper
    span = cut.step_high - cut.step_low
    places = np.unique(np.round(cut.step_low + _GRID * span).astype(np.int64))
    misfit = np.array(
        [
            _misfit(tracks, with_cut_placed(hyper, cut, int(p), int(p), int(p)), witnesses, at)
            for p in places
        ]
    )
    if not np.isfinite(misfit).any():
        return hyper
    lr, decay = hyper.rates(
        _group_index(hyper, tracks.tensors[witnesses[0]]), cut.step - 1, cut.step + 1
    )
    change = abs(float(np.log(lr[0] * decay[0] / (lr[1] * decay[1]))))
    best = int(np.nanargmin(np.abs(misfit)))
    # Undecided where every place is as good as any other, or none is good.
    plausible = np.abs(misfit) < min(np.log(_DRIFT), change / 2.0)
    if not plausible.any() or plausible.all():
        return hyper
    place = int(places[best])
    low, high = int(places[plausible].min()), int(places[plausible].max())
    for end in (cut.step_low, cut.step_high):
        if plausible[0 if end == cut.step_low else -1] and abs(place - end) <= _SNAP * span:
            return with_cut_placed(hyper, cut, end, end, end)
    return with_cut_placed(hyper, cut, place, low, high)


def _group_index(hyper: HyperParameters, tensor: str) -> int:
    group = hyper.group_of(tensor)
    assert group is not None
    return hyper.groups.index(group)


def _witnesses(tracks: Tracks, hyper: HyperParameters, groups: ScaleGroups) -> NDArray[np.intp]:
    """Rows of the invariant tensors of the decayed group with most of them."""
    rows: dict[int, list[int]] = {}
    for row, name in enumerate(tracks.tensors):
        group = hyper.group_of(name)
        if group is None or groups.tensors[name].role not in INVARIANT_ROLES:
            continue
        if (group.weight_decay or 0.0) > 0.0 and law_of(hyper.optimizer, group) is not None:
            rows.setdefault(hyper.groups.index(group), []).append(row)
    return np.array(max(rows.values(), key=len, default=[]), dtype=np.intp)


def _misfit(tracks: Tracks, hyper: HyperParameters, witnesses: NDArray[np.intp], at: int) -> float:
    """Median over witnesses of ln(unit gradient^2 of the interval / of the one after it)."""
    window = slice(max(at - 1, 0), at + 3)
    own = tracks.take(witnesses).window(window)
    group = _group_index(hyper, own.tensors[0])
    law = law_of(hyper.optimizer, hyper.groups[group])
    rates = interval_rates(hyper, group, own.steps)
    if law is None or law.adaptive:
        return np.nan
    steps = one_step(own, law, rates, np.zeros((len(witnesses), len(own.steps) - 1)))
    here = at - window.start
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(steps.unit_gradient2[:, here] / steps.unit_gradient2[:, here + 1])
    known = ratio[np.isfinite(ratio) & ~steps.below[:, here] & ~steps.below[:, here + 1]]
    return float(np.median(known)) if len(known) else np.nan
