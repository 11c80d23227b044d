"""Pseudo overfitting: the angle grows back after a cut, and the test metric falls with it.

Smaller angles let the weights sink into their basin, growing ones drive them out again: nothing is
overfitted [Wan2021, §4.3].

A stage is marked where both are seen. The metric falls by a one-sided Mann-Kendall test of its
trend over the stage (the first value after the cut left out), its size by Theil and Sen's slope.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.measure_group import GroupMeasurement
from smdlens.diagnosis.records import Decay, Finding, MetricStage, Stage
from smdlens.hyper.metrics import Metric
from smdlens.symmetry.records import ScaleGroups
from smdlens.theory.trend import falling
from smdlens.vocabulary import Outcome

Array = NDArray[np.float64]
# A metric falls where its trend would be as steep by chance less often than this.
_LEVEL = 0.01
# The angle rises where the median tensor's grows by this factor through the stage.
_RISE = 1.15


def metric_stages(
    metric: Metric,
    stages: tuple[Stage, ...],
    decays: tuple[Decay, ...],
    measured: list[GroupMeasurement],
    owner: NDArray[np.int64],
    groups: ScaleGroups,
) -> tuple[MetricStage, ...]:
    """The metric through each stage.

    Args:
        metric: The test metric on the run's axis.
        stages: Stages of the run.
        decays: Its cuts.
        measured: The parameter groups.
        owner: Stage of each interval, -1 for none.
        groups: Scale groups.
    """
    at, values = np.array(metric.at), np.array(metric.values)
    good = values if metric.goal == "up" else -values
    cut_at = {decay.step for decay in decays if decay.factor > 1.0}
    found = []
    for stage in stages:
        own = np.flatnonzero((at > stage.step_from) & (at <= stage.step_to))
        ratio_from, ratio_to = _ratios(measured, np.flatnonzero(owner == stage.index), groups)
        change, p = falling(at[own[1:]], good[own[1:]])
        found.append(
            MetricStage(
                stage=stage.index,
                values=len(own),
                first=float(values[own[0]]) if len(own) else None,
                best=float(values[best]) if (best := _best(own, good)) is not None else None,
                best_at=float(at[best]) if best is not None else None,
                last=float(values[own[-1]]) if len(own) else None,
                change=change,
                p_value=p,
                ratio_from=ratio_from,
                ratio_to=ratio_to,
                pseudo_overfitting=_mark(stage.step_from in cut_at, ratio_from, ratio_to, p),
            )
        )
    return tuple(found)


def _best(own: NDArray[np.intp], good: Array) -> int | None:
    return int(own[np.argmax(good[own])]) if len(own) else None


def _mark(
    after_cut: bool, ratio_from: float | None, ratio_to: float | None, p: float | None
) -> bool | None:
    if not after_cut:
        return False
    if ratio_from is None or ratio_to is None:
        return None
    if ratio_to < _RISE * ratio_from:
        return False
    return None if p is None else p < _LEVEL


def _ratios(
    measured: list[GroupMeasurement], own: NDArray[np.intp], groups: ScaleGroups
) -> tuple[float | None, float | None]:
    """Median ratio of the invariant tensors in the first and the last interval of a stage."""
    if len(own) < 2:
        return None, None
    ends = []
    for interval in (own[0], own[-1]):
        values = [
            float(part.ratios.q[row, interval])
            for part in measured
            for row, name in enumerate(part.tracks.tensors)
            if groups.tensors[name].on_sphere
        ]
        known = [value for value in values if math.isfinite(value) and value >= 0.0]
        ends.append(math.sqrt(float(np.median(known))) if known else None)
    return ends[0], ends[1]


def metric_findings(
    metric: Metric, found: tuple[MetricStage, ...], decays: tuple[Decay, ...],
    stages: tuple[Stage, ...],
) -> Iterator[Finding]:  # fmt: skip
    """Marked stages, and what was said of reading the log."""
    by_start = {decay.step: decay for decay in decays}
    for stage, row in itertools.product(stages, found):
        if stage.index != row.stage or not row.pseudo_overfitting:
            continue
        factor = by_start[stage.step_from].factor
        yield Finding(
            "SMD070",
            Outcome.WARN,
            f"stage {stage.index}",
            f"pseudo overfitting: {metric.name} is best at step {row.best_at:.0f} "
            f"({row.best:.4g}) and ends at {row.last:.4g} while the angle per update grows from "
            f"{row.ratio_from:.2f} to {row.ratio_to:.2f} of its equilibrium value after the cut "
            f"(chance without a trend {row.p_value:.1g})",
            f"It is the cut by {factor:.3g} and no overfitting: keep the checkpoint of the best "
            "value, or rescale the weights at the cut so that the angle starts at equilibrium.",
        )
    if not any(row.values for row in found):
        yield Finding(
            "SMD071",
            Outcome.WARN,
            metric.file,
            f"no value of {metric.name} lies within the run's steps "
            f"{stages[0].step_from}-{stages[-1].step_to}" if stages else "the run has no stage",
            "If it counts epochs, name that column epoch and give --steps-per-epoch.",
        )  # fmt: skip
    for note in metric.notes:
        yield Finding("SMD072", Outcome.WARN, metric.file, note, None)
