"""The learning rates that Hugging Face Trainer logs into trainer_state.json between checkpoints.

Trainer of some versions logs the rate that made the update, that of others the rate after the
scheduler has stepped. Which of the two is decided by the checkpoints: their parameter groups hold
the rate after the step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from smdlens.hyper.finite import natural
from smdlens.hyper.saved_rates import SavedRate, timeline_from_saved
from smdlens.hyper.timeline import Timeline
from smdlens.snapshots.records import SnapshotSeries

SOURCE = "learning-rate log in trainer_state.json"


def logged_rates(series: SnapshotSeries) -> dict[int, float]:
    """Step -> logged learning rate of the first parameter group; later checkpoints win."""
    found: dict[int, float] = {}
    last = series.steps[-1]
    for snapshot in series.snapshots:
        state = snapshot.scalars.get("trainer_state")
        history = state.get("log_history") if isinstance(state, Mapping) else None
        for entry in history if isinstance(history, list) else ():
            if not isinstance(entry, Mapping):
                continue
            step, rate = entry.get("step"), natural(entry.get("learning_rate"))
            if type(step) is int and 1 <= step <= last and rate is not None:
                found[step] = rate
    return dict(sorted(found.items()))


def logs_next_rate(logged: Mapping[int, float], saved: Sequence[SavedRate]) -> bool:
    """Whether the log holds the rate after the step, told by the checkpoints' own next rates."""
    both = [(logged[p.step], p.lr) for p in saved if p.step in logged]
    return bool(both) and all(np.isclose(a, b, rtol=1e-6, atol=1e-15) for a, b in both)


def timeline_from_log(
    logged: Mapping[int, float], saved: Sequence[SavedRate], start: int, stop: int
) -> Timeline:
    """Rates of updates start..stop-1 of the first group, between the logged and saved ones."""
    points = rates_in_force(logged, saved)
    first, last = min(start, points[0].step), max(stop, points[-1].step)
    whole = timeline_from_saved(points, first, last, True, SOURCE)
    # Each point is known to be in force at its update, so a jump lies after the earlier one.
    jumps = [
        (cut, max(low + 1, start), high)
        for cut, low, high in whole.uncertain
        if low + 1 < high and start < cut < stop
    ]
    inside = slice(start - first, stop - first)
    return Timeline(start, whole.lr[inside], whole.decay[inside], SOURCE, tuple(jumps))


def rates_in_force(logged: Mapping[int, float], saved: Sequence[SavedRate]) -> list[SavedRate]:
    """Logged and saved rates, each at the update that it is in force for.

    Args:
        logged: Step -> rate, of the first group.
        saved: What the first group's checkpoints hold: the rate of the next update.
    """
    shift = 0 if logs_next_rate(logged, saved) else 1
    found = {step - shift: SavedRate(step - shift, rate, None) for step, rate in logged.items()}
    found |= {point.step: point for point in saved}
    return [found[at] for at in sorted(found) if at >= 0]
