"""Exact unit gradients per tensor and stage: their distribution, h~ and the test of Lemma 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from smdlens.diagnosis.measure_group import GroupMeasurement
from smdlens.diagnosis.records import UNIT_GRADIENT_SCHEMA, Stage
from smdlens.diagnosis.unit_gradients import ExactGradients
from smdlens.symmetry.records import ScaleGroups
from smdlens.theory.epsilon_leak import KAPPA_RELATIVE_ERROR

Array = NDArray[np.float64]

_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
# What is allowed for the arithmetic of training: one percent of the cosine of a random direction,
# a few times what bfloat16 leaves.
_ARITHMETIC = 0.01
# Rounding and epsilon may hide this share of a random direction's cosine; beyond it, no verdict.
_BLIND = 0.3
_SIGMAS = 3.0
# The leak is worked out with the running variance, the gradient used the batch's.
_LEAK_ERROR = KAPPA_RELATIVE_ERROR


@dataclass(frozen=True, slots=True)
class RadialTest:
    """Lemma 1 held against single gradients: cosines are ratios of RMS values over the updates.

    Attributes:
        updates: How many gradients.
        cosine: RMS of <g, w> over RMS of |g| |w|.
        mean: Mean of <g, w> over the same.
        leaked: RMS of what the normalisation's epsilon explains, over the same.
        limit: Largest cosine that epsilon, its error, rounding and arithmetic account for.
        random: Cosine that a random direction would have, 1 / sqrt(elements).
        holds: Whether what epsilon does not explain is within the rest of the limit; None where
            that would hide a random direction.
        kappa_ratio: Mean <g, w> / |w|^2 over the weight decay; NaN without one that joins the
            gradient.
    """

    updates: int
    cosine: float
    mean: float
    leaked: float
    limit: float
    random: float
    holds: bool | None
    kappa_ratio: float


def radial_test(
    part: GroupMeasurement, exact: ExactGradients, row: int, which: NDArray[np.intp]
) -> RadialTest | None:
    """Lemma 1 for one tensor over some of the intervals; None where no <g, w> is known."""
    radial = exact.radial[row, which]
    own = which[np.isfinite(radial)]
    if len(own) == 0:
        return None
    squared = exact.squared[row, own]
    if not np.isfinite(squared).all():
        # From weights alone |g~| is not known under momentum; h~ is of its size in the mean.
        squared = exact.adjusted[row, own]
    size = float(np.sqrt(max(squared.mean(), 0.0)))
    if size == 0.0:
        return None
    radial = exact.radial[row, own]
    leaked = _rms(exact.leaked[row, own]) / size
    random = 1.0 / float(np.sqrt(part.tracks.numel[row]))
    blur = _rms(exact.blur[row, own]) / size
    allowed = _ARITHMETIC * random + _SIGMAS * blur + _LEAK_ERROR * leaked
    left = _rms(radial - exact.leaked[row, own]) / size
    holds = None if left <= allowed and allowed > _BLIND * random else left <= allowed
    kappa = float((radial / part.tracks.at["w2"][row, own]).mean())
    decay = float(np.nan_to_num(part.rates.mean_decay()[own]).mean())
    if part.law is not None and part.law.adaptive and part.law.decoupled:
        # The decay of AdamW is none of its gradient's length.
        decay = 0.0
    return RadialTest(
        updates=len(own),
        cosine=_rms(radial) / size,
        mean=float(radial.mean()) / size,
        leaked=leaked,
        limit=leaked + allowed,
        random=random,
        holds=holds,
        kappa_ratio=kappa / decay if decay > 0.0 else np.nan,
    )


def gradient_table(
    measured: Sequence[GroupMeasurement],
    gradients: Sequence[ExactGradients],
    stages: tuple[Stage, ...],
    owner: NDArray[np.int64],
    groups: ScaleGroups,
) -> pl.DataFrame:
    """One row per stage and listed tensor whose gradients are known, `UNIT_GRADIENT_SCHEMA`."""
    rows = []
    for part, exact in zip(measured, gradients, strict=True):
        is_known = exact.known
        for stage in stages:
            own = np.flatnonzero(owner == stage.index)
            for row, name in enumerate(part.tracks.tensors):
                known = own[is_known[row, own]]
                if len(known) and part.is_listed(name, groups):
                    rows.append(_row(part, exact, row, known, stage))
    return pl.DataFrame(rows, schema=UNIT_GRADIENT_SCHEMA, orient="row")


def _row(
    part: GroupMeasurement,
    exact: ExactGradients,
    row: int,
    known: NDArray[np.intp],
    stage: Stage,
) -> dict[str, object]:
    squared = exact.squared[row, known]
    squared = squared[np.isfinite(squared)]
    adjusted = exact.adjusted[row, known]
    adjusted = adjusted[np.isfinite(adjusted)]
    values = np.full(len(_LEVELS), np.nan)
    if len(squared):
        values = np.quantile(np.sqrt(squared), _LEVELS)
    mean = adjusted.mean() if len(adjusted) else np.nan
    test = radial_test(part, exact, row, known)
    return {
        "stage": stage.index,
        "tensor": part.tracks.tensors[row],
        "source": str(exact.source[row, known[-1]]),
        "updates": len(known),
        "rms": _number(np.sqrt(squared.mean()) if len(squared) else np.nan),
        **{f"p{round(100 * q):02d}": _number(v) for q, v in zip(_LEVELS, values, strict=True)},
        **{f"channel_{level}": _middle(part, row, known, level) for level in ("p05", "p50", "p95")},
        "effective_rms": _number(np.sqrt(mean) if mean >= 0.0 else np.nan),
        "effective_negative": float((adjusted < 0.0).mean()) if len(adjusted) else None,
        "cosine_rms": None if test is None else test.cosine,
        "cosine_mean": None if test is None else test.mean,
        "cosine_epsilon_rms": None if test is None else test.leaked,
        "cosine_limit": None if test is None else test.limit,
        "cosine_random": None if test is None else test.random,
        "orthogonal": None if test is None else test.holds,
        "radial_ratio": None if test is None else _number(test.kappa_ratio),
    }


def _middle(part: GroupMeasurement, row: int, known: NDArray[np.intp], level: str) -> float | None:
    """Median over updates of a quantile over channels; None where channels are not kept apart."""
    values = part.tracks.between[f"unit_gradient_{level}"][row, known]
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else None


def _rms(values: Array) -> float:
    return float(np.sqrt((values**2).mean()))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
