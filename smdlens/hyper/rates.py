"""The rate of every update of every group: declared, re-evaluated from a scheduler, or saved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smdlens.hyper.optimizer import SAVED, number
from smdlens.hyper.options import DeclaredHyperParameters
from smdlens.hyper.records import ParamGroup
from smdlens.hyper.saved_rates import SavedRate, timeline_from_saved
from smdlens.hyper.schedule_csv import ScheduleRow, read_schedule
from smdlens.hyper.scheduler_state import (
    base_rates,
    find_state,
    formula_of,
    updates_per_tick,
)
from smdlens.hyper.timeline import Timeline
from smdlens.snapshots.records import SnapshotSeries

Note = tuple[str, str, str]


def resolve_timelines(
    series: SnapshotSeries, groups: Sequence[ParamGroup], declared: DeclaredHyperParameters
) -> tuple[dict[int, Timeline], list[Note]]:
    """Timeline of each group (by its place in `groups`) over the run; empty on an epoch axis."""
    if series.axis == "epochs" or len(series.snapshots) < 1:
        return {}, []
    start, stop = series.steps[0], series.steps[-1]
    rows = read_schedule(declared.schedule) if declared.schedule is not None else ()
    notes: list[Note] = []
    timelines: dict[int, Timeline] = {}
    saved_of = [_saved_rates(series, group.index) for group in groups]
    # A declared schedule speaks of the main rate; groups with a multiplier keep theirs.
    reference = max((points[-1].lr for points in saved_of if points), default=0.0)
    for at, (group, saved) in enumerate(zip(groups, saved_of, strict=True)):
        from_state = _from_scheduler(series, group, saved, start, stop)
        files = from_state
        if files is None and saved:
            next_rate = _has_initial_lr(series, group.index)
            files = timeline_from_saved(saved, start, stop, next_rate, SAVED)
        scale = saved[-1].lr / reference if saved and reference > 0.0 else 1.0
        if rows:
            timeline = _from_rows(rows, start, stop, scale, declared.said_by("schedule"))
        elif declared.lr is not None:
            source = declared.said_by("lr")
            timeline = Timeline(
                start, np.full(stop - start, declared.lr * scale), _unknown(stop - start), source
            )
        elif files is not None:
            timeline = files
        else:
            continue
        if files is not None and timeline is not files:
            notes.extend(_contradictions(timeline, saved))
        timelines[at] = _with_decay(timeline, group, files, declared.weight_decay is not None)
    return timelines, list(dict.fromkeys(notes))


def _unknown(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.full(count, np.nan)


def _saved_rates(series: SnapshotSeries, index: int) -> list[SavedRate]:
    points: list[SavedRate] = []
    for step, snapshot in zip(series.steps, series.snapshots, strict=True):
        record = snapshot.optimizer
        if record is None or index >= len(record.groups):
            continue
        values = record.groups[index].values
        lr = number(values, "lr")
        if lr is not None:
            points.append(SavedRate(step, lr, number(values, "weight_decay")))
    return points


def _has_initial_lr(series: SnapshotSeries, index: int) -> bool:
    for snapshot in reversed(series.snapshots):
        record = snapshot.optimizer
        if record is not None and index < len(record.groups):
            return "initial_lr" in record.groups[index].values
    return False


def _from_rows(
    rows: Sequence[ScheduleRow], start: int, stop: int, scale: float, source: str
) -> Timeline:
    lr, decay = _unknown(stop - start), _unknown(stop - start)
    for at, row in enumerate(rows):
        # Trainers count updates from 0 or from 1; a first row at 1 speaks of the first update too.
        first = 0 if at == 0 and row.step <= 1 else row.step
        where = slice(max(first - start, 0), None)
        if first < stop:
            lr[where] = row.lr * scale
            if row.weight_decay is not None:
                decay[where] = row.weight_decay
    return Timeline(start, lr, decay, source)


def _from_scheduler(
    series: SnapshotSeries, group: ParamGroup, saved: Sequence[SavedRate], start: int, stop: int
) -> Timeline | None:
    """Re-evaluates a saved torch scheduler, if that reproduces every saved rate."""
    found = [
        (step, state)
        for step, snapshot in zip(series.steps, series.snapshots, strict=True)
        if (state := find_state(snapshot.scalars)) is not None
    ]
    if not found or not saved:
        return None
    last = found[-1][1]
    formula = formula_of(last)
    bases = base_rates(last)
    tick = updates_per_tick([(step, int(state["last_epoch"])) for step, state in found])
    if formula is None or tick is None or bases is None or group.index >= len(bases):
        return None
    state = {**last, "_group": group.index}
    ticks = range(start // tick, (stop - 1) // tick + 2)
    try:
        base = float(bases[group.index])
        rates = {at: formula(state, base, at) for at in ticks}
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError):
        return None
    saved_at = {point.step: point.lr for point in saved}
    for step, seen in found:
        expected = rates.get(int(seen["last_epoch"]))
        rate = saved_at.get(step)
        if expected is None or rate is None:
            continue
        if not np.isclose(expected, rate, rtol=1e-6, atol=1e-12):
            return None
    table = np.array([rates[at] for at in ticks], dtype=np.float64)
    at_update = np.arange(start, stop) // tick - start // tick
    known = [point for point in saved if point.weight_decay is not None]
    decay = _unknown(stop - start)
    for at, point in enumerate(known):
        decay[0 if at == 0 else max(point.step - start, 0) :] = point.weight_decay
    return Timeline(start, table[at_update], decay, "learning-rate scheduler in the checkpoints")


def _with_decay(
    timeline: Timeline, group: ParamGroup, files: Timeline | None, declared: bool
) -> Timeline:
    """Fills weight decay: the declared schedule's, else the declared value, else the files'."""
    value = np.nan if group.weight_decay is None else group.weight_decay
    if declared and value != 0.0:
        own = _unknown(len(timeline.lr)) if timeline is files else timeline.decay
        decay = np.where(np.isnan(own), value, own)
    else:
        theirs = np.full(len(timeline.lr), value) if files is None else files.decay
        decay = np.where(np.isnan(timeline.decay), theirs, timeline.decay)
    return Timeline(timeline.start, timeline.lr, decay, timeline.source, timeline.uncertain)


def _contradictions(timeline: Timeline, saved: Sequence[SavedRate]) -> list[Note]:
    """A declared rate against the saved ones, either of which may be the next one."""
    for point in saved:
        at = point.step - timeline.start
        allowed = [timeline.lr[i] for i in (at - 1, at) if 0 <= i < len(timeline.lr)]
        allowed = [rate for rate in allowed if np.isfinite(rate)]
        if allowed and not any(np.isclose(point.lr, rate, rtol=1e-3) for rate in allowed):
            return [
                (
                    "SMD010",
                    f"{timeline.source} says a learning rate of {allowed[-1]:g} at step "
                    f"{point.step}, the checkpoint there says {point.lr:g}; the declared value "
                    "is used",
                    "Correct the declared schedule, or drop it to use the checkpoints' own.",
                )
            ]
    return []
