"""The gradient itself, wherever neighbouring snapshots are one update apart (docs/theory.md §14).

Momentum buffers at both ends give |g|, <g, w> and <g, v'>; weights of SGD without Nesterov give
<g, w> and h~, without momentum |g| too; Adam's first moments at both ends give |g| and <g, w>.
Nothing here is an estimate over an interval: those stay with the intervals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.leak import leak_under_adam
from smdlens.diagnosis.measure_group import GroupMeasurement, leak_of_group
from smdlens.diagnosis.tracks import Tracks
from smdlens.hyper.records import HyperParameters
from smdlens.snapshots.records import SnapshotSeries
from smdlens.symmetry.records import ScaleGroups
from smdlens.theory import exact_gradient as exact
from smdlens.vocabulary import Slot

Array = NDArray[np.float64]

# Relative rounding of one number, RMS: ulp / sqrt(12) over a log-uniform mantissa.
_ROUNDING: Mapping[str, float] = {
    "float64": 4.7e-17,
    "float32": 2.5e-8,
    "float16": 2.1e-4,
    "bfloat16": 1.7e-3,
}
# A gradient blurred by more than this share of itself is not called exact.
_BLUR = 0.1


class GradientSource(StrEnum):
    """Where a gradient comes from."""

    BUFFERS = "buffers"
    WEIGHTS = "weights"
    FIRST_MOMENTS = "first_moments"


@dataclass(frozen=True)
class ExactGradients:
    """Gradients of single updates; arrays [T, I], NaN where the snapshots do not give them.

    Attributes:
        source: `GradientSource` values, "" where nothing is known.
        squared: |g~|^2 = |g|^2 |w|^2.
        adjusted: h~ = (|g|^2 + 2 a <v', g>) |w|^2.
        radial: <g, w> = <g~, w / |w|>.
        leaked: The part of `radial` that the normalisation's epsilon explains; 0 where unknown.
        blur: Standard error of `radial` from rounding.
    """

    source: NDArray[np.str_]
    squared: Array
    adjusted: Array
    radial: Array
    leaked: Array
    blur: Array

    @classmethod
    def none(cls, shape: tuple[int, ...]) -> ExactGradients:
        """Nothing known yet."""
        return cls(
            source=np.full(shape, "", dtype="<U16"),
            squared=np.full(shape, np.nan),
            adjusted=np.full(shape, np.nan),
            radial=np.full(shape, np.nan),
            leaked=np.zeros(shape),
            blur=np.full(shape, np.nan),
        )

    @property
    def known(self) -> NDArray[np.bool_]:
        """Updates of which anything is known."""
        return np.asarray(self.source != "")


def exact_gradients(
    part: GroupMeasurement,
    series: SnapshotSeries,
    hyper: HyperParameters,
    groups: ScaleGroups,
) -> ExactGradients:
    """Gradients of the updates between consecutive snapshots of one parameter group."""
    tracks, law = part.tracks, part.law
    found = ExactGradients.none(tracks.between["dot"].shape)
    if law is None or law.rule is None or not tracks.adjacent.any():
        return found
    if law.adaptive:
        _from_first_moments(found, part, series)
        found.leaked[:] = np.where(found.known, leak_under_adam(tracks, hyper, groups), 0.0)
        return found
    if law.rule.q == 0.0:
        _from_weights(found, part)
    _from_buffers(found, part, series)
    kappa = leak_of_group(tracks, hyper, groups, law, part.rates, raw=True).kappa
    middle = np.sqrt(tracks.at["w2"][:, :-1] * tracks.at["w2"][:, 1:])
    found.leaked[:] = np.where(found.known, kappa * middle, 0.0)
    return found


def _from_buffers(found: ExactGradients, part: GroupMeasurement, series: SnapshotSeries) -> None:
    tracks, law, rates = part.tracks, part.law, part.rates
    assert law is not None and law.rule is not None
    if law.momentum == 0.0:
        return
    w2, v2 = tracks.at["w2"], tracks.at["v2"]
    grad2, radial = tracks.between["grad2"], tracks.between["grad_w"]
    error = _rounding(tracks, series, Slot.MOMENTUM)
    decay = np.zeros(len(rates.count)) if law.decoupled else np.nan_to_num(rates.mean_decay())
    # Once in the file, once in the trainer's own arithmetic.
    noise2 = 2.0 * (
        error[:, 1:] ** 2 * v2[:, 1:] + law.momentum**2 * error[:, :-1] ** 2 * v2[:, :-1]
    )
    noise2 = noise2 / law.rule.c**2 + decay**2 * tracks.at["round2"][:, :-1]
    with np.errstate(invalid="ignore"):
        clear = tracks.adjacent & np.isfinite(grad2) & (noise2 < _BLUR**2 * grad2)
    values = {
        "squared": grad2 * w2[:, :-1],
        "adjusted": exact.adjusted_gradient2(
            grad2, tracks.between["grad_v"], w2[:, :-1], law.momentum, law.rule.c
        ),
        "radial": radial,
        "blur": np.sqrt(
            (noise2 * w2[:, :-1] + grad2 * tracks.at["round2"][:, :-1]) / tracks.numel[:, None]
        ),
    }
    _put(found, clear, GradientSource.BUFFERS, values)


def _from_weights(found: ExactGradients, part: GroupMeasurement) -> None:
    """SGD whose step is the buffer: two snapshots without momentum, three with it."""
    tracks, law, rates = part.tracks, part.law, part.rates
    assert law is not None and law.rule is not None
    w2, round2, lr = tracks.at["w2"], tracks.at["round2"], rates.first_lr()
    a, gain = law.momentum, law.rule.c
    decay = rates.mean_decay()
    coupled, keep = (np.zeros_like(decay), 1.0 - lr * decay) if law.decoupled else (decay, 1.0)
    A, B = w2[:, :-1], w2[:, 1:]
    sums = exact.step_sums(A, B, tracks.between["chord2"], lr, keep)
    step_noise2 = (round2[:, :-1] + round2[:, 1:]) / lr**2
    before2, after, before_noise2 = (
        np.zeros_like(A) if a == 0.0 else _previous(x, tracks)
        for x in (sums.v2, sums.after, step_noise2)
    )
    radial = exact.radial_product(sums.before, after, A, coupled, a, gain)
    adjusted = exact.adjusted_from_steps(sums.v2, before2, after, radial, A, coupled, a, gain)
    noise2 = (step_noise2 + a**2 * before_noise2) / gain**2
    # Without momentum that is |g~|^2; with it at least of its size.
    size2 = np.abs(adjusted) if a == 0.0 else sums.v2 * (1.0 - a * a) / gain**2 * A
    with np.errstate(invalid="ignore"):
        clear = tracks.adjacent & np.isfinite(adjusted) & (noise2 * A < _BLUR**2 * size2)
    values = {
        "adjusted": adjusted,
        "radial": radial,
        "blur": np.sqrt(noise2 * A / tracks.numel[:, None]),
    }
    if a == 0.0:
        values["squared"] = adjusted
    _put(found, clear, GradientSource.WEIGHTS, values)


def _previous(values: Array, tracks: Tracks) -> Array:
    """The same of the update before, NaN where that is not between two snapshots."""
    before = np.concatenate([np.full((len(values), 1), np.nan), values[:, :-1]], axis=1)
    single = np.concatenate([[False], tracks.adjacent[:-1]])
    return np.where(single, before, np.nan)


def _from_first_moments(
    found: ExactGradients, part: GroupMeasurement, series: SnapshotSeries
) -> None:
    """Adam: g = (m_t - beta1 m_(t-1)) / (1 - beta1), what of it is decay taken off."""
    tracks, law = part.tracks, part.law
    assert law is not None
    w2, round2 = tracks.at["w2"][:, :-1], tracks.at["round2"][:, :-1]
    grad2, beta1 = tracks.between["grad2"], law.momentum
    error = _rounding(tracks, series, Slot.FIRST_MOMENT)
    # |m|^2 is a fraction of the sum of vhat, which makes this an upper bound.
    size2 = tracks.at["vhat_sum"]
    # Once in the file, once in the trainer's own arithmetic.
    noise2 = 2.0 * (
        error[:, 1:] ** 2 * size2[:, 1:] + beta1**2 * error[:, :-1] ** 2 * size2[:, :-1]
    )
    noise2 = noise2 / (1.0 - beta1) ** 2
    with np.errstate(invalid="ignore"):
        clear = tracks.adjacent & (noise2 < _BLUR**2 * grad2)
    values = {
        "squared": grad2 * w2,
        "radial": tracks.between["grad_w"],
        "blur": np.sqrt((noise2 * w2 + grad2 * round2) / tracks.numel[:, None]),
    }
    _put(found, clear, GradientSource.FIRST_MOMENTS, values)


def _put(
    found: ExactGradients,
    where: NDArray[np.bool_],
    source: GradientSource,
    values: Mapping[str, Array],
) -> None:
    found.source[where] = source.value
    for name, value in values.items():
        getattr(found, name)[where] = value[where]


def _rounding(tracks: Tracks, series: SnapshotSeries, slot: Slot) -> Array:
    """Relative rounding of a buffer's numbers, [T, S]; infinite where it is not saved."""
    table = np.full((len(tracks.tensors), len(series.snapshots)), np.inf)
    for s, snapshot in enumerate(series.snapshots):
        slots = {} if snapshot.optimizer is None else snapshot.optimizer.slots
        for row, name in enumerate(tracks.tensors):
            ref = slots.get(name, {}).get(slot)
            table[row, s] = np.inf if ref is None else _ROUNDING.get(ref.dtype, np.inf)
    return table
