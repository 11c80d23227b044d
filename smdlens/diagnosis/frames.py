"""The interval table: everything measured between neighbouring snapshots."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from smdlens.diagnosis.channel_spread import channel_ratios
from smdlens.diagnosis.error_terms import holds_jump
from smdlens.diagnosis.measure_group import GroupMeasurement
from smdlens.diagnosis.radial import radial_ratio
from smdlens.diagnosis.records import INTERVAL_SCHEMA
from smdlens.symmetry.records import ScaleGroups
from smdlens.theory.angles import angle_from_turn2
from smdlens.theory.random_walk import random_walk_angle

Array = NDArray[np.float64]

# An angle under this many storage floors is mostly rounding.
_FLOORS = 3.0
# A leak beyond this share of the decay is worth a flag (docs/theory.md §10).
_LEAK_FLAG = 0.02


def interval_frame(
    measured: list[GroupMeasurement],
    curves: list[Array],
    owner: NDArray[np.int64],
    groups: ScaleGroups,
) -> pl.DataFrame:
    """One row per tensor and interval with `INTERVAL_SCHEMA`, group after group.

    Args:
        measured: One part per parameter group.
        curves: Squared ratio of the relaxation curve of each part, [T, I].
        owner: Stage of each interval, -1 for none.
        groups: Scale groups, for the channels' spread.
    """
    frames = [
        _part_frame(part, curve, owner, groups)
        for part, curve in zip(measured, curves, strict=True)
    ]
    return pl.concat(frames) if frames else pl.DataFrame(schema=INTERVAL_SCHEMA)


def _part_frame(
    part: GroupMeasurement, curve: Array, owner: NDArray[np.int64], groups: ScaleGroups
) -> pl.DataFrame:
    tracks, steps, ratios = part.tracks, part.steps, part.ratios
    count, intervals = steps.turn2.shape
    norm = np.sqrt(tracks.at["w2"])
    expected = part.expected
    spread = channel_ratios(part)
    columns: dict[str, Array] = {
        "norm_from": norm[:, :-1],
        "norm_to": norm[:, 1:],
        "angle_rad": steps.angle,
        "angle_floor_rad": steps.floor,
        "angle_random_walk_rad": _random_walk(part),
        "one_step_angle_rad": angle_from_turn2(steps.turn2),
        "one_step_low": angle_from_turn2(ratios.low * expected),
        "one_step_high": angle_from_turn2(ratios.high * expected),
        "last_step_angle_rad": steps.last,
        "expected_one_step_angle_rad": angle_from_turn2(expected),
        "relaxed_one_step_angle_rad": np.sqrt(curve * expected),
        "ratio": np.sqrt(ratios.q),
        "ratio_p05": spread[0],
        "ratio_p50": spread[1],
        "ratio_p95": spread[2],
        "still_channels": tracks.between["still_channels"],
        "unit_gradient_rms": np.sqrt(steps.unit_gradient2),
        "eps_leak": np.where(_has_leak(part, groups), ratios.kappa_ratio, np.nan),
        "radial_ratio": radial_ratio(part),
    }
    lows = np.isnan(columns["one_step_low"]) & np.isfinite(steps.turn2)
    columns["one_step_low"] = np.where(lows, columns["one_step_angle_rad"], columns["one_step_low"])
    columns["one_step_high"] = np.where(
        lows, columns["one_step_angle_rad"], columns["one_step_high"]
    )
    frame = pl.DataFrame(
        {
            "tensor": np.repeat(np.array(tracks.tensors, dtype=object), intervals),
            "step_from": np.tile(tracks.steps[:-1], count),
            "step_to": np.tile(tracks.steps[1:], count),
            **{name: np.ravel(values) for name, values in columns.items()},
            "one_step_method": np.ravel(steps.method),
            "flags": _flags(part),
            "stage": np.tile(owner, count),
        },
        schema_overrides={"tensor": pl.String, "one_step_method": pl.String},
        strict=False,
    )
    blank = pl.when(pl.col("one_step_method") == "").then(None)
    listed = [name for name in tracks.tensors if part.is_listed(name, groups)]
    return (
        frame.filter(pl.col("tensor").is_in(listed))
        .with_columns(
            pl.col(pl.Float64).fill_nan(None),
            blank.otherwise(pl.col("one_step_method")).alias("one_step_method"),
            pl.when(pl.col("stage") < 0).then(None).otherwise(pl.col("stage")).alias("stage"),
        )
        .select(list(INTERVAL_SCHEMA))
        .cast(pl.Schema(INTERVAL_SCHEMA))
    )


def _has_leak(part: GroupMeasurement, groups: ScaleGroups) -> NDArray[np.bool_]:
    """[T, I]: intervals in which a leak could be worked out; Adam's gains do not show it."""
    if part.law is not None and part.law.adaptive:
        return np.zeros(part.kappa.shape, dtype=bool)
    known = [
        (norm := groups.tensors[name].norm) is not None and norm.running_var is not None
        for name in part.tracks.tensors
    ]
    return np.array(known)[:, None] & np.isfinite(part.tracks.between["leak_shift"])


def _random_walk(part: GroupMeasurement) -> Array:
    """Angle between the snapshots of a free random walk in equilibrium, radians [T, I]."""
    shape = part.steps.turn2.shape
    result = np.full(shape, np.nan)
    law, rates = part.law, part.rates
    rule = None if law is None else law.white_rule
    if law is None or rule is None or law.is_l2_adam:
        return result
    lr, decay = rates.mean_lr(), rates.mean_decay()
    for i in np.flatnonzero(rates.known & (np.nan_to_num(lr) > 0.0) & (np.nan_to_num(decay) > 0.0)):
        coupled, decoupled = (0.0, decay[i]) if law.decoupled else (decay[i], 0.0)
        n = float(rates.lengths[i])
        result[:, i] = random_walk_angle(n, rule, float(lr[i]), coupled, decoupled)
    return result


def _flags(part: GroupMeasurement) -> list[list[str]]:
    steps, rates = part.steps, part.rates
    shape = steps.turn2.shape
    jump = holds_jump(rates)
    nonfinite = part.tracks.at["nonfinite"] > 0
    marks: dict[str, NDArray[np.bool_]] = {
        "holds_cut": np.broadcast_to(jump, shape),
        "below_resolution": steps.below,
        "angle_below_floor": steps.angle < _FLOORS * steps.floor,
        "epsilon_leak": np.abs(part.ratios.kappa_ratio) > _LEAK_FLAG,
        "one_sided": part.ratios.bias_low > 0.0,
        "nonfinite_weights": nonfinite[:, :-1] | nonfinite[:, 1:],
        "rate_unknown": np.broadcast_to(~rates.known & (rates.lengths > 1), shape),
    }
    table = np.stack([np.ravel(mark) for mark in marks.values()])
    names = list(marks)
    return [[names[k] for k in np.flatnonzero(column)] for column in table.T]
