"""A clock in the weights: what gets no gradient decays at a rate that only the schedule sets.

The sum over classes of a softmax classifier's rows, and a bias in front of batch norm, shrink as
x1^n (docs/theory.md §3). Between two snapshots that hold a cut they say how many updates ran at
either rate.
"""

from __future__ import annotations

import numpy as np

from smdlens.diagnosis.tracks import Tracks
from smdlens.diagnosis.update_rule import law_of
from smdlens.hyper.records import HyperParameters, RateCut
from smdlens.symmetry.records import ScaleGroups
from smdlens.theory.decay_root import decay_log_rate

# Below this share of the tensor's norm a clock is rounding noise (fp32).
_ALIVE = 1e-5
# A clock is believed when it runs at the recorded rate before the cut to this accuracy.
_TRUE = 0.01
# The buffer lags behind the clock by 1 / (1 - a) updates; the step itself changes with the rate at
# once, so that no more than this part of the lag blurs the place of the change.
_BLUR = 0.5
# A place blurred by more than this share of the interval is none.
_VAGUE = 0.25


def place_by_clock(
    tracks: Tracks, hyper: HyperParameters, groups: ScaleGroups, cut: RateCut
) -> tuple[int, int, int] | None:
    """Step of an uncertain cut and its bounds from the clocks that still tick, or None.

    Args:
        tracks: All measured tensors.
        hyper: Hyper-parameters; the rates on both sides of the cut are known, its place is not.
        groups: Scale groups, which name the clocks.
        cut: Known to lie between two neighbouring snapshots.
    """
    at = int(np.searchsorted(tracks.steps, cut.step_low))
    if at < 1 or at + 1 >= len(tracks.steps) or tracks.steps[at + 1] != cut.step_high:
        return None
    places = [
        place
        for row, name in enumerate(tracks.tensors)
        if groups.tensors[name].clock
        and (place := _updates_at_old_rate(tracks, hyper, row, name, at, cut)) is not None
    ]
    if not places:
        return None
    momentum = hyper.optimizer.momentum or 0.0
    blurred = min(rounding for _, rounding in places)
    where = [place for place, rounding in places if rounding <= 2.0 * blurred]
    if blurred > _VAGUE * (cut.step_high - cut.step_low):
        return None
    error = max(1, round(_BLUR / (1.0 - momentum)), round(float(np.ptp(where)) / 2.0 + blurred))
    step = cut.step_low + round(float(np.median(where)))
    for end in (cut.step_low, cut.step_high):
        if abs(step - end) <= error:
            return end, end, end
    return step, max(step - error, cut.step_low), min(step + error, cut.step_high)


def _updates_at_old_rate(
    tracks: Tracks, hyper: HyperParameters, row: int, name: str, at: int, cut: RateCut
) -> tuple[float, float] | None:
    """Updates of the interval that ran at the old rate by one clock, with what rounding blurs.

    None if it is no clock.
    """
    group = hyper.group_of(name)
    law = None if group is None else law_of(hyper.optimizer, group)
    if group is None or law is None or law.adaptive or law.decoupled:
        return None
    clock2, w2 = tracks.at["clock2"][row], tracks.at["w2"][row]
    if not (clock2[at - 1 : at + 2] > _ALIVE**2 * w2[at - 1 : at + 2]).all():
        return None
    lr, decay = hyper.rates(hyper.groups.index(group), cut.step - 1, cut.step + 1)
    if not (np.isfinite(lr + decay).all() and (decay > 0.0).all()):
        return None
    nesterov = law.family == "nesterov"
    old, new = decay_log_rate(lr * decay, law.momentum, nesterov)
    fall_before, fall = -np.diff(np.log(clock2[at - 1 : at + 2])) / 2.0
    n_before, n = tracks.lengths[at - 1 : at + 1]
    if abs(fall_before / (old * n_before) - 1.0) > _TRUE:
        return None
    share = (fall / n - new) / (old - new)
    blur = _BLUR / ((1.0 - law.momentum) * n)
    # The sums over classes are rounded as their terms are, in all by no more than the tensor.
    ends = tracks.at["round2"][row, at : at + 2] / clock2[at : at + 2]
    rounding = float(np.sqrt(ends.sum()) / abs(old - new))
    blur += rounding / n
    if not -blur <= share <= 1.0 + blur:
        return None
    return float(np.clip(share, 0.0, 1.0) * n), rounding
