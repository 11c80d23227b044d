"""Consecutive snapshots held against the step that their optimizer state holds.

Between raw weights one update apart lies exactly that step: lr v of heavy ball, lr u of Adam beside
its decay (docs/theory.md §14). An averaged (EMA, SWA) copy moves by a fraction of it, elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.buffer_check import Contradiction, Mismatch
from smdlens.diagnosis.measure_group import GroupMeasurement
from smdlens.symmetry.records import ScaleGroups
from smdlens.theory.exact_gradient import step_sums

Array = NDArray[np.float64]

# Two steps could be a coincidence of a rate that changed; so many are none.
_LEAST = 2
# A copy averaged over many times the memory of the momentum moves by less than this share of it.
_SHARE = 0.6
# A step along the recorded one has its product with the weights too, to this share.
_ALONG = 0.05
_WORDS = "from one update to the next they move by a fraction of the saved step, and not along it"
# Angles under this many storage floors say nothing of the step.
_FLOORS = 10.0


def averaged_by_step(
    measured: Sequence[GroupMeasurement], groups: ScaleGroups
) -> tuple[Contradiction, ...]:
    """All tensors on a sphere, if most of those that can be looked at are averaged; else none."""
    looked_at = averaged = 0
    for part in measured:
        short = _off_the_step(part)
        if short is None:
            continue
        for row, name in enumerate(part.tracks.tensors):
            known = np.isfinite(short[row])
            if groups.tensors[name].on_sphere and known.sum() >= _LEAST:
                looked_at += 1
                averaged += bool(np.median(short[row][known]) == 1.0)
    if looked_at < 2 or averaged <= looked_at / 2:
        return ()
    return tuple(
        Contradiction(name, Mismatch.AVERAGED, 0.0, None, _WORDS)
        for part in measured
        for name in part.tracks.tensors
        if groups.tensors[name].on_sphere
    )


def _off_the_step(part: GroupMeasurement) -> Array | None:
    """1 where an interval of one update is too short and off the step, 0 where not, NaN unknown.

    A wrong learning rate makes every step short or long, but along the recorded one: its length
    and its product with the weights are off by the same factor.
    """
    law, tracks, rates = part.law, part.tracks, part.rates
    if law is None or law.rule is None or law.rule.q != 0.0 or law.is_l2_adam:
        return None
    if not tracks.adjacent.any() or (law.momentum == 0.0 and not law.adaptive):
        return None
    lean, energy = ("wu", "u2") if law.adaptive else ("wv", "v2")
    lr, decay = rates.first_lr(), rates.mean_decay()
    keep = 1.0 - lr * decay if law.decoupled else 1.0
    w2 = tracks.at["w2"]
    moved = step_sums(w2[:, :-1], w2[:, 1:], tracks.between["chord2"], lr, keep)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.sqrt(moved.v2 / tracks.at[energy][:, 1:])
        along = moved.after / (share * tracks.at[lean][:, 1:])
        clear = tracks.adjacent & (part.steps.angle > _FLOORS * part.steps.floor)
        off = (share < _SHARE) & (np.abs(along - 1.0) > _ALONG)
    return np.where(clear & np.isfinite(share + along), off.astype(np.float64), np.nan)
