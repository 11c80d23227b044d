"""How fast the mean unit gradient changes within a stage: assumptions 3 and 7 of the paper."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.measure_group import GroupMeasurement
from smdlens.diagnosis.unit_gradients import ExactGradients
from smdlens.theory import theorems

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

# Windows over which single gradients are averaged, as in [Wan2021, Fig 3].
_WINDOW = 200
# Windows are many, and one false alarm among them is one too many.
_SIGMAS = 4.0
# Share of a norm's scatter that its value at two snapshots leaves open at most.
_MOST_OF_SCATTER = 0.8


@dataclass(frozen=True, slots=True)
class Drift:
    """How fast L changes: the steepest pair of neighbouring windows, relative to L per update.

    Attributes:
        steepest: Largest |dL| / L per update.
        surely: Largest of those less four standard errors.
        at_most: Largest of those plus four standard errors.
    """

    steepest: float
    surely: float
    at_most: float


def drift_of(
    part: GroupMeasurement, exact: ExactGradients, row: int, own: Indices, scatter: float
) -> Drift | None:
    """Drift of L between neighbouring windows; None without two windows or without the scatter.

    Args:
        part: The tensor's group.
        exact: Its exact gradients.
        row: The tensor.
        own: Intervals of the stage.
        scatter: sqrt(V) / L.
    """
    windows = _windows(part, exact, row, own, scatter)
    if windows is None or len(windows) < 2:
        return None
    middle, mean, error = windows.T
    apart = np.diff(middle)
    level = (mean[1:] + mean[:-1]) / 2.0
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.abs(np.diff(mean)) / level / apart
        blur = _SIGMAS * np.hypot(error[1:], error[:-1]) / level / apart
    known = np.isfinite(slope + blur)
    if not known.any():
        return None
    slope, blur = slope[known], blur[known]
    return Drift(float(slope.max()), float((slope - blur).max()), float((slope + blur).max()))


def _windows(
    part: GroupMeasurement, exact: ExactGradients, row: int, own: Indices, scatter: float
) -> Array | None:
    """Middle, mean of h~ and its standard error of windows within the stage, [windows, 3]."""
    steps, lengths = part.tracks.steps, part.rates.lengths
    if not np.isfinite(scatter):
        return None
    single = own[np.isfinite(exact.adjusted[row, own])]
    if len(single) and lengths[own].max() == 1:
        parts = np.array_split(single, max(2, len(single) // _WINDOW))
        return np.array(
            [
                (
                    steps[which].mean(),
                    exact.adjusted[row, which].mean(),
                    scatter * abs(exact.adjusted[row, which].mean()) / np.sqrt(len(which)),
                )
                for which in parts
                if len(which)
            ]
        )
    which = own[np.isfinite(part.steps.unit_gradient2[row, own]) & (lengths[own] > 1)]
    mean = part.steps.unit_gradient2[row, which]
    with np.errstate(divide="ignore", invalid="ignore"):
        method = part.ratios.sigma[row, which] / part.ratios.q[row, which]
        drawn = np.hypot(scatter / np.sqrt(lengths[which]), method)
        error = mean * np.hypot(drawn, _wander(part, which, scatter))
    return np.stack([(steps[which] + steps[which + 1]) / 2.0, mean, error], axis=1)


def _wander(part: GroupMeasurement, which: Indices, scatter: float) -> Array:
    """Relative error of L because norms wander unseen between the snapshots (docs/theory.md §14).

    L goes with the square of the mean |w|^2 inside, which the ends leave open: by a random walk
    between fixed ends while that is short, by most of the norm's own scatter in the end.
    """
    a = 0.0 if part.law is None else part.law.momentum
    lr, decay = part.rates.mean_lr()[which], part.rates.mean_decay()[which]
    pulls = lr * decay / (1.0 - a) * part.rates.lengths[which]
    share = np.minimum(np.sqrt(2.0 * pulls / 3.0), _MOST_OF_SCATTER)
    return np.asarray(2.0 * theorems.norm2_scatter(scatter, lr, decay, a) * share)
