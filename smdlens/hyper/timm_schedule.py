"""timm's schedules, evaluated again from its options: cosine, step, multistep, none.

timm saves no scheduler; the rate is a function of the epoch (or, with `sched_on_updates`, of the
update), and a checkpoint holds the rate that its epoch was trained with.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from smdlens.hyper.finite import finite
from smdlens.hyper.settings import Settings
from smdlens.hyper.trainer_schedule import Array, RateOf
from smdlens.snapshots.records import Snapshot

_Options = Mapping[str, Any]


def timm_settings(settings: Sequence[Settings]) -> Settings | None:
    """The options that are timm's by their names, or None."""
    telling = {"sched", "warmup_lr", "epochs"}
    return next((s for s in settings if telling <= set(s.values)), None)


def is_timm(snapshot: Snapshot) -> bool:
    """Whether timm's saver wrote the checkpoint: it keeps `arch` and `version`, no scheduler."""
    return {"arch", "version", "epoch"} <= set(snapshot.scalars) and not any(
        "sched" in key for key in snapshot.scalars
    )


def timm_rate(settings: Settings, base: float, per_epoch: int) -> RateOf | None:
    """The rate of update t for a group with base rate `base` and that many updates per epoch."""
    options = settings.values
    on_updates = options.get("sched_on_updates") is True
    unit = per_epoch if on_updates else 1
    at_time = _rate_at(options, base, unit)
    if at_time is None:
        return None

    def rate_of(t: Array) -> Array:
        times = t.astype(np.int64) // (1 if on_updates else per_epoch)
        distinct, where = np.unique(times, return_inverse=True)
        return np.array([at_time(int(time)) for time in distinct], dtype=np.float64)[where]

    return rate_of


def _rate_at(options: _Options, base: float, unit: int) -> Callable[[int], float] | None:
    """Rate at a time counted in epochs (unit 1) or updates (unit: updates per epoch)."""
    after = _after_warm_up(options, base, unit)
    if after is None:
        return None
    warm_up = int(_number(options, "warmup_epochs", 0) * unit)
    first = _number(options, "warmup_lr", 0.0)
    prefix = options.get("warmup_prefix") is True

    def rate_at(time: int) -> float:
        if time < warm_up:
            return first + time * (base - first) / warm_up
        return after(time - warm_up if prefix else time)

    return rate_at


def _after_warm_up(options: _Options, base: float, unit: int) -> Callable[[int], float] | None:
    kind = options.get("sched")
    gamma = _number(options, "decay_rate", 0.1)
    if kind == "cosine":
        period = int(_number(options, "epochs", 0) * unit)
        low, power = _number(options, "min_lr", 0.0), _number(options, "lr_k_decay", 1.0)
        if period < 1 or _number(options, "lr_cycle_limit", 1) != 1:
            return None

        def cosine(time: int) -> float:
            if time >= period:
                return low
            return low + (base - low) * (1.0 + math.cos(math.pi * (time / period) ** power)) / 2.0

        return cosine
    if kind == "step":
        length = int(_number(options, "decay_epochs", 0) * unit)
        return None if length < 1 else lambda time: base * gamma ** (time // length)
    if kind == "multistep":
        marks = options.get("decay_milestones")
        times = [finite(mark) for mark in marks] if isinstance(marks, (list, tuple)) else [None]
        if None in times:
            return None
        places = sorted(int(time * unit) for time in times if time is not None)
        return lambda time: float(base * gamma ** bisect.bisect_right(places, time + 1))
    return (lambda time: base) if kind == "none" else None


def _number(options: _Options, key: str, default: float) -> float:
    value = finite(options.get(key))
    return default if value is None or abs(value) > 1e9 else value
