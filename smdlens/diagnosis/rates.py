"""The recorded rates of one parameter group, laid out per interval between snapshots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.update_rule import Law
from smdlens.hyper.optimizer import SAVED
from smdlens.hyper.records import HyperParameters
from smdlens.theory.angles import turn2_from_angle
from smdlens.theory.equilibrium import angular_update_lion
from smdlens.theory.moments import steady_state

Array = NDArray[np.float64]
# A smooth schedule has many rates in one interval; the mean over this many of them is exact enough.
_SAMPLES = 257
# A spline through the rates at the snapshots misses the mean rate of an interval by about this
# share of its change; measured at the ends of cosines, where it is worst.
_SPLINE = 0.0025


@dataclass(frozen=True)
class IntervalRates:
    """Learning rate and weight decay of every update of every interval.

    Attributes:
        lr: float64 [n_max, I], zero past an interval's end.
        decay: float64 [n_max, I], likewise.
        count: Updates per interval, int64 [I]; 0 where a rate or decay is unknown.
        lengths: Updates per interval, known or not.
        curve_error: Relative error of the mean rate where a smooth schedule was seen at its
            snapshots only; 0 where every rate was recorded.
        place_error: Half the width of the bounds of a cut inside, as a share of the interval; 0
            where every rate is certain.
    """

    lr: Array
    decay: Array
    count: NDArray[np.int64]
    lengths: NDArray[np.int64]
    place_error: Array
    curve_error: Array

    @property
    def known(self) -> NDArray[np.bool_]:
        """Intervals whose every rate is known."""
        return self.count > 0

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Intervals with one rate and one decay throughout."""
        within = np.arange(len(self.lr))[:, None] < self.count
        same = (~within | ((self.lr == self.lr[0]) & (self.decay == self.decay[0]))).all(axis=0)
        return np.asarray(same & self.known)

    @property
    def steady_decay(self) -> NDArray[np.bool_]:
        """Intervals with one weight decay throughout."""
        within = np.arange(len(self.lr))[:, None] < self.count
        return np.asarray((~within | (self.decay == self.decay[0])).all(axis=0) & self.known)

    def mean_lr(self) -> Array:
        """Mean learning rate per interval, float64 [I]; NaN where unknown."""
        return np.where(self.known, self.lr.sum(axis=0) / np.maximum(self.count, 1), np.nan)

    def mean_decay(self) -> Array:
        """Mean weight decay per interval, float64 [I]; NaN where unknown."""
        return np.where(self.known, self.decay.sum(axis=0) / np.maximum(self.count, 1), np.nan)

    def first_lr(self) -> Array:
        """Rate of the first update of each interval."""
        return np.where(self.known, self.lr[0], np.nan)

    def last_lr(self) -> Array:
        """Rate of the last update of each interval: the one that made the snapshot."""
        last = np.maximum(self.count - 1, 0)
        return np.where(self.known, self.lr[last, np.arange(len(last))], np.nan)


def interval_rates(hyper: HyperParameters, group: int, steps: NDArray[np.int64]) -> IntervalRates:
    """Rates of a group between neighbouring snapshots."""
    lengths = np.diff(steps)
    longest = int(lengths.max()) if len(lengths) else 0
    lr, decay = np.zeros((longest, len(lengths))), np.zeros((longest, len(lengths)))
    count = np.zeros(len(lengths), dtype=np.int64)
    for i, n in enumerate(lengths):
        if _cut_is_lost(hyper, int(steps[i]), int(steps[i + 1])):
            continue
        rate, wd = hyper.rates(group, int(steps[i]), int(steps[i + 1]))
        if np.isfinite(rate).all() and np.isfinite(wd).all():
            lr[:n, i], decay[:n, i], count[i] = rate, wd, n
    curve = _curve_error(hyper, lr, count)
    return IntervalRates(lr, decay, count, lengths, _place_error(hyper, steps), curve)


def _curve_error(hyper: HyperParameters, lr: Array, count: NDArray[np.int64]) -> Array:
    """See `IntervalRates.curve_error`."""
    error = np.zeros(len(count))
    if not any(segment.source.startswith(SAVED) for segment in hyper.schedule):
        return error
    for i in np.flatnonzero(count > 1):
        own = lr[: count[i], i]
        change = np.diff(own)
        # A jump lies at a snapshot or is placed by the weights; what bends was drawn by a spline.
        if own.mean() > 0.0 and np.count_nonzero(change) > 2:
            error[i] = _SPLINE * np.abs(own[-1] - own[0]) / own.mean()
    return error


def _place_error(hyper: HyperParameters, steps: NDArray[np.int64]) -> Array:
    """See `IntervalRates.place_error`."""
    error = np.zeros(len(steps) - 1)
    for cut in hyper.cuts:
        at = int(np.searchsorted(steps, cut.step, side="right")) - 1
        if cut.step_low < cut.step_high and 0 <= at < len(error):
            error[at] = (cut.step_high - cut.step_low) / (2.0 * (steps[at + 1] - steps[at]))
    return error


def _cut_is_lost(hyper: HyperParameters, start: int, stop: int) -> bool:
    """True where a cut lies in the interval and nothing says where: most of it may be either."""
    return any(
        cut.step_high - cut.step_low > 0.5 * (stop - start)
        and cut.step_low < stop
        and cut.step_high > start
        for cut in hyper.cuts
    )


def expected_turn2(law: Law, rates: IntervalRates) -> Array:
    """Mean equilibrium 2 (1 - cos Delta*) over each interval's own rates, float64 [I].

    NaN where a rate is unknown, where there is no decay, or where the equilibrium depends on the
    gradient (Adam with L2 decay: see `one_step`).
    """
    expected = np.full(len(rates.count), np.nan)
    if law.is_l2_adam:
        return expected
    for i in np.flatnonzero(rates.known):
        n = int(rates.count[i])
        pairs = np.stack([rates.lr[:n, i], rates.decay[:n, i]], axis=1)
        unique, weight = np.unique(pairs, axis=0, return_counts=True)
        if len(unique) > _SAMPLES:
            at = np.linspace(0, n - 1, _SAMPLES).round().astype(int)
            unique, weight = pairs[at], np.ones(_SAMPLES, dtype=np.int64)
        if not (unique[:, 1] > 0.0).all():
            continue
        expected[i] = np.average(equilibrium_turn2(law, unique[:, 0], unique[:, 1]), weights=weight)
    return expected


def equilibrium_turn2(law: Law, lr: Array, decay: Array) -> Array:
    """2 (1 - cos Delta*) at constant rates, same shape; 0 at a rate of 0."""
    rule = law.white_rule
    if rule is None:
        beta1, beta2 = law.betas or (0.9, 0.99)
        return turn2_from_angle(angular_update_lion(lr, decay, beta1, beta2))
    safe = np.where(lr > 0.0, lr, 1.0)
    coupled = np.zeros_like(decay) if law.decoupled else decay
    decoupled = decay if law.decoupled else np.zeros_like(decay)
    return np.where(lr > 0.0, steady_state(rule, safe, coupled, decoupled).turn2, 0.0)
