"""What a training log says of a run besides its weights: numbers over steps or epochs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from smdlens.errors import InputError

Axis = Literal["steps", "epochs"]


@dataclass(frozen=True, slots=True)
class MetricColumn:
    """One logged quantity.

    Attributes:
        name: As the log has it.
        axis: What `at` counts; for epochs, how many were finished.
        at: Where each value was logged, increasing.
        values: The values, finite.
    """

    name: str
    axis: Axis
    at: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class MetricLog:
    """A log file.

    Attributes:
        path: As given.
        kind: "CSV", "TensorBoard" or "trainer_state.json".
        columns: Every column that holds a number, in the file's order.
        notes: What a person should know of the reading.
    """

    path: str
    kind: str
    columns: tuple[MetricColumn, ...]
    notes: tuple[str, ...] = ()


def column(name: str, axis: Axis, points: dict[float, float]) -> MetricColumn:
    """A column from value by place, in order of the place."""
    order = sorted(points)
    return MetricColumn(name, axis, tuple(order), tuple(points[at] for at in order))


def bad_metrics(path: str, message: str, expected: str, found: str, remedy: str) -> InputError:
    """The error for a log that cannot be used."""
    return InputError(message, subject=path, expected=expected, found=found, remedy=remedy)
