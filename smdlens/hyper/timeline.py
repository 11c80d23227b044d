"""The rate of every update of one parameter group, and what can be read off it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smdlens.hyper.records import RateSegment

Array = NDArray[np.float64]

# A cut is a jump of lr * weight_decay by this factor at one iteration (docs/json.md, "Words").
CUT_FACTOR = 1.5
MAX_SEGMENTS = 2000


@dataclass(frozen=True, slots=True)
class Timeline:
    """Learning rate and weight decay of updates start .. start + T - 1.

    Attributes:
        lr: float64 [T]; NaN where not known.
        decay: float64 [T]; NaN where not known.
        uncertain: Jumps placed at `step` (an absolute update) that may lie anywhere in
            [low, high]: (step, low, high).
        source: Who says so.
    """

    start: int
    lr: Array
    decay: Array
    source: str
    uncertain: tuple[tuple[int, int, int], ...] = ()


def _smooth_by_epoch(at: Array, ratio: Array) -> NDArray[np.bool_]:
    """Marks changes that belong to a smooth schedule evaluated once per epoch.

    Three or more successive, equally spaced changes in one direction by unequal factors.
    """
    smooth = np.zeros(len(at), dtype=bool)
    if len(at) < 3:
        return smooth
    gaps, logs = np.diff(at), np.log(ratio)
    trio = np.stack([logs[:-2], logs[1:-1], logs[2:]])
    one_way = (trio > 0).all(axis=0) | (trio < 0).all(axis=0)
    unequal = np.ptp(trio, axis=0) > 1e-6 * np.abs(trio).max(axis=0)
    found = (gaps[:-1] == gaps[1:]) & one_way & unequal
    for shift in range(3):
        smooth[shift : shift + len(found)] |= found
    return smooth


def warm_up_end(timeline: Timeline) -> int | None:
    """Step of the first maximum when the schedule climbs to it by 1.5x or more, else None."""
    lr = timeline.lr
    if len(lr) == 0 or np.isnan(lr).any():
        return None
    drop = np.flatnonzero(np.diff(lr) < -1e-12 * lr.max())
    climb_end = int(drop[0]) if len(drop) else len(lr) - 1
    top = int(np.argmax(lr[: climb_end + 1] >= lr[climb_end] * (1 - 1e-12)))
    if top == 0 or lr[top] < CUT_FACTOR * max(lr[0], 1e-300):
        return None
    return timeline.start + top


def cut_steps(timeline: Timeline) -> tuple[int, ...]:
    """Absolute steps of the cuts: the first update at the new rate of each.

    Changes before the end of a warm-up belong to the warm-up; after the first maximum an increase
    is always a jump (warm restart).
    """
    product = timeline.lr * np.where(np.isnan(timeline.decay), 1.0, timeline.decay)
    usable = np.isfinite(product) & (product > 0)
    both = usable[1:] & usable[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(both, product[1:] / product[:-1], 1.0)
    changes = np.flatnonzero(np.abs(np.log(ratio)) > 1e-9)
    end = warm_up_end(timeline)
    smooth = _smooth_by_epoch(changes.astype(np.float64), ratio[changes])
    steps: list[int] = []
    for position, is_smooth in zip(changes, smooth, strict=True):
        step, factor = timeline.start + int(position) + 1, float(ratio[position])
        if end is not None and step <= end:
            continue
        increase = factor >= CUT_FACTOR
        decrease = factor <= 1.0 / CUT_FACTOR and not is_smooth
        if increase or decrease:
            steps.append(step)
    return tuple(steps)


def to_segments(timeline: Timeline, group: int) -> tuple[RateSegment, ...]:
    """The timeline as at most `MAX_SEGMENTS` constant or linear pieces, in step order.

    Constant runs stay exact. A rate that changes at every update becomes linear pieces, cut finer
    until they fit to 1e-7 of the highest rate or the budget is used.
    """
    lr, decay = timeline.lr, timeline.decay
    if len(lr) == 0:
        return ()
    same = (lr[1:] == lr[:-1]) | (np.isnan(lr[1:]) & np.isnan(lr[:-1]))
    same &= (decay[1:] == decay[:-1]) | (np.isnan(decay[1:]) & np.isnan(decay[:-1]))
    starts = np.concatenate([[0], np.flatnonzero(~same) + 1])
    if len(starts) > MAX_SEGMENTS:
        return _linear_pieces(timeline, group)
    ends = np.concatenate([starts[1:], [len(lr)]])
    long_enough = (ends - starts).mean() >= 2.0
    if not long_enough:
        return _linear_pieces(timeline, group)
    return tuple(
        _segment(timeline, group, int(a), int(b), float(lr[a]), None)
        for a, b in zip(starts, ends, strict=True)
        if np.isfinite(lr[a])
    )


def _segment(
    timeline: Timeline, group: int, a: int, b: int, lr: float, lr_to: float | None
) -> RateSegment:
    decay = float(timeline.decay[a])
    return RateSegment(
        group=group,
        step_from=timeline.start + a,
        step_to=timeline.start + b,
        lr=lr,
        lr_to=lr_to,
        weight_decay=decay if np.isfinite(decay) else None,
        source=timeline.source,
    )


def _linear_pieces(timeline: Timeline, group: int) -> tuple[RateSegment, ...]:
    lr = timeline.lr
    total = len(lr)
    jumps = [step - timeline.start for step in cut_steps(timeline)]
    decay_changes = np.flatnonzero(
        (timeline.decay[1:] != timeline.decay[:-1])
        & ~(np.isnan(timeline.decay[1:]) & np.isnan(timeline.decay[:-1]))
    )
    edges = sorted({0, total, *jumps, *(int(at) + 1 for at in decay_changes)})
    end = warm_up_end(timeline)
    if end is not None:
        edges = sorted({*edges, end - timeline.start})
    budget = MAX_SEGMENTS - len(edges)
    tolerance = 1e-7 * float(np.nanmax(np.abs(lr)))
    pieces: list[RateSegment] = []
    for a, b in itertools.pairwise(edges):
        share = max(1, budget * (b - a) // total)
        pieces.extend(_split(timeline, group, a, b, share, tolerance))
    return tuple(pieces)


def _split(
    timeline: Timeline, group: int, a: int, b: int, share: int, tolerance: float
) -> list[RateSegment]:
    """Equal linear pieces of [a, b), as few of `share` as reach the tolerance."""
    lr = timeline.lr
    if not np.isfinite(lr[a:b]).all():
        return []
    count = 1
    while True:
        knots = np.unique(np.linspace(a, b, count + 1).round().astype(int))
        # The value "at" the end of a piece extrapolates its last step, so the piece is a line.
        ends = np.array([lr[k] if k < b else _beyond(lr, a, b) for k in knots])
        fitted = np.interp(np.arange(a, b), knots, ends)
        worst = float(np.abs(fitted - lr[a:b]).max())
        if worst <= tolerance or count >= share or count >= b - a:
            break
        count = min(share, count * 2, b - a)
    return [
        _segment(
            timeline,
            group,
            int(k0),
            int(k1),
            float(v0),
            None if v0 == v1 else max(float(v1), 0.0),
        )
        for k0, k1, v0, v1 in zip(knots[:-1], knots[1:], ends[:-1], ends[1:], strict=True)
    ]


def _beyond(lr: Array, a: int, b: int) -> float:
    return float(lr[b - 1] + (lr[b - 1] - lr[b - 2])) if b - a >= 2 else float(lr[b - 1])
