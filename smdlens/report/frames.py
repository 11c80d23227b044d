"""The four public tables of a report, as polars frames.

`tensors`: one row per parameter, `TENSOR_SCHEMA`. `intervals`: one row per tensor and pair of
neighbouring snapshots, the columns of docs/json.md plus `stage`, `state` and `role`. `stages`: one
row per tensor and stage. `decays`: one row per tensor and cut. Angles are radians, steps optimizer
iterations; null means not known.
"""

from __future__ import annotations

import polars as pl

from smdlens.diagnosis.records import Diagnosis
from smdlens.symmetry.records import ScaleGroups

TENSOR_SCHEMA: dict[str, pl.DataType] = {
    "tensor": pl.String(),
    "shape": pl.List(pl.Int64()),
    "dtype": pl.String(),
    "role": pl.String(),
    "granularity": pl.String(),
    "axis": pl.Int64(),
    "groups": pl.Int64(),
    "joint_with": pl.List(pl.String()),
    "measured_under": pl.String(),
    "not_measured": pl.String(),
    "evidence": pl.List(pl.String()),
}
_STAGE_FACTS: dict[str, pl.DataType] = {
    "stage": pl.Int64(),
    "step_from": pl.Int64(),
    "step_to": pl.Int64(),
}
_DECAY_FACTS: dict[str, pl.DataType] = {
    "decay": pl.Int64(),
    "step": pl.Int64(),
    "step_low": pl.Int64(),
    "step_high": pl.Int64(),
    "lr_before": pl.Float64(),
    "lr_after": pl.Float64(),
    "factor": pl.Float64(),
    "tolerance": pl.Float64(),
}


def tensor_frame(groups: ScaleGroups) -> pl.DataFrame:
    """One row per parameter in file order; `evidence` entries read `kind: detail`."""
    rows = [
        (
            t.name,
            list(t.shape),
            t.dtype,
            t.role.value,
            t.granularity.value if t.granularity else None,
            t.axis,
            t.groups,
            list(t.joint_with),
            t.measured_under,
            t.not_measured,
            [f"{e.kind.value}: {e.detail}" for e in t.evidence],
        )
        for t in groups.tensors.values()
    ]
    return pl.DataFrame(rows, schema=TENSOR_SCHEMA, orient="row")


def _roles(groups: ScaleGroups) -> pl.DataFrame:
    tensors = groups.tensors.values()
    columns = {"tensor": [t.name for t in tensors], "role": [t.role.value for t in tensors]}
    return pl.DataFrame(columns, schema={name: TENSOR_SCHEMA[name] for name in columns})


def interval_frame(diagnosis: Diagnosis) -> pl.DataFrame:
    """The interval table with the role of its tensor and the state of its stage joined."""
    states = diagnosis.stage_tensors.select("stage", "tensor", "state")
    return diagnosis.intervals.join(
        states, on=["stage", "tensor"], how="left", maintain_order="left"
    ).join(_roles(diagnosis.groups), on="tensor", how="left", maintain_order="left")


def stage_frame(diagnosis: Diagnosis) -> pl.DataFrame:
    """One row per stage and tensor, with the stage's bounds and the tensor's role."""
    facts = pl.DataFrame(
        [(s.index, s.step_from, s.step_to) for s in diagnosis.stages],
        schema=_STAGE_FACTS,
        orient="row",
    )
    return diagnosis.stage_tensors.join(facts, on="stage", how="left", maintain_order="left").join(
        _roles(diagnosis.groups), on="tensor", how="left", maintain_order="left"
    )


def decay_frame(diagnosis: Diagnosis) -> pl.DataFrame:
    """One row per cut and tensor, with the cut's place, rates and factor."""
    facts = pl.DataFrame(
        [
            tuple(getattr(d, "index" if name == "decay" else name) for name in _DECAY_FACTS)
            for d in diagnosis.decays
        ],
        schema=_DECAY_FACTS,
        orient="row",
    )
    return facts.join(diagnosis.decay_tensors, on="decay", how="inner", maintain_order="left_right")
