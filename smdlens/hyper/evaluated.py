"""Rates evaluated from a formula: of a torch scheduler's state, of Trainer's or timm's options.

A formula is used only where it reproduces every rate that the files hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from smdlens.hyper import timm_schedule, trainer_schedule
from smdlens.hyper.finite import natural
from smdlens.hyper.optimizer import number
from smdlens.hyper.records import ParamGroup
from smdlens.hyper.saved_rates import SavedRate
from smdlens.hyper.scheduler_state import base_rates, find_state, formula_of, updates_per_tick
from smdlens.hyper.settings import Settings
from smdlens.hyper.timeline import Timeline
from smdlens.hyper.trainer_schedule import Array, RateOf
from smdlens.snapshots.records import SnapshotSeries

_TORCH = "learning-rate scheduler in the checkpoints"
_ROUNDING = 1e-6


def from_scheduler(
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
    state = {**last, "_group": group.index, "_values": _values(series, group.index)}
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
        if not np.isclose(expected, rate, rtol=_ROUNDING, atol=1e-12):
            return None
    table = np.array([rates[at] for at in ticks], dtype=np.float64)
    at_update = np.arange(start, stop) // tick - start // tick
    if not _usable(table):
        return None
    return Timeline(start, table[at_update], decay_of(saved, start, stop), _TORCH)


def from_options(
    series: SnapshotSeries,
    group: ParamGroup,
    saved: Sequence[SavedRate],
    logged: Mapping[int, float],
    settings: Sequence[Settings],
    start: int,
    stop: int,
) -> tuple[Timeline | None, str]:
    """Evaluates the schedule that the options describe, if saved and logged rates confirm it.

    Returns:
        The timeline, and the source whose formula the files contradict ("" where none is).
    """
    contradicted = ""
    for rate_of, source in _formulas(series, group, settings):
        # The log is of the first group.
        log = logged if group.index == 0 else {}
        if not saved and not log:
            continue
        rates = _confirmed(rate_of, saved, log, start, stop)
        if rates is None:
            contradicted = source
            continue
        return Timeline(start, rates, decay_of(saved, start, stop), source), ""
    return None, contradicted


def _confirmed(
    rate_of: RateOf, saved: Sequence[SavedRate], log: Mapping[int, float], start: int, stop: int
) -> Array | None:
    """Rates of updates start..stop-1, if the formula is sound and gives what the files hold."""
    try:
        # The options may hold anything: what does not come out as a rate is no rate.
        with np.errstate(all="ignore"):
            if not confirms(rate_of, [(p.step, p.lr) for p in saved], log):
                return None
            rates = rate_of(np.arange(start, stop, dtype=np.float64))
    except (ArithmeticError, ValueError, TypeError):
        return None
    return rates if _usable(rates) else None


def _formulas(
    series: SnapshotSeries, group: ParamGroup, settings: Sequence[Settings]
) -> list[tuple[RateOf, str]]:
    values = _values(series, group.index)
    base = number(values, "initial_lr")
    found: list[tuple[RateOf, str]] = []
    written = next((s.lr for s in settings if s.lr is not None), None)
    plain_base = base if base is not None else written
    if plain_base is not None:
        rate_of = trainer_schedule.trainer_rate(series, plain_base)
        if rate_of is not None:
            found.append((rate_of, trainer_schedule.SOURCE))
    timm = timm_schedule.timm_settings(settings)
    per_epoch = updates_per_tick(
        [
            (step, int(epoch))
            for step, snapshot in zip(series.steps, series.snapshots, strict=True)
            if (epoch := natural(snapshot.epoch)) is not None
        ]
    )
    if timm is not None and plain_base is not None and per_epoch is not None:
        # Layer-wise decay: the group keeps the common base and its own share of it.
        scale = number(values, "lr_scale")
        one = timm_schedule.timm_rate(timm, plain_base, per_epoch)
        if one is not None:
            found.append((_scaled(one, 1.0 if scale is None else scale), f"timm's {timm.source}"))
    return found


def _usable(rates: Array) -> bool:
    return bool(np.isfinite(rates).all() and (rates >= 0.0).all())


def _scaled(rate_of: RateOf, scale: float) -> RateOf:
    return lambda t: np.asarray(rate_of(t) * scale)


def confirms(
    rate_of: RateOf, saved: Sequence[tuple[int, float]], logged: Mapping[int, float]
) -> bool:
    """Whether a formula gives every saved and logged rate, each kind under one convention.

    A saved or logged rate at step s is that of update s - 1 or of update s; checkpoints and log
    may differ in which, but each keeps to one.
    """
    for points in (list(saved), list(logged.items())):
        if points and not any(_agrees(rate_of, points, shift) for shift in (0, 1)):
            return False
    return True


def _agrees(rate_of: RateOf, points: Sequence[tuple[int, float]], shift: int) -> bool:
    at = np.array([step - shift for step, _ in points], dtype=np.float64)
    rates = np.array([rate for _, rate in points], dtype=np.float64)
    made = at >= 0
    expected = rate_of(at[made])
    scale = float(np.abs(rates).max()) if len(rates) else 0.0
    close = np.isclose(expected, rates[made], rtol=_ROUNDING, atol=1e-9 * scale)
    return bool(close.all())


def decay_of(saved: Sequence[SavedRate], start: int, stop: int) -> Array:
    """Weight decay of each update; a change takes effect at the snapshot that first shows it."""
    decay = np.full(stop - start, np.nan)
    known = [point for point in saved if point.weight_decay is not None]
    for at, point in enumerate(known):
        decay[0 if at == 0 else max(point.step - start, 0) :] = point.weight_decay
    return decay


def _values(series: SnapshotSeries, index: int) -> Mapping[str, object]:
    for snapshot in reversed(series.snapshots):
        record = snapshot.optimizer
        if record is not None and index < len(record.groups):
            return record.groups[index].values
    return {}
