"""The rate of every update of one parameter group, and what can be read off it."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from smdlens.hyper.records import RateSegment

Array = NDArray[np.float64]

# A cut is a jump of lr * weight_decay by this factor at one iteration (docs/json.md, "Words").
CUT_FACTOR = 1.5
MAX_SEGMENTS = 2000
_ROUNDING = 1e-9
# Linear pieces are cut finer until they fit to this share of the highest rate.
_FIT = 1e-7


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
        # 0.15 to 0.1 is a factor of 1.5, whatever the last bit says.
        increase = factor >= CUT_FACTOR - _ROUNDING
        decrease = 1.0 / factor >= CUT_FACTOR - _ROUNDING and not is_smooth
        if increase or decrease:
            steps.append(step)
    return tuple(steps)


def to_segments(timeline: Timeline, group: int) -> tuple[RateSegment, ...]:
    """The timeline as at most `MAX_SEGMENTS` constant or linear pieces, in step order.

    Constant runs stay exact. A rate that changes at every update becomes linear pieces, the worst
    of them cut at its worst place until all fit to 1e-7 of the highest rate or the budget is used:
    kinks are found, and pieces are short where the schedule bends.
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
    lr, decay = timeline.lr, timeline.decay
    known = np.isfinite(lr)
    changes = np.flatnonzero(
        ((decay[1:] != decay[:-1]) & ~(np.isnan(decay[1:]) & np.isnan(decay[:-1])))
        | (known[1:] != known[:-1])
    )
    jumps = [step - timeline.start for step in cut_steps(timeline)]
    edges = sorted({0, len(lr), *jumps, *(int(at) + 1 for at in changes)})
    worst_first = [_chord(lr, a, b, b) for a, b in itertools.pairwise(edges) if known[a]]
    heapq.heapify(worst_first)
    tolerance = _FIT * float(np.nanmax(np.abs(lr), initial=0.0))
    while worst_first and len(worst_first) < MAX_SEGMENTS and -worst_first[0].error > tolerance:
        piece = heapq.heappop(worst_first)
        heapq.heappush(worst_first, _chord(lr, piece.a, piece.worst, piece.stop))
        heapq.heappush(worst_first, _chord(lr, piece.worst, piece.b, piece.stop))
    return tuple(
        _segment(timeline, group, p.a, p.b, float(lr[p.a]), p.end if p.end != lr[p.a] else None)
        for p in sorted(worst_first, key=lambda piece: piece.a)
    )


class _Chord(NamedTuple):
    """Updates [a, b) as a line from lr[a] to `end`; `error` is negative so that a heap sorts."""

    error: float
    a: int
    b: int
    stop: int
    worst: int
    end: float


def _chord(lr: Array, a: int, b: int, stop: int) -> _Chord:
    """The line through the samples at a and b; at `stop` a jump follows, the line goes on there."""
    end = float(lr[b]) if b < stop else max(_beyond(lr, a, b), 0.0)
    miss = np.abs(lr[a] + (end - lr[a]) / (b - a) * np.arange(b - a) - lr[a:b])
    worst = int(miss.argmax())
    return _Chord(-float(miss[worst]), a, b, stop, a + max(worst, 1), end)


def _beyond(lr: Array, a: int, b: int) -> float:
    return float(lr[b - 1] + (lr[b - 1] - lr[b - 2])) if b - a >= 2 else float(lr[b - 1])
