"""L, V and l of the paper's theorems for one tensor in one stage, from whatever shows them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.gradient_drift import Drift, drift_of
from smdlens.diagnosis.measure_group import GroupMeasurement
from smdlens.diagnosis.records import Stage
from smdlens.diagnosis.unit_gradients import ExactGradients
from smdlens.theory import theorems
from smdlens.theory.equilibrium import angular_update_sgd, norm_sgd

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

# Fewer draws of h~ make no variance.
LEAST_DRAWS = 8
# The buffer's energy forgets as a^2 per update: so many times its memory apart, draws are new.
_MEMORIES = 3.0
# A buffer longer than this many times decay's own share of it is made by gradients.
_PULL = 3.0


@dataclass(frozen=True)
class TheoremNumbers:
    """The theorems' quantities; NaN where the snapshots do not show them.

    Attributes:
        lr: Learning rate over the stage's end, times 1 - dampening.
        decay: Weight decay.
        momentum: a.
        constant: One rate and decay throughout the stage.
        mean: L over the stage's end.
        mean_source: "updates" (single gradients), "norms" or "".
        scatter: sqrt(V) / L.
        scatter_source: "updates", "buffers" or "".
        scatter_draws: How many draws it rests on.
        dominated: One draw makes more than half of V.
        lower: Smallest h~ over L.
        seen: How many h~ of the stage are known.
        below: How many of them miss assumption 4 (8).
        updates: Updates in the stage.
        drift: Of L, None where there are no two windows.
        norm2: Mean |w|^2 over the stage's end.
        error: Relative standard error of norm2 over its expected value, from L.
        vanishing: What is left of the stage's start.
        angle: RMS angle per update over the stage's end.
        single_angles: Angles of single updates there.
    """

    lr: float
    decay: float
    momentum: float
    constant: bool
    mean: float
    mean_source: str
    scatter: float
    scatter_source: str
    scatter_draws: int
    dominated: bool
    lower: float
    seen: int
    below: int
    updates: int
    drift: Drift | None
    norm2: float
    error: float
    vanishing: float
    angle: float
    single_angles: Array

    @property
    def theorem(self) -> int:
        """1 without momentum, 2 with."""
        return 1 if self.momentum == 0.0 else 2

    @property
    def expected_norm(self) -> float:
        """w* of Theorem 1 or 2."""
        return float(norm_sgd(self.lr, self.decay, self.mean, self.momentum))

    @property
    def expected_angle(self) -> float:
        """Delta* of Theorem 3, radians."""
        return float(angular_update_sgd(self.lr, self.decay, self.momentum))

    @property
    def lower_limit(self) -> float:
        """What l / L must exceed."""
        return float(theorems.lower_bound_limit(self.lr, self.decay, self.momentum))

    @property
    def angle_bound(self) -> float:
        """(V / (L l))^(1/3); NaN where V or l is not known."""
        if not np.isfinite(self.scatter + self.lower):
            return np.nan
        return float(theorems.angle_bound(self.scatter**2, 1.0, self.lower))


def theorem_numbers(
    part: GroupMeasurement,
    exact: ExactGradients,
    row: int,
    own: Indices,
    last: Indices,
    stage: Stage,
) -> TheoremNumbers | None:
    """Everything the audit of one tensor in one stage needs; None where rates are not known.

    Args:
        part: The tensor's group, under SGD without Nesterov, with coupled decay.
        exact: Its exact gradients.
        row: The tensor.
        own: Intervals of the stage.
        last: Those of its end.
        stage: The stage.
    """
    law, rates, tracks = part.law, part.rates, part.tracks
    if law is None or law.rule is None or len(last) == 0 or not rates.known[last].all():
        return None
    lengths = rates.lengths[last].astype(np.float64)
    lr = float(np.average(rates.mean_lr()[last], weights=lengths)) * law.rule.c
    decay = float(np.average(rates.mean_decay()[last], weights=lengths))
    if lr <= 0.0 or decay <= 0.0:
        return None
    draws = exact.adjusted[row, own]
    draws = draws[np.isfinite(draws)]
    mean, mean_source, error = _mean(part, exact, row, last)
    scatter, scatter_source, count, dominated = _scatter(part, draws, row, own)
    if mean_source == "updates" and np.isfinite(scatter):
        error = 0.5 * scatter / np.sqrt(np.isfinite(exact.adjusted[row, last]).sum())
    w2 = np.sqrt(tracks.at["w2"][row, last] * tracks.at["w2"][row, last + 1])
    limit = float(theorems.lower_bound_limit(lr, decay, law.momentum))
    angles = part.steps.last[row, last]
    adjacent = tracks.adjacent[last] & (part.steps.method[row, last] == "adjacent")
    angles = np.where(adjacent, part.steps.angle[row, last], angles)
    return TheoremNumbers(
        lr=lr,
        decay=decay,
        momentum=law.momentum,
        constant=_constant(part, own),
        mean=mean,
        mean_source=mean_source,
        scatter=scatter,
        scatter_source=scatter_source,
        scatter_draws=count,
        dominated=dominated,
        lower=float(draws.min() / mean) if len(draws) and mean > 0.0 else np.nan,
        seen=len(draws),
        below=int((draws <= limit * mean).sum()) if mean > 0.0 else 0,
        updates=stage.step_to - stage.step_from,
        drift=drift_of(part, exact, row, own, scatter),
        norm2=float(np.average(w2, weights=lengths)),
        error=error,
        vanishing=float(
            theorems.vanishing_factor(
                float(tracks.steps[last[0]] - stage.step_from), lr, decay, law.momentum
            )
        ),
        angle=float(np.sqrt(np.average(part.steps.turn2[row, last], weights=lengths))),
        single_angles=angles[np.isfinite(angles)],
    )


def _constant(part: GroupMeasurement, own: Indices) -> bool:
    rates = part.rates
    first = rates.first_lr()[own] * rates.mean_decay()[own]
    return bool(rates.constant[own].all() and np.ptp(first) <= 1e-9 * first.max())


def _mean(
    part: GroupMeasurement, exact: ExactGradients, row: int, last: Indices
) -> tuple[float, str, float]:
    """L with its source, and the relative error that the source gives the expected |w|^2."""
    draws = exact.adjusted[row, last]
    known = np.isfinite(draws)
    covered = part.rates.lengths[last][known].sum() / part.rates.lengths[last].sum()
    if known.sum() >= LEAST_DRAWS and covered >= 0.5:
        return float(draws[known].mean()), "updates", np.nan
    found = part.steps.unit_gradient2[row, last]
    good = np.isfinite(found)
    if not good.any():
        return np.nan, "", np.nan
    weights = part.rates.lengths[last][good].astype(np.float64)
    q, sigma = part.ratios.q[row, last][good], part.ratios.sigma[row, last][good]
    with np.errstate(divide="ignore", invalid="ignore"):
        error = 0.5 * float(np.average(sigma, weights=weights) / np.average(q, weights=weights))
    return float(np.average(found[good], weights=weights)), "norms", error


def _scatter(
    part: GroupMeasurement, draws: Array, row: int, own: Indices
) -> tuple[float, str, int, bool]:
    """sqrt(V) / L with its source, the number of draws, and whether one of them makes it."""
    if len(draws) >= LEAST_DRAWS and draws.mean() > 0.0:
        # Neighbours share their L: half their squared difference is V, whatever L does.
        squares = np.diff(draws) ** 2 / 2.0
        scatter = float(np.sqrt(squares.mean()) / draws.mean())
        # One far draw is in two differences.
        return scatter, "updates", len(draws), bool(2.0 * squares.max() > squares.sum())
    energies = _energies(part, row, own)
    if len(energies) < LEAST_DRAWS or part.law is None:
        return np.nan, "", 0, False
    squares = (energies / energies.mean() - 1.0) ** 2
    relative = float(squares.sum() / (len(energies) - 1))
    scatter = float(theorems.scatter_from_energies(relative, part.law.momentum))
    return scatter, "buffers", len(energies), bool(2.0 * squares.max() > squares.sum())


def _energies(part: GroupMeasurement, row: int, own: Indices) -> Array:
    """|v|^2 |w|^2 at the ends of the intervals over their mean h~."""
    law, tracks = part.law, part.tracks
    if law is None or law.momentum == 0.0:
        return np.zeros(0)
    v2, w2 = tracks.at["v2"][row, own + 1], tracks.at["w2"][row, own + 1]
    pull = part.rates.mean_decay()[own] / (1.0 - law.momentum)
    memory = _MEMORIES / (1.0 - law.momentum**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        energy = v2 * w2 / part.steps.unit_gradient2[row, own]
        usable = (tracks.lengths[own] >= memory) & (v2 > _PULL * pull**2 * w2)
    usable &= np.isfinite(energy) & ~part.steps.below[row, own]
    return np.asarray(energy[usable])
