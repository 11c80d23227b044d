"""From the rates that checkpoints happen to hold to the rate of every update.

A checkpoint holds either the rate that made its last update or, when a scheduler stepped before
saving, already the next one (docs/theory.md, "the rate in a checkpoint"). So a change seen between
two snapshots lies anywhere from the first of them to the second, both ends included. torch's
schedulers leave `initial_lr` in the group; with it the next rate is the likelier reading. The
placement is a first guess with its bounds; diagnosis/ confirms or moves it with the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smdlens.hyper.spline import interpolate
from smdlens.hyper.timeline import CUT_FACTOR, Timeline

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SavedRate:
    """Learning rate and weight decay found in the snapshot at `step`."""

    step: int
    lr: float
    weight_decay: float | None


def timeline_from_saved(
    points: Sequence[SavedRate], start: int, stop: int, next_rate: bool, source: str
) -> Timeline:
    """Rates of updates start..stop-1 from the rates in the snapshots.

    Isolated changes become jumps at a snapshot; three or more changes in a row that are not equal
    factors of 1.5 or more are a smooth schedule and are interpolated by a cubic spline.

    Args:
        points: In step order, at least one.
        start: First update of interest (the first snapshot's step).
        stop: One past the last update.
        next_rate: The saved rate is the one the next update would use.
        source: Provenance to record.
    """
    if not next_rate:
        points = _without_first(points)
    steps = np.array([point.step for point in points], dtype=np.int64)
    rates = np.array([point.lr for point in points], dtype=np.float64)
    # The update at which each saved rate is in force.
    at = steps.astype(np.float64) if next_rate else np.maximum(steps - 1.0, 0.0)
    total = stop - start
    lr = np.empty(total)
    # Outside the snapshots that hold a rate, the nearest one is the only information.
    lr[: max(int(steps[0]) - start, 0)] = rates[0]
    lr[max(int(steps[-1]) - start, 0) :] = rates[-1]
    uncertain: list[tuple[int, int, int]] = []
    smooth = _smooth_intervals(steps, rates)
    for i in range(len(steps) - 1):
        a, b = int(steps[i]), int(steps[i + 1])
        where = slice(a - start, b - start)
        if rates[i] == rates[i + 1] or (smooth[i] and next_rate and b - a == 1):
            lr[where] = rates[i]
        elif smooth[i]:
            lr[where] = _smooth_piece(at, rates, smooth, i, np.arange(a, b, dtype=np.float64))
        else:
            cut = b if next_rate else a
            lr[where] = rates[i] if next_rate else rates[i + 1]
            uncertain.append((cut, a, b))
    if len(steps) >= 2 and smooth[0] and steps[0] > start:
        before = np.arange(start, steps[0], dtype=np.float64)
        lr[: len(before)] = np.maximum(_smooth_piece(at, rates, smooth, 0, before, clip=False), 0.0)
    decay = _decay(points, start, total)
    return Timeline(start, lr, decay, source, tuple(uncertain))


def _without_first(points: Sequence[SavedRate]) -> Sequence[SavedRate]:
    """Leaves out the rate of step 0 where it made no update and is not the one that follows."""
    if len(points) >= 3 and points[0].step == 0 and points[0].lr != points[1].lr:
        return points[1:]
    return points


def _smooth_intervals(steps: NDArray[np.int64], rates: Array) -> NDArray[np.bool_]:
    """Which intervals between points belong to a smooth change of the rate."""
    count = len(rates) - 1
    if count < 1:
        return np.zeros(0, dtype=bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(rates[1:] / rates[:-1])
    # To or from a rate of zero (the end of a cosine, the start of a warm-up) is a change like any.
    logs = np.nan_to_num(logs, nan=0.0, posinf=np.inf, neginf=-np.inf)
    changed = logs != 0.0
    smooth = np.zeros(count, dtype=bool)
    i = 0
    while i < count:
        if not changed[i]:
            i += 1
            continue
        j = i
        while j < count and changed[j]:
            j += 1
        run = logs[i:j]
        finite = run[np.isfinite(run)]
        equal = len(finite) == len(run) and float(np.ptp(run)) <= 1e-3 * float(np.abs(run).max())
        jumps = equal and float(np.abs(run).max()) >= np.log(CUT_FACTOR) - 1e-12
        if j - i >= 3 and not jumps:
            smooth[i:j] = True
            # After the first maximum an increase by 1.5x is a restart, whatever surrounds it.
            top = int(np.argmax(rates))
            for k in range(max(i, top), j):
                if logs[k] >= np.log(CUT_FACTOR):
                    smooth[k] = False
        i = j
    return smooth


def _smooth_piece(
    x: Array,
    rates: Array,
    smooth: NDArray[np.bool_],
    i: int,
    at: Array,
    clip: bool = True,
) -> Array:
    """Rates of the updates `at` of interval i, from the spline of the monotone run it lies in.

    Args:
        x: Update at which each rate is in force, [k].
        rates: Saved rates, [k].
        smooth: Intervals that change smoothly, [k - 1].
        i: Interval.
        at: Updates wanted.
        clip: Keep the result between the interval's two rates.
    """
    top = i + 1 if rates[i + 1] > rates[i] else i
    turned = _around_peak(x, rates, smooth, top, i, at)
    if turned is not None:
        return turned
    low, high = _monotone_run(rates, smooth, i)
    # The highest point lies on one side of the turn only; it would bend the other side's spline.
    if rates[i + 1] > rates[i] and high - i >= 2 and _turns(rates, smooth, high):
        high -= 0 if _on_line(x, rates, high) else 1
    if rates[i + 1] < rates[i] and i - low >= 1 and _turns(rates, smooth, low):
        low += 1 if _on_line(x, rates, low) else 0
    knots, values = x[low : high + 1], rates[low : high + 1]
    if len(knots) > 40:
        # Far knots do not matter to a cubic spline; a window keeps the system small.
        window = slice(max(0, i - low - 19), i - low + 21)
        knots, values = knots[window], values[window]
    found = interpolate(knots, values, at)
    if not clip:
        return found
    # One update beyond the interval's last knot may pass the saved rate by a step of the schedule.
    inside = (at >= x[i]) & (at <= x[i + 1])
    bounds = min(rates[i], rates[i + 1]), max(rates[i], rates[i + 1])
    return np.where(inside, np.clip(found, *bounds), np.maximum(found, 0.0))


def _monotone_run(rates: Array, smooth: NDArray[np.bool_], i: int) -> tuple[int, int]:
    """Indices of the first and last point of the monotone smooth run that holds interval i."""
    rising = rates[i + 1] > rates[i]
    low, high = i, i + 1
    while low > 0 and smooth[low - 1] and (rates[low] > rates[low - 1]) == rising:
        low -= 1
    while high < len(rates) - 1 and smooth[high] and (rates[high + 1] > rates[high]) == rising:
        high += 1
    return low, high


def _turns(rates: Array, smooth: NDArray[np.bool_], top: int) -> bool:
    """True at the highest point between a warm-up and a decline of three or more points each."""
    if top < 2 or top > len(rates) - 4 or not (smooth[top - 2] and smooth[top - 1] and smooth[top]):
        return False
    return bool(rates[top - 2] < rates[top - 1] < rates[top] > rates[top + 1])


def _on_line(x: Array, rates: Array, top: int) -> bool:
    """True where the point `top` continues the straight line of the two before it."""
    line = slice(top - 2, top)
    straight = interpolate(x[line], rates[line], x[top : top + 1])[0]
    return bool(np.isclose(straight, rates[top], rtol=1e-5))


def _around_peak(
    x: Array, rates: Array, smooth: NDArray[np.bool_], top: int, i: int, at: Array
) -> Array | None:
    """Rates of an interval beside the highest point of a straight warm-up and a smooth decline.

    The schedule turns somewhere beside the highest saved rate: before it when that rate lies below
    the warm-up's line, else after it. There the rate is the lower of the line and the decline.
    Returns None where there is no such peak (interval elsewhere, fewer than three points a side).
    """
    if not _turns(rates, smooth, top):
        return None
    after = _on_line(x, rates, top)
    if i != (top if after else top - 1):
        return None
    first_down = top + 1 if after else top
    _, high = _monotone_run(rates, smooth, first_down)
    if high - first_down < 2:
        return None
    line, stop = slice(top - 2, top), min(high, first_down + 40) + 1
    up = interpolate(x[line], rates[line], at)
    down = interpolate(x[first_down:stop], rates[first_down:stop], at)
    return np.asarray(np.minimum(up, down))


def _decay(points: Sequence[SavedRate], start: int, total: int) -> Array:
    """Weight decay of each update; a change takes effect at the snapshot that first shows it."""
    decay = np.full(total, np.nan)
    known = [point for point in points if point.weight_decay is not None]
    for i, point in enumerate(known):
        at = 0 if i == 0 else max(point.step - start, 0)
        decay[at:] = point.weight_decay
    return decay
