"""Exact unit gradients and the theorems' numbers as rows of text, one per tensor."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import polars as pl

from smdlens.report import numbers
from smdlens.vocabulary import Outcome

_SOURCES = {
    "buffers": "momentum buffers",
    "weights": "weights",
    "first_moments": "first moments",
}


@dataclass(frozen=True, slots=True)
class GradientRow:
    """One tensor's gradients; texts are empty where nothing is known."""

    tensor: str
    stage: str
    updates: str
    source: str
    median: str
    spread: str
    channels: str
    effective: str
    cosine: str
    limit: str
    outcome: Outcome
    verdict: str
    free: str


@dataclass(frozen=True, slots=True)
class TheoremRow:
    """One tensor's norm and angle beside what the theorems say."""

    tensor: str
    stage: str
    norm: str
    expected: str
    band: str
    vanishing: str
    scatter: str
    off: str
    bound: str
    probability: str
    within: str


def gradient_rows(frame: pl.DataFrame, invariant: Collection[str]) -> list[GradientRow]:
    """Of each tensor the stage with most updates seen (`UNIT_GRADIENT_SCHEMA`), in file order.

    Args:
        frame: The gradients.
        invariant: Names of the scale-invariant tensors: of others no right angle is expected.
    """
    rows = _one_per_tensor(frame, pl.col("updates")).to_dicts()
    return [_gradient(row, row["tensor"] in invariant) for row in rows]


def theorem_rows(frame: pl.DataFrame) -> list[TheoremRow]:
    """Of each tensor the stage whose norm is furthest off (`THEOREM_SCHEMA`), in file order."""
    off = (pl.col("norm") / pl.col("expected_norm")).log().abs()
    return [_theorem(row) for row in _one_per_tensor(frame, off.fill_null(-1.0)).to_dicts()]


def _one_per_tensor(frame: pl.DataFrame, largest: pl.Expr) -> pl.DataFrame:
    return frame.group_by("tensor", maintain_order=True).agg(
        pl.all().sort_by(largest, descending=True, maintain_order=True).first()
    )


def _gradient(row: dict[str, Any], invariant: bool) -> GradientRow:
    right = row["orthogonal"]
    expected = right is None or right is invariant
    outcome = Outcome.PASS if right and invariant else Outcome.INCONCLUSIVE
    return GradientRow(
        tensor=row["tensor"],
        stage=str(row["stage"]),
        updates=numbers.exact(row["updates"]),
        source=_SOURCES[row["source"]],
        median=_shown(row["p50"]),
        spread=_range(row["p05"], row["p95"]),
        channels=_range(row["channel_p05"], row["channel_p95"]),
        effective=_shown(row["effective_rms"]),
        cosine=_shown(row["cosine_rms"]),
        limit=_shown(row["cosine_limit"]),
        outcome=outcome if expected else Outcome.WARN,
        verdict="not known" if right is None else "yes" if right else "no",
        free="" if invariant else "not expected",
    )


def _theorem(row: dict[str, Any]) -> TheoremRow:
    angle, expected = row["angle_rad"], row["expected_angle_rad"]
    return TheoremRow(
        tensor=row["tensor"],
        stage=str(row["stage"]),
        norm=_shown(row["norm"]),
        expected=_shown(row["expected_norm"]),
        band=_range(row["norm_low"], row["norm_high"]),
        vanishing=_percent(row["vanishing"]),
        scatter=_shown(row["scatter"]),
        off="" if angle is None else _shown(abs(angle - expected)),
        bound=_shown(row["angle_bound_rad"]),
        probability=_percent(row["probability"]),
        within=_percent(row["within_bound"]),
    )


def _shown(value: float | None) -> str:
    return "" if value is None else numbers.quantity(value)


def _range(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{_shown(low)}–{_shown(high)}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"
