"""What the trainer used: options over configuration over the files, each with its source."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from smdlens.errors import InputError
from smdlens.hyper.groups import resolve_groups
from smdlens.hyper.optimizer import resolve_optimizer
from smdlens.hyper.options import DeclaredHyperParameters
from smdlens.hyper.rates import resolve_timelines
from smdlens.hyper.records import HyperParameters, Optimizer, ParamGroup, RateCut, RateSegment
from smdlens.hyper.settings import Settings, read_settings
from smdlens.hyper.settings_notes import settings_notes, written_rate
from smdlens.hyper.timeline import Timeline, cut_steps, to_segments, warm_up_end
from smdlens.snapshots.keras_files import EPSILON_KEY
from smdlens.snapshots.records import SnapshotSeries
from smdlens.vocabulary import OptimizerKind

DEFAULT_EPSILON = 1e-5
MAX_UPDATES = 20_000_000


def resolve_hyper_parameters(
    series: SnapshotSeries, declared: DeclaredHyperParameters | None = None
) -> HyperParameters:
    """Optimizer, parameter groups and schedule of a run, with provenance.

    Args:
        series: The run's snapshots (headers only are read).
        declared: Options and configuration; they win over the files, and every contradiction
            becomes a note.

    Returns:
        What is known. Missing values stay None and are named in `notes`.

    Raises:
        InputError: A declared value or schedule file that cannot be used, or steps that cannot be
            iterations.
    """
    declared = declared or DeclaredHyperParameters()
    _check_length(series)
    settings = read_settings(series)
    optimizer, notes = resolve_optimizer(series, declared, settings)
    groups, group_notes = resolve_groups(series, declared, settings)
    sizes = {name: ref.numel for name, ref in series.snapshots[-1].tensors.items()}
    rate_notes: list[tuple[str, str, str]] = []
    schedule: list[RateSegment] = []
    main: Timeline | None = None
    heaviest = (False, -1)
    for at, timeline in resolve_timelines(series, groups, declared, settings, rate_notes):
        schedule += to_segments(timeline, at)
        last = timeline.decay[np.isfinite(timeline.decay)][-1:]
        if (groups[at].weight_decay is None and last.size) or (
            not groups[at].weight_decay and last.any()
        ):
            # A declared schedule may be the only one to say it.
            said = dataclasses.replace(
                groups[at], weight_decay=float(last[0]), source=timeline.source
            )
            groups = (*groups[:at], said, *groups[at + 1 :])
        # Cuts and stages are read off the decayed group with most elements.
        if _weight(groups[at], sizes) > heaviest:
            main, heaviest = timeline, _weight(groups[at], sizes)
    notes = [
        *notes,
        *group_notes,
        *rate_notes,
        *settings_notes(series, settings),
        *_missing(series, optimizer, groups, settings, has_rate=bool(schedule)),
    ]
    epsilon, epsilon_source = _epsilon(series, declared)
    return HyperParameters(
        optimizer=optimizer,
        groups=groups,
        schedule=tuple(schedule),
        cuts=() if main is None else cuts_of(main),
        warm_up_end=None if main is None else warm_up_end(main),
        notes=tuple(notes),
        epsilon=epsilon,
        epsilon_source=epsilon_source,
    )


def _epsilon(series: SnapshotSeries, declared: DeclaredHyperParameters) -> tuple[float, str]:
    """Epsilon of the normalisation layers, and who says so."""
    if declared.epsilon:
        return declared.epsilon, declared.said_by("epsilon")
    saved = series.snapshots[-1].scalars.get(EPSILON_KEY)
    if isinstance(saved, float) and saved > 0.0:
        return saved, "Keras' description of the model in the checkpoints"
    return DEFAULT_EPSILON, "assumed (the frameworks' default)"


def _check_length(series: SnapshotSeries) -> None:
    """Every update has a rate in memory: steps that are no updates must not ask for terabytes."""
    updates = series.steps[-1] - series.steps[0]
    if series.axis == "steps" and updates > MAX_UPDATES:
        raise InputError(
            "these steps cannot be optimizer iterations",
            subject=series.path,
            expected=f"at most {MAX_UPDATES:,} between the first and the last snapshot",
            found=f"{updates:,} (from {series.snapshots[-1].step_source})",
            remedy="Rename the files to their iteration (ckpt_5000.pt), or analyse a part of the "
            "run with --steps FROM:TO.",
        )


def cuts_of(timeline: Timeline) -> tuple[RateCut, ...]:
    """Cuts of a timeline with the bounds of those whose place is a guess."""
    bounds = {step: (low, high) for step, low, high in timeline.uncertain}
    return tuple(RateCut(step, *bounds.get(step, (step, step))) for step in cut_steps(timeline))


def main_group_of(hyper: HyperParameters, sizes: Mapping[str, int]) -> int:
    """Place of the decayed group with most elements, given the sizes of the tensors that count."""
    return max(range(len(hyper.groups)), key=lambda at: _weight(hyper.groups[at], sizes))


def _weight(group: ParamGroup, sizes: Mapping[str, int]) -> tuple[bool, int]:
    return (group.weight_decay or 0.0) > 0.0, sum(sizes.get(name, 0) for name in group.tensors)


def with_cut_placed(
    hyper: HyperParameters, cut: RateCut, step: int, step_low: int, step_high: int
) -> HyperParameters:
    """The same hyper-parameters with one cut moved to `step`, known to lie in [low, high].

    All groups' segments that met at the old place meet at the new one. Used by diagnosis/ once the
    weights have told where the rate really changed.
    """
    segments = []
    for segment in hyper.schedule:
        if segment.step_to == cut.step:
            segment = dataclasses.replace(segment, step_to=step)
        elif segment.step_from == cut.step:
            segment = dataclasses.replace(segment, step_from=step)
        if segment.step_to > segment.step_from:
            segments.append(segment)
    cuts = tuple(RateCut(step, step_low, step_high) if c == cut else c for c in hyper.cuts)
    return dataclasses.replace(hyper, schedule=tuple(segments), cuts=cuts)


def _missing(
    series: SnapshotSeries,
    optimizer: Optimizer,
    groups: Sequence[ParamGroup],
    settings: Sequence[Settings],
    *,
    has_rate: bool,
) -> list[tuple[str, str, str]]:
    """Notes on what nobody has said, with the option that says it."""
    notes: list[tuple[str, str, str]] = []
    if series.axis == "epochs":
        notes.append(
            (
                "SMD013",
                "the checkpoints know epochs only: angles per update and iteration figures need "
                "iterations",
                "Give --steps-per-epoch N.",
            )
        )
    if optimizer.kind is OptimizerKind.UNKNOWN and "betas" not in _all_values(series):
        notes.append(
            (
                "SMD014",
                "the optimizer is not known",
                "Give --optimizer (and --momentum or --betas).",
            )
        )
    if optimizer.kind is OptimizerKind.OTHER:
        notes.append(
            (
                "SMD015",
                "the optimizer is recognised as one smdlens has no equilibrium formula for",
                "Norms and angles are given; give --optimizer if it follows sgd, sgdw, adam, adamw "
                "or lion.",
            )
        )
    if not has_rate and series.axis != "epochs":
        notes.append(
            (
                "SMD016",
                "the learning rate is not known: no optimizer state, no option, no schedule"
                + written_rate(settings),
                "Give --lr, or --schedule FILE with the columns step,lr[,weight_decay].",
            )
        )
    if not groups or all(group.weight_decay is None for group in groups):
        notes.append(("SMD017", "the weight decay is not known", "Give --weight-decay."))
    return notes


def _all_values(series: SnapshotSeries) -> set[str]:
    return {
        key
        for snapshot in series.snapshots[-1:]
        if snapshot.optimizer is not None
        for group in snapshot.optimizer.groups
        for key in group.values
    }
