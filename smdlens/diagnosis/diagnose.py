"""The door of the room: motion, hyper-parameters and scale groups become a diagnosis."""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from smdlens.diagnosis.adam_l2_curve import adam_l2_curve
from smdlens.diagnosis.assumptions import audit_assumptions
from smdlens.diagnosis.buffer_check import Mismatch, contradictions
from smdlens.diagnosis.clock_check import clock_findings
from smdlens.diagnosis.contradiction_findings import contradiction_findings, with_doubts
from smdlens.diagnosis.cut_check import cut_contradictions
from smdlens.diagnosis.cut_location import locate_cuts
from smdlens.diagnosis.dead_channels import dead_channel_findings, dead_channels
from smdlens.diagnosis.decay_curves import decay_curves
from smdlens.diagnosis.decays import decays_of
from smdlens.diagnosis.findings import find
from smdlens.diagnosis.frames import interval_frame
from smdlens.diagnosis.gradient_table import gradient_table
from smdlens.diagnosis.joint_sets import joint_angles, with_joint_sets
from smdlens.diagnosis.lag_curve import lag_frame
from smdlens.diagnosis.measure_group import measure_groups
from smdlens.diagnosis.pseudo_overfitting import metric_findings, metric_stages
from smdlens.diagnosis.radial_evidence import (
    radial_findings,
    radial_readings,
    with_radial_evidence,
)
from smdlens.diagnosis.records import Diagnosis
from smdlens.diagnosis.relaxed import relaxed_ratios
from smdlens.diagnosis.stage_states import stage_states
from smdlens.diagnosis.stages import stage_of_intervals, stages_of
from smdlens.diagnosis.step_check import averaged_by_step
from smdlens.diagnosis.stopped_norms import (
    frozen_norm_findings,
    frozen_spans,
    with_frozen_flags,
    with_frozen_spans,
)
from smdlens.diagnosis.theorem_audit import audit_theorems
from smdlens.diagnosis.tracks import measured_names, tracks_of
from smdlens.diagnosis.unit_gradients import exact_gradients
from smdlens.diagnosis.weight_evidence import with_weight_evidence
from smdlens.hyper.metrics import Metric
from smdlens.hyper.records import HyperParameters
from smdlens.hyper.resolve import main_group_of
from smdlens.motion.records import Motion
from smdlens.snapshots.records import SnapshotSeries
from smdlens.symmetry.records import ScaleGroups


def diagnose(
    series: SnapshotSeries,
    motion: Motion,
    hyper: HyperParameters,
    groups: ScaleGroups,
    *,
    tolerance: float = 0.1,
    metric: Metric | None = None,
) -> Diagnosis:
    """Says per tensor and stage whether equilibrium was reached, and what each cut needs.

    Args:
        series: The run (its axis, notes and skipped files become findings).
        motion: Measured sums.
        hyper: What the trainer used; cuts that lie somewhere between two snapshots are placed with
            the help of the weights, and the result carries the refined schedule.
        groups: Scale groups; the result carries them with the evidence from the weights.
        tolerance: Half-width of the band around a ratio of 1 that counts as equilibrium.
        metric: The test metric, if a log was given.
    """
    groups = with_weight_evidence(groups, motion)
    groups = with_joint_sets(groups, hyper, measured_names(motion), series.steps)
    witnessed = tracks_of(motion, series.steps, groups.measured, by_updates=series.axis == "steps")
    uncertain = tuple(cut for cut in hyper.cuts if cut.step_low < cut.step_high)
    if series.axis == "steps":
        hyper = locate_cuts(witnessed, hyper, groups.measured)
    tracks = witnessed.take(np.flatnonzero([name in groups.tensors for name in witnessed.tensors]))
    measured = measure_groups(tracks, hyper, groups)
    invariant = {
        name: math.prod(tensor.shape)
        for name, tensor in groups.tensors.items()
        if tensor.on_sphere or tensor.measured_under
    }
    main = main_group_of(hyper, invariant)
    stages = stages_of(hyper, main, series.steps[0], series.steps[-1])
    owner = stage_of_intervals(stages, hyper, tracks.steps)
    curves = [
        adam_l2_curve(part, stages, owner)
        if part.law is not None and part.law.is_l2_adam
        else relaxed_ratios(part.law, part.rates, stages, owner, part.ratios.q)
        for part in measured
    ]
    intervals = interval_frame(measured, curves, owner, groups)
    states = stage_states(measured, curves, stages, owner, groups, hyper, series, tolerance)
    doubts = (
        averaged_by_step(measured, groups)
        or contradictions(measured, groups, owner)
        or cut_contradictions(measured, groups, hyper)
    )
    spans = frozen_spans(motion.statistics, groups, tracks)
    stopped = {span.tensor for span in spans}
    states = with_frozen_spans(states, stages, spans)
    states, contradicted = with_doubts(
        states, stages, tuple(item for item in doubts if item.tensor not in stopped)
    )
    decays, decay_tensors = decays_of(measured, stages, owner, groups, hyper, main, tolerance)
    states, intervals, decay_tensors = (
        _in_file_order(frame, tracks.tensors) for frame in (states, intervals, decay_tensors)
    )
    gradients = [exact_gradients(part, series, hyper, groups) for part in measured]
    assumptions = audit_assumptions(measured, stages, owner, groups)
    with_metric = (
        () if metric is None else metric_stages(metric, stages, decays, measured, owner, groups)
    )
    audited, theorems = audit_theorems(measured, gradients, stages, owner, groups)
    readings = radial_readings(measured, gradients)
    # A radial gradient seen update by update says more than a radial part of the momentum.
    explained = {c.tensor for c in contradicted if c.kind is not Mismatch.RADIAL_MOMENTUM} | stopped
    radial = {f.subject: f for f in radial_findings(groups, readings, hyper.epsilon, explained)}
    angles = motion.lag_angles if motion.angles is None else motion.angles
    diagnosis = Diagnosis(
        intervals=with_frozen_flags(intervals, spans),
        stages=stages,
        stage_tensors=states,
        decays=decays,
        decay_tensors=decay_tensors,
        assumptions=(*assumptions, *audited),
        findings=(),
        groups=with_radial_evidence(groups, readings),
        hyper=hyper,
        tolerance=tolerance,
        lags=lag_frame(
            joint_angles(angles, motion.snapshots, groups), measured, owner, tracks.steps
        ),
        lags_of_all_weights=motion.angles is not None,
        decay_curves=decay_curves(measured, curves, stages, owner, groups, decays),
        metric=metric,
        metric_stages=with_metric,
        unit_gradients=gradient_table(measured, gradients, stages, owner, groups),
        theorems=theorems,
    )
    evidence = (
        *frozen_norm_findings(groups, spans),
        *contradiction_findings(tuple(c for c in contradicted if c.tensor not in radial)),
        *radial.values(),
        *dead_channel_findings(dead_channels(measured, stages, owner, groups)),
        *clock_findings(witnessed, hyper, groups.measured, uncertain),
        *(() if metric is None else metric_findings(metric, with_metric, decays, stages)),
    )
    return find(diagnosis, series, motion, evidence)


def _in_file_order(frame: pl.DataFrame, tensors: tuple[str, ...]) -> pl.DataFrame:
    """Rows by (stage or cut,) tensor in file order; groups were measured one after another."""
    leading = [name for name in ("stage", "decay") if name in frame.columns[:1]]
    order = pl.DataFrame({"tensor": tensors, "_place": range(len(tensors))})
    following = ["step_from"] if "step_from" in frame.columns else []
    return (
        frame.join(order, on="tensor", how="left")
        .sort([*leading, "_place", *following])
        .drop("_place")
    )
