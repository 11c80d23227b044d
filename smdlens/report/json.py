"""The report as JSON, schema_version "1.0": deterministic, no NaN, 12 significant digits."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import polars as pl

from smdlens.diagnosis.cases import CheckResult
from smdlens.diagnosis.records import INTERVAL_SCHEMA, STAGE_TENSOR_SCHEMA, MetricStage
from smdlens.hyper.metrics import Metric
from smdlens.report.json_text import clean, document
from smdlens.report.schedule import at_most
from smdlens.snapshots.conversions import conversions
from smdlens.version import __version__
from smdlens.vocabulary import Outcome

if TYPE_CHECKING:
    from smdlens.report.build import Report

SCHEMA_VERSION = "1.0"


def to_dict(report: Report, result: CheckResult | None = None) -> dict[str, Any]:
    """The whole report as dicts, lists and scalars; with `result` what a policy made of it."""
    return {key: clean(value) for key, value in _content(report, result).items()}


def _content(report: Report, result: CheckResult | None) -> dict[str, Any]:
    """What the report says, not cleaned yet; frames stand for the list of their rows."""
    diagnosis = report.diagnosis
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "smdlens_version": __version__,
        "command": list(report.command),
        "run": _run(report),
        "tensors": [_tensor(t) for t in diagnosis.groups.tensors.values()],
        "intervals": diagnosis.intervals.select(list(INTERVAL_SCHEMA)),
        "stages": _stages(report),
        "decays": _decays(report),
        "assumptions": [
            {
                "name": a.name,
                "holds": a.holds,
                "value": a.value,
                "limit": a.limit,
                "tensor": a.tensor,
                "stage": a.stage,
                "reason": a.reason or None,
                "source": a.source or None,
            }
            for a in diagnosis.assumptions
        ],
        "theorems": diagnosis.theorems,
        "unit_gradients": diagnosis.unit_gradients,
        "findings": [
            {
                "rule": f.rule,
                "outcome": f.outcome.value,
                "subject": f.subject,
                "message": f.message,
                "remedy": f.remedy,
            }
            for f in diagnosis.findings
        ],
        "summary": {
            "equilibrium": {
                "held": report.summary.equilibrium.held,
                "not_held": report.summary.equilibrium.not_held,
                "undetermined": report.summary.equilibrium.undetermined,
                "not_applicable": report.summary.equilibrium.not_applicable,
            },
            "headline": report.summary.headline,
        },
    }
    if diagnosis.lags is not None and not diagnosis.lags.is_empty():
        content["lags"] = diagnosis.lags
        content["lags_of_all_weights"] = diagnosis.lags_of_all_weights
    if diagnosis.metric is not None:
        content["metric"] = _metric(diagnosis.metric, diagnosis.metric_stages)
    if result is not None:
        content["check"] = _check(result)
    return content


def dumps(report: Report, result: CheckResult | None = None) -> str:
    """The report as JSON text, one record per line, ending with a newline."""
    return document(_content(report, result))


def _metric(metric: Metric, stages: tuple[MetricStage, ...]) -> dict[str, Any]:
    return {
        "file": metric.file,
        "kind": metric.kind,
        "name": metric.name,
        "goal": metric.goal,
        "goal_source": metric.goal_source,
        "values": [
            {"step": at, "value": value} for at, value in zip(metric.at, metric.values, strict=True)
        ],
        "stages": [dataclasses.asdict(stage) for stage in stages],
    }


def _check(result: CheckResult) -> dict[str, Any]:
    return {
        "policy": result.policy,
        "outcome": result.outcome.value,
        "exit_code": int(result.exit_code),
        "counts": {outcome.value: result.count(outcome) for outcome in Outcome},
        "cases": [
            {
                "rule": c.rule,
                "stage": c.stage,
                "subject": c.subject,
                "outcome": c.outcome.value,
                "message": c.message,
                "remedy": c.remedy,
                "ratio": c.ratio,
            }
            for c in result.cases
        ],
    }


def _run(report: Report) -> dict[str, Any]:
    series, hyper = report.series, report.hyper
    optimizer = hyper.optimizer
    return {
        "path": series.path,
        "axis": series.axis,
        "snapshots": [
            {
                "step": s.step,
                "epoch": s.epoch,
                "step_source": s.step_source,
                "files": list(s.files),
                "format": s.format,
            }
            for s in series.snapshots
        ],
        "conversions": list(conversions(series)),
        "skipped": [
            {"file": s.file, "reason": s.reason.value, "detail": s.detail} for s in series.skipped
        ],
        "optimizer": {
            "kind": optimizer.kind.value,
            "name": optimizer.name,
            "momentum": optimizer.momentum,
            "nesterov": optimizer.nesterov,
            "dampening": optimizer.dampening,
            "betas": _pair(optimizer.betas),
            "decoupled": optimizer.decoupled,
            "source": optimizer.source,
        },
        "param_groups": [
            {
                "index": g.index,
                "name": g.name,
                "tensors": list(g.tensors),
                "weight_decay": g.weight_decay,
                "momentum": g.momentum,
                "betas": _pair(g.betas),
                "source": g.source,
            }
            for g in hyper.groups
        ],
        "epsilon": {"value": hyper.epsilon, "source": hyper.epsilon_source},
        "schedule": [
            {
                "group": s.group,
                "step_from": s.step_from,
                "step_to": s.step_to,
                "lr": s.lr,
                "lr_to": s.lr_to,
                "weight_decay": s.weight_decay,
                "source": s.source,
            }
            for s in at_most(hyper.schedule)
        ],
    }


def _pair(betas: tuple[float, float] | None) -> list[float] | None:
    return None if betas is None else list(betas)


def _tensor(tensor: Any) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "dtype": tensor.dtype,
        "role": tensor.role.value,
        "parts": [
            {
                "index_from": p.index_from,
                "index_to": p.index_to,
                "role": p.role.value,
                "granularity": p.granularity.value if p.granularity else None,
            }
            for p in tensor.parts
        ],
        "granularity": tensor.granularity.value if tensor.granularity else None,
        "axis": tensor.axis,
        "groups": tensor.groups,
        "joint_with": list(tensor.joint_with),
        "measured_under": tensor.measured_under,
        "not_measured": tensor.not_measured,
        "evidence": [{"kind": e.kind.value, "detail": e.detail} for e in tensor.evidence],
    }


def _rows(frame: pl.DataFrame, key: str, columns: list[str]) -> dict[int, list[dict[str, Any]]]:
    """Rows as dicts, by the value of `key`, without it."""
    rows: dict[int, list[dict[str, Any]]] = {}
    for row in frame.select(key, *columns).to_dicts():
        rows.setdefault(row.pop(key), []).append(row)
    return rows


def _stages(report: Report) -> list[dict[str, Any]]:
    columns = [c for c in STAGE_TENSOR_SCHEMA if c != "stage"]
    rows = _rows(report.diagnosis.stage_tensors, "stage", columns)
    return [
        {
            "index": s.index,
            "step_from": s.step_from,
            "step_to": s.step_to,
            "lr_from": s.lr_from,
            "lr_to": s.lr_to,
            "weight_decay": s.weight_decay,
            "tensors": rows.get(s.index, []),
        }
        for s in report.diagnosis.stages
    ]


def _decays(report: Report) -> list[dict[str, Any]]:
    frame = report.diagnosis.decay_tensors
    rows = _rows(frame, "decay", [c for c in frame.columns if c != "decay"])
    curve = report.diagnosis.decay_curves
    curves = _rows(curve, "decay", [c for c in curve.columns if c != "decay"])
    return [
        {
            "step": d.step,
            "step_low": d.step_low,
            "step_high": d.step_high,
            "lr_before": d.lr_before,
            "lr_after": d.lr_after,
            "factor": d.factor,
            "tolerance": d.tolerance,
            "tensors": rows.get(d.index, []),
            "curve": curves.get(d.index, []),
        }
        for d in report.diagnosis.decays
    ]
