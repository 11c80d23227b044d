"""How the unit gradient changed at each cut: the new equilibrium is that of the new gradient."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.measure_group import GroupMeasurement
from smdlens.diagnosis.records import Stage

Array = NDArray[np.float64]

# Part of the stage before that speaks of its end.
_LAST = 1.0 / 3.0


def gradient_gains(
    part: GroupMeasurement, stages: tuple[Stage, ...], owner: NDArray[np.int64]
) -> dict[int, Array]:
    """Stage -> mean squared unit gradient in it over that of the end of the stage before, [T].

    Medians over intervals, of what drives the norm (docs/theory.md §7): h~ for momentum, the
    normalised step for AdamW, whose equilibrium does not depend on the gradient's size. NaN where
    either side is unknown.
    """
    gains: dict[int, Array] = {}
    drive = np.where((part.steps.drive > 0.0) & ~part.steps.below, part.steps.drive, np.nan)
    for before, stage in itertools.pairwise(stages):
        earlier = np.flatnonzero(owner == before.index)
        own = np.flatnonzero(owner == stage.index)
        if len(earlier) and len(own):
            last = earlier[-max(1, round(_LAST * len(earlier))) :]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # tensors nothing is known of
                gains[stage.index] = np.nanmedian(drive[:, own], axis=1) / np.nanmedian(
                    drive[:, last], axis=1
                )
    return gains
