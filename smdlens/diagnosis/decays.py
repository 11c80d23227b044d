"""The table of cuts: what each needs by every formula, and what the run shows."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from smdlens.diagnosis.enough import enough
from smdlens.diagnosis.measure_group import GroupMeasurement
from smdlens.diagnosis.records import DECAY_TENSOR_SCHEMA, Decay, Stage
from smdlens.diagnosis.reequilibration import after_cut, predicted_iterations, reached_step
from smdlens.diagnosis.unit_gradient_change import gradient_gains
from smdlens.hyper.records import HyperParameters
from smdlens.symmetry.records import ScaleGroups


def decays_of(
    measured: list[GroupMeasurement],
    stages: tuple[Stage, ...],
    owner: NDArray[np.int64],
    groups: ScaleGroups,
    hyper: HyperParameters,
    main: int,
    tolerance: float,
) -> tuple[tuple[Decay, ...], pl.DataFrame]:
    """Cuts inside the run, and per cut and invariant tensor the iteration figures.

    Args:
        measured: One part per parameter group.
        stages: Stages of the run; each cut begins one.
        owner: Stage of each interval, -1 for none.
        groups: Scale groups.
        hyper: Hyper-parameters with the cuts placed.
        main: Group whose rates the cuts show.
        tolerance: How close to equilibrium is close enough.
    """
    decays: list[Decay] = []
    rows: list[dict[str, object]] = []
    by_start = {stage.step_from: stage for stage in stages}
    for cut in hyper.cuts:
        stage = by_start.get(cut.step)
        if stage is None or stage is stages[0]:
            continue
        lr, _ = hyper.rates(main, cut.step - 1, cut.step + 1)
        before, after = float(lr[0]), float(lr[1])
        if not (before > 0.0 and after > 0.0):
            continue
        index = len(decays)
        decays.append(
            Decay(
                index,
                cut.step,
                cut.step_low,
                cut.step_high,
                before,
                after,
                before / after,
                tolerance,
            )
        )
        for part in measured:
            rows.extend(_part_rows(part, index, stage, stages, owner, groups, hyper, tolerance))
    return tuple(decays), pl.DataFrame(rows, schema=DECAY_TENSOR_SCHEMA, orient="row")


def _part_rows(
    part: GroupMeasurement,
    decay_index: int,
    stage: Stage,
    stages: tuple[Stage, ...],
    owner: NDArray[np.int64],
    groups: ScaleGroups,
    hyper: HyperParameters,
    tolerance: float,
) -> list[dict[str, object]]:
    if part.law is None or part.index is None or part.has_decay is False or part.law.is_l2_adam:
        return []
    lr, decay = hyper.rates(part.index, stage.step_from - 1, stage.step_from + 1)
    if not (np.isfinite(lr + decay).all() and (lr > 0.0).all() and (decay > 0.0).all()):
        return []
    before = np.flatnonzero(owner == stage.index - 1)
    own = np.flatnonzero(owner == stage.index)
    steps, q = part.tracks.steps, part.ratios.q
    gains = gradient_gains(part, stages, owner).get(stage.index)
    rows: list[dict[str, object]] = []
    for row, name in enumerate(part.tracks.tensors):
        if not groups.tensors[name].on_sphere:
            continue
        first_middle = (steps[own[0]] + steps[own[0] + 1]) / 2.0 if len(own) else np.nan
        reached = reached_step(q[row], steps, own, tolerance)
        ends = (
            q[row, before[-1]] if len(before) else np.nan,
            *((q[row, own[0]], q[row, own[-1]]) if len(own) else (np.nan, np.nan)),
        )
        cut = after_cut(
            part.law,
            lr,
            decay,
            np.array(ends),
            np.nan if gains is None else float(gains[row]),
            float(first_middle - stage.step_from),
            stage.step_to - stage.step_from,
        )
        rows.append(
            {
                "decay": decay_index,
                "tensor": name,
                **predicted_iterations(part.law, cut, tolerance),
                **enough(part.law, cut, tolerance),
                "iterations_available": cut.available,
                "iterations_observed": None if reached is None else reached - stage.step_from,
                "ratio_at_end": _known(np.sqrt(cut.q_last)),
                "ratio_at_start_predicted": _known(cut.excess**-0.5),
                "unit_gradient_change": _known(np.sqrt(cut.gain)),
            }
        )
    return rows


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
