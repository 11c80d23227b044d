"""The state of every tensor in every stage."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from smdlens.diagnosis.error_terms import decay_fall, log_norm_error
from smdlens.diagnosis.measure_group import GroupMeasurement
from smdlens.diagnosis.pooled import UNKNOWN, Pooled, pool
from smdlens.diagnosis.records import STAGE_TENSOR_SCHEMA, Stage
from smdlens.diagnosis.reequilibration import reached_step
from smdlens.diagnosis.stage_end import end_of_stage
from smdlens.diagnosis.stages import last_part, last_third
from smdlens.diagnosis.verdict import StageEvidence, decide
from smdlens.hyper.records import HyperParameters
from smdlens.snapshots.records import SnapshotSeries
from smdlens.symmetry.records import ScaleGroups, TensorSymmetry
from smdlens.theory.decay_root import decay_log_rate
from smdlens.theory.relaxation import norm_power
from smdlens.vocabulary import OptimizerKind, Role, State

Array = NDArray[np.float64]
NOT_BOUND = "not scale-invariant"
# Rates at both ends of a stage that differ by less than this are one rate.
_SMOOTH = 0.01


def stage_states(
    measured: list[GroupMeasurement],
    curves: list[Array],
    stages: tuple[Stage, ...],
    owner: NDArray[np.int64],
    groups: ScaleGroups,
    hyper: HyperParameters,
    series: SnapshotSeries,
    tolerance: float,
) -> pl.DataFrame:
    """One row per stage and tensor with `STAGE_TENSOR_SCHEMA`."""
    rows: list[dict[str, object]] = []
    for part, curve in zip(measured, curves, strict=True):
        unknown = _what_is_missing(part, hyper, series)
        blur, fall = log_norm_error(part.tracks), _fall(part)
        for stage in stages:
            last = last_part(stage, owner, part.tracks.steps)
            end = end_of_stage(
                part.law,
                part.rates,
                part.ratios.q,
                last,
                part.tracks.steps,
                last_third(stage),
            )
            for row, name in enumerate(part.tracks.tensors):
                tensor = groups.tensors[name]
                if not part.is_listed(name, groups):
                    continue
                pooled = UNKNOWN
                if len(last):
                    pooled = pool(
                        row,
                        end,
                        part.rates.lengths,
                        part.steps,
                        part.expected,
                        part.ratios,
                        curve,
                        blur,
                        fall,
                    )
                rows.append(
                    _stage_row(
                        part,
                        stage,
                        owner,
                        last,
                        pooled,
                        blur,
                        row,
                        tensor,
                        hyper,
                        unknown,
                        tolerance,
                    )
                )
    return pl.DataFrame(rows, schema=STAGE_TENSOR_SCHEMA, orient="row")


def _stage_row(
    part: GroupMeasurement,
    stage: Stage,
    owner: NDArray[np.int64],
    last: NDArray[np.intp],
    pooled: Pooled,
    blur: Array,
    row: int,
    tensor: TensorSymmetry,
    hyper: HyperParameters,
    unknown: str,
    tolerance: float,
) -> dict[str, object]:
    own = np.flatnonzero(owner == stage.index)
    lr_from, lr_to, decay = _group_rates(part, stage, hyper)
    if tensor.on_sphere:
        evidence = _evidence(part, row, own, last, pooled, blur, stage, lr_from, lr_to, unknown)
        state, reason = decide(evidence, tolerance)
    else:
        state, reason = State.UNDETERMINED, _why_unbound(tensor)
    norm = float(np.sqrt(part.tracks.at["w2"][row, own[-1] + 1])) if len(own) else np.nan
    bound = tensor.on_sphere and np.isfinite(pooled.q)
    power = 1.0 if part.law is None else norm_power(part.law.family)
    return {
        "stage": stage.index,
        "tensor": part.tracks.tensors[row],
        "group": None if part.index is None else hyper.groups[part.index].index,
        "lr_from": lr_from,
        "lr_to": lr_to,
        "weight_decay": decay,
        "state": state.value,
        "reached_step": reached_step(part.ratios.q[row], part.tracks.steps, own, tolerance)
        if tensor.on_sphere
        else None,
        "ratio": _number(np.sqrt(pooled.q)),
        "ratio_low": _number(np.sqrt(pooled.low)),
        "ratio_high": _number(np.sqrt(pooled.high)),
        "norm": _number(norm),
        # (|w*| / |w|)^m = q: the norm at which today's unit gradient would be in equilibrium.
        "expected_norm": _number(norm * pooled.q ** (1.0 / power)) if bound else None,
        "reason": reason or None,
    }


def _why_unbound(tensor: TensorSymmetry) -> str:
    if tensor.role is Role.NOT_SCALE_INVARIANT:
        return NOT_BOUND
    return tensor.not_measured or "role unknown"


def _fall(part: GroupMeasurement) -> Array:
    if part.law is None or part.law.rule is None:
        return np.full(len(part.rates.count), np.inf)
    return decay_fall(part.law, part.rates)


def _group_rates(
    part: GroupMeasurement, stage: Stage, hyper: HyperParameters
) -> tuple[float | None, float | None, float | None]:
    if part.index is None:
        return None, None, None
    first_lr, decay = hyper.rates(part.index, stage.step_from, stage.step_from + 1)
    last_lr, _ = hyper.rates(part.index, stage.step_to - 1, stage.step_to)
    return _number(first_lr[0]), _number(last_lr[0]), _number(decay[0])


def _evidence(
    part: GroupMeasurement,
    row: int,
    own: NDArray[np.intp],
    last: NDArray[np.intp],
    pooled: Pooled,
    blur: Array,
    stage: Stage,
    lr_from: float | None,
    lr_to: float | None,
    unknown: str,
) -> StageEvidence:
    tracks, rates = part.tracks, part.rates
    with np.errstate(divide="ignore"):
        log_norm2 = np.log(tracks.at["w2"][row])
    ends = np.append(own, own[-1] + 1) if len(own) else own
    nonfinite = tracks.at["nonfinite"][row, ends[-1]] if len(own) else 0.0
    smooth = bool(lr_from and lr_to and abs(np.log(lr_to / lr_from)) > _SMOOTH)
    return StageEvidence(
        pooled=pooled,
        last=np.searchsorted(own, last),
        q=part.ratios.q[row, own],
        low=part.ratios.low[row, own],
        high=part.ratios.high[row, own],
        norm_error=blur[row, ends],
        angle=part.steps.angle[row, own],
        floor=part.steps.floor[row, own],
        log_norm2=log_norm2[ends],
        lengths=rates.lengths[own],
        below=part.steps.below[row, own],
        decay_rate=_decay_rate(part, own),
        nonfinite=int(np.nan_to_num(nonfinite)),
        smooth=smooth or (lr_to == 0.0 and bool(lr_from)),
        has_decay=part.has_decay,
        updates=stage.step_to - stage.step_from,
        unknown=unknown,
    )


def _decay_rate(part: GroupMeasurement, own: NDArray[np.intp]) -> Array:
    """Fall of ln |w|^2 per update without gradients, per interval."""
    if part.law is None:
        return np.full(len(own), np.nan)
    lr_decay = (part.rates.mean_lr() * part.rates.mean_decay())[own]
    if part.law.family in ("sgd", "nesterov"):
        nesterov = part.law.family == "nesterov"
        return np.asarray(2.0 * decay_log_rate(lr_decay, part.law.momentum, nesterov))
    return np.asarray(-2.0 * np.log1p(-lr_decay))


def _what_is_missing(part: GroupMeasurement, hyper: HyperParameters, series: SnapshotSeries) -> str:
    """Why no ratio can be given for this group, with the cheapest remedy."""
    if series.axis == "epochs":
        return "only epochs are known: give --steps-per-epoch"
    if part.index is None:
        return "its parameter group is not known: give --optimizer, --lr and --weight-decay"
    missing = []
    if hyper.groups[part.index].weight_decay is None:
        missing.append("--weight-decay")
    if not part.rates.known.any() and not hyper.schedule:
        missing.append("--lr or --schedule")
    if part.law is None:
        known = hyper.optimizer.kind is OptimizerKind.SGD
        missing.append("--momentum" if known else "--optimizer")
    if missing:
        return "hyper-parameters are missing: give " + " and ".join(missing)
    return "the angle cannot be measured here: save optimizer state, or snapshots closer together"


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
