"""The rate of every update of every group: declared, evaluated, logged, or saved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from smdlens.hyper import trainer_log
from smdlens.hyper.evaluated import decay_of, from_options, from_scheduler
from smdlens.hyper.groups import spared_groups
from smdlens.hyper.optimizer import SAVED, number
from smdlens.hyper.options import DeclaredHyperParameters
from smdlens.hyper.records import ParamGroup
from smdlens.hyper.saved_rates import SavedRate, timeline_from_saved
from smdlens.hyper.schedule_csv import ScheduleRow, read_schedule
from smdlens.hyper.scheduler_state import find_state
from smdlens.hyper.settings import Settings
from smdlens.hyper.timeline import Array, Timeline
from smdlens.hyper.timm_schedule import is_timm
from smdlens.snapshots.records import SnapshotSeries

Note = tuple[str, str, str]


def resolve_timelines(
    series: SnapshotSeries,
    groups: Sequence[ParamGroup],
    declared: DeclaredHyperParameters,
    settings: Sequence[Settings],
    notes: list[Note],
) -> Iterator[tuple[int, Timeline]]:
    """Timeline of each group (by its place in `groups`) over the run; none on an epoch axis.

    The files' own schedule is, in this order: a torch scheduler's state, the trainer's options,
    its log of rates, the rates in the checkpoints. Formulas must reproduce what is saved. One
    timeline after another: all at once would be a number per update for each of many groups.

    Args:
        series: The run.
        groups: Its parameter groups.
        declared: Options and configuration.
        settings: What the trainer wrote down.
        notes: Where contradictions are added, once the last timeline has been taken.
    """
    if series.axis == "epochs" or len(series.snapshots) < 1:
        return
    start, stop = series.steps[0], series.steps[-1]
    rows = read_schedule(declared.schedule) if declared.schedule is not None else ()
    found: list[Note] = []
    saved_of = [_saved_rates(series, group.index) for group in groups]
    from_files = _FilesRates(series, settings, start, stop)
    spared = spared_groups(series)
    # A declared schedule speaks of the main rate; groups with a multiplier keep theirs.
    reference = max((points[-1].lr for points in saved_of if points), default=0.0)
    for at, (group, saved) in enumerate(zip(groups, saved_of, strict=True)):
        files = from_files.timeline(group, saved)
        scale = saved[-1].lr / reference if saved and reference > 0.0 else 1.0
        if rows:
            timeline = _from_rows(rows, start, stop, scale, declared.said_by("schedule"))
            if group.index in spared:
                timeline = replace(timeline, decay=_unknown(stop - start))
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
            found.extend(_contradictions(timeline, saved))
        is_declared = declared.weight_decay is not None and group.index not in spared
        yield at, _with_decay(timeline, group, files, is_declared)
    notes.extend(dict.fromkeys([*found, *from_files.notes]))


class _FilesRates:
    """What the files say about the rate of each group, best source first."""

    def __init__(
        self, series: SnapshotSeries, settings: Sequence[Settings], start: int, stop: int
    ) -> None:
        self._series, self._settings = series, settings
        self._start, self._stop = start, stop
        self._logged = trainer_log.logged_rates(series)
        self._first = _saved_rates(series, 0)
        self._from_log: Timeline | None = None
        self.notes: list[Note] = []

    def timeline(self, group: ParamGroup, saved: Sequence[SavedRate]) -> Timeline | None:
        """Rates of a group, or None where the files hold none."""
        series, start, stop = self._series, self._start, self._stop
        if stop <= start:
            return None
        found = from_scheduler(series, group, saved, start, stop)
        if found is not None:
            return found
        found, contradicted = from_options(
            series, group, saved, self._logged, self._settings, start, stop
        )
        if contradicted:
            self.notes.append(_not_followed(contradicted))
        if found is not None:
            return found
        found = self._scaled_log(group, saved)
        if found is None and saved:
            next_rate = _saves_next_rate(series, group.index)
            found = timeline_from_saved(saved, start, stop, next_rate, SAVED)
        return found

    def _scaled_log(self, group: ParamGroup, saved: Sequence[SavedRate]) -> Timeline | None:
        """The logged rates, which are the first group's, at the scale of another group."""
        if not self._logged:
            return None
        ratio = _constant_ratio(saved, self._first)
        if group.index != 0 and ratio is None:
            return None
        if self._from_log is None:
            self._from_log = trainer_log.timeline_from_log(
                self._logged, self._first, self._start, self._stop
            )
        log = self._from_log
        scale = 1.0 if group.index == 0 or ratio is None else ratio
        decay = decay_of(saved, self._start, self._stop)
        return Timeline(log.start, log.lr * scale, decay, log.source, log.uncertain)


def _constant_ratio(saved: Sequence[SavedRate], first: Sequence[SavedRate]) -> float | None:
    """Rate of a group over that of the first, where it never changes."""
    rates = {point.step: point.lr for point in first if point.lr > 0.0}
    ratios = [point.lr / rates[point.step] for point in saved if point.step in rates]
    if not ratios or not np.allclose(ratios, ratios[0], rtol=1e-6, atol=0.0):
        return None
    return ratios[0]


def _not_followed(source: str) -> Note:
    return (
        "SMD010",
        f"the schedule that {source} describes does not give the learning rates in the "
        "checkpoints; theirs are used",
        "Nothing, if the run was resumed with other options; else give --schedule FILE.",
    )


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
        if lr is not None and lr >= 0.0:
            points.append(SavedRate(step, lr, number(values, "weight_decay")))
    return points


def _saves_next_rate(series: SnapshotSeries, index: int) -> bool:
    """Whether saved rates are those of the next update: a scheduler stepped before saving.

    torch's schedulers leave `initial_lr` in the group, all but ReduceLROnPlateau, whose state is
    saved beside. timm steps its own after saving.
    """
    last = series.snapshots[-1]
    if is_timm(last):
        return False
    state = find_state(last.scalars)
    if state is not None and "patience" in state:
        return True
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


def _with_decay(
    timeline: Timeline, group: ParamGroup, files: Timeline | None, declared: bool
) -> Timeline:
    """Fills weight decay: the declared schedule's, else the declared value, else the files'."""
    value = np.nan if group.weight_decay is None else group.weight_decay
    if declared:
        own = _unknown(len(timeline.lr)) if timeline is files else timeline.decay
        decay = np.where(np.isnan(own), value, own)
    else:
        theirs = np.full(len(timeline.lr), value) if files is None else files.decay
        decay = np.where(np.isnan(timeline.decay), theirs, timeline.decay)
    return Timeline(timeline.start, timeline.lr, decay, timeline.source, timeline.uncertain)


def _contradictions(timeline: Timeline, saved: Sequence[SavedRate]) -> list[Note]:
    """Declared rates and decays against the saved ones, which may be those of the next update."""
    rates = [(point.step, point.lr) for point in saved]
    decays = [(p.step, p.weight_decay) for p in saved if p.weight_decay is not None]
    said, start = timeline.source, timeline.start
    return [
        *_contradiction("learning rate", said, start, timeline.lr, rates),
        *_contradiction("weight decay", said, start, timeline.decay, decays),
    ]


def _contradiction(
    what: str, said: str, start: int, declared: Array, saved: Sequence[tuple[int, float]]
) -> list[Note]:
    for step, value in saved:
        at = step - start
        allowed = [declared[i] for i in (at - 1, at) if 0 <= i < len(declared)]
        allowed = [own for own in allowed if np.isfinite(own)]
        if allowed and not any(np.isclose(value, own, rtol=1e-3) for own in allowed):
            return [
                (
                    "SMD010",
                    f"{said} says a {what} of {allowed[-1]:g} at step {step}, the checkpoint there "
                    f"says {value:g}; the declared value is used",
                    "Correct the declared schedule, or drop it to use the checkpoints' own.",
                )
            ]
    return []
