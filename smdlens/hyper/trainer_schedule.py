"""Schedules that Hugging Face Trainer makes from its options, evaluated again.

Its scheduler is a lambda of the update's number, of which a checkpoint keeps nothing; the options
in training_args.bin and the total in trainer_state.json say the same. The factors are those of the
documentation of transformers' `get_scheduler`, with `w` warm-up updates of `n` in all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smdlens.hyper.finite import finite
from smdlens.snapshots.records import SnapshotSeries

Array = NDArray[np.float64]
RateOf = Callable[[Array], Array]
SOURCE = "training_args.bin and trainer_state.json"


def trainer_rate(series: SnapshotSeries, base: float) -> RateOf | None:
    """The rate of update t of a group with base rate `base`, or None where nothing says it."""
    scalars = series.snapshots[-1].scalars
    args, state = scalars.get("training_args"), scalars.get("trainer_state")
    if not isinstance(args, Mapping) or not isinstance(state, Mapping):
        return None
    kind, total = args.get("lr_scheduler_type"), state.get("max_steps")
    if not isinstance(kind, str) or type(total) is not int or total < 1:
        return None
    warm_up = _warm_up(args, total)
    more = args.get("lr_scheduler_kwargs")
    return _factor(kind, warm_up, total, more if isinstance(more, Mapping) else {}, base)


def _warm_up(args: Mapping[str, Any], total: int) -> int:
    """Updates of warm-up: a number of them, or a share of the total under either option."""
    steps, ratio = finite(args.get("warmup_steps")), finite(args.get("warmup_ratio"))
    if steps is not None and steps >= 1:
        return int(steps)
    for share in (steps, ratio):
        if share is not None and 0 < share < 1:
            return math.ceil(total * share)
    return 0


def _factor(
    kind: str, warm_up: int, total: int, more: Mapping[str, Any], base: float
) -> RateOf | None:
    def number(key: str, default: float) -> float:
        value = finite(more.get(key))
        return default if value is None else value

    def rate(after: Callable[[Array], Array]) -> RateOf:
        def rate_of(t: Array) -> Array:
            climb = t / max(1, warm_up)
            return np.asarray(base * np.where(t < warm_up, climb, after(t)))

        return rate_of

    def share(t: Array) -> Array:
        return np.asarray((t - warm_up) / max(1, total - warm_up))

    floor = number("min_lr_rate", number("min_lr", 0.0) / base if base > 0 else 0.0)
    end = number("lr_end", 1e-7) / base if base > 0 else 0.0
    power = number("power", 1.0)
    scale = number("timescale", warm_up or 10_000)

    def cosine(t: Array, cycles: float) -> Array:
        return np.asarray(0.5 * (1.0 + np.cos(2.0 * math.pi * cycles * share(t))))

    def restarts(t: Array) -> Array:
        wave = 0.5 * (1.0 + np.cos(math.pi * (number("num_cycles", 1.0) * share(t) % 1.0)))
        return np.where(share(t) >= 1.0, 0.0, wave)

    def polynomial(t: Array) -> Array:
        left = np.clip(1.0 - share(t), 0.0, None)
        return np.asarray((1.0 - end) * left**power + end)

    half = number("num_cycles", 0.5)
    factors: Mapping[str, RateOf] = {
        "constant": np.ones_like,
        "constant_with_warmup": np.ones_like,
        "linear": lambda t: np.maximum((total - t) / max(1, total - warm_up), 0.0),
        "cosine": lambda t: np.maximum(cosine(t, half), 0.0),
        "cosine_with_min_lr": lambda t: np.maximum(cosine(t, half) * (1.0 - floor) + floor, 0.0),
        "cosine_with_restarts": restarts,
        "polynomial": polynomial,
        "inverse_sqrt": lambda t: 1.0 / np.sqrt(np.maximum(t + scale - warm_up, 1.0) / scale),
    }
    found = factors.get(kind.lower().rpartition(".")[2])
    if found is None:
        return None
    if kind.lower().endswith("constant"):
        return lambda t: np.full_like(t, base)
    return rate(found)
