"""Measured and predicted ratio after each cut, interval by interval."""

from __future__ import annotations

import warnings

import numpy as np
import polars as pl
from numpy.typing import NDArray

from smdlens.diagnosis.measure_group import GroupMeasurement
from smdlens.diagnosis.records import DECAY_CURVE_SCHEMA, Decay, Stage
from smdlens.diagnosis.relaxed import relaxed_ratios
from smdlens.diagnosis.unit_gradient_change import gradient_gains
from smdlens.symmetry.records import ScaleGroups

Array = NDArray[np.float64]


def decay_curves(
    measured: list[GroupMeasurement],
    curves: list[Array],
    stages: tuple[Stage, ...],
    owner: NDArray[np.int64],
    groups: ScaleGroups,
    decays: tuple[Decay, ...],
) -> pl.DataFrame:
    """Medians over the invariant tensors, with `DECAY_CURVE_SCHEMA`.

    Args:
        measured: The parameter groups.
        curves: Their relaxation curves with the unit gradient of before each cut, [T, I].
        stages: Stages of the run.
        owner: Stage of each interval, -1 for none.
        groups: Scale groups.
        decays: Cuts.
    """
    found: list[Array] = []
    old: list[Array] = []
    new: list[Array] = []
    for part, curve in zip(measured, curves, strict=True):
        bound = [groups.tensors[n].on_sphere for n in part.tracks.tensors]
        gains = gradient_gains(part, stages, owner)
        renewed = relaxed_ratios(part.law, part.rates, stages, owner, part.ratios.q, gains=gains)
        for rows, values in ((found, part.ratios.q), (old, curve), (new, renewed)):
            rows.append(np.sqrt(np.where(values >= 0.0, values, np.nan))[bound])
    if not any(len(rows) for rows in found):
        return pl.DataFrame(schema=DECAY_CURVE_SCHEMA)
    steps = measured[0].tracks.steps
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # intervals where nothing is known
        low, middle, high = np.nanquantile(np.concatenate(found), (0.1, 0.5, 0.9), axis=0)
        before, after = (np.nanmedian(np.concatenate(rows), axis=0) for rows in (old, new))
    columns = {"ratio": middle, "ratio_low": low, "ratio_high": high,
               "ratio_predicted": before, "ratio_predicted_new_gradient": after}  # fmt: skip
    by_start = {stage.step_from: stage for stage in stages}
    frames = [pl.DataFrame(schema=DECAY_CURVE_SCHEMA)]
    for decay in decays:
        own = np.flatnonzero(owner == by_start[decay.step].index)
        frames.append(
            pl.DataFrame(
                {
                    "decay": np.full(len(own), decay.index),
                    "step": (steps[own] + steps[own + 1]) / 2.0,
                    **{name: values[own] for name, values in columns.items()},
                },
                schema=DECAY_CURVE_SCHEMA,
            ).with_columns(pl.col(list(columns)).fill_nan(None))
        )
    return pl.concat(frames)
