"""The tables of a report as arrays over tensors and intervals, for figures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from smdlens.report.summary import invariant_names
from smdlens.vocabulary import OptimizerKind

if TYPE_CHECKING:
    from smdlens.report.build import Report

Array = NDArray[np.float64]

_COLUMNS = (
    "norm_from",
    "norm_to",
    "one_step_angle_rad",
    "one_step_low",
    "one_step_high",
    "expected_one_step_angle_rad",
    "relaxed_one_step_angle_rad",
    "ratio",
    "ratio_p05",
    "ratio_p95",
    "unit_gradient_rms",
)
# (|w| / |w*|)^m relaxes linearly (docs/theory.md §8): m = 4 where the gradient goes as 1/|w|.
_NORM_POWER = {OptimizerKind.SGD: 4.0}


@dataclass(frozen=True)
class PlotData:
    """A run as arrays; NaN where not known.

    Attributes:
        axis: "steps" or "epochs".
        tensors: Names, rows of the arrays, in file order.
        invariant: Which of them are scale-invariant.
        steps: Steps of the snapshots; interval i is steps[i] to steps[i + 1].
        values: Column of the interval table -> [tensors, intervals].
        stages: (first step, last step) of each stage.
        cuts: Steps at which the rate jumps.
        tolerance: Half-width of the band that counts as equilibrium.
        power: Exponent m of the norm's relaxation.
    """

    axis: str
    tensors: tuple[str, ...]
    invariant: NDArray[np.bool_]
    steps: Array
    values: dict[str, Array]
    stages: tuple[tuple[int, int], ...]
    cuts: tuple[int, ...]
    tolerance: float
    power: float

    def __getitem__(self, column: str) -> Array:
        return self.values[column]

    def row(self, tensor: str) -> int:
        """Row of a tensor."""
        return self._rows[tensor]

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.tensors)}

    @property
    def middles(self) -> Array:
        """Middle of each interval, where its angle belongs."""
        return (self.steps[:-1] + self.steps[1:]) / 2.0

    def line(self, values: Array) -> tuple[Array, Array]:
        """A value per interval at the interval's middle, broken where the rate jumps."""
        at = np.searchsorted(self.middles, np.array(self.cuts, dtype=np.float64))
        return np.insert(self.middles, at, np.nan), np.insert(values, at, np.nan)

    @property
    def norms(self) -> Array:
        """Norm at every snapshot, [tensors, snapshots]."""
        return np.concatenate([self["norm_from"][:, :1], self["norm_to"]], axis=1)

    @cached_property
    def equilibrium_norms(self) -> Array:
        """Norm at which each interval's unit gradient would be in equilibrium."""
        middle = np.sqrt(self["norm_from"] * self["norm_to"])
        return np.asarray(middle * self["ratio"] ** (2.0 / self.power))

    @cached_property
    def relaxed_norms(self) -> Array:
        """Norm that the relaxation curve implies for the interval's equilibrium norm."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = self["relaxed_one_step_angle_rad"] / self["expected_one_step_angle_rad"]
            return np.asarray(self.equilibrium_norms * ratio ** (-2.0 / self.power))


def plot_data(report: Report) -> PlotData:
    """Spreads the interval table over tensors and intervals."""
    frame, steps = report.diagnosis.intervals, np.array(report.series.steps, dtype=np.int64)
    tensors = tuple(frame["tensor"].unique(maintain_order=True).to_list())
    rows = {name: row for row, name in enumerate(tensors)}
    row = np.array([rows[name] for name in frame["tensor"]], dtype=np.int64)
    column = np.searchsorted(steps, frame["step_to"].to_numpy()) - 1
    values = {}
    for name in _COLUMNS:
        array = np.full((len(tensors), max(len(steps) - 1, 0)), np.nan)
        array[row, column] = frame[name].to_numpy()
        values[name] = array
    bound = set(invariant_names(report.diagnosis))
    return PlotData(
        axis=report.series.axis,
        tensors=tensors,
        invariant=np.array([name in bound for name in tensors], dtype=bool),
        steps=steps.astype(np.float64),
        values=values,
        stages=tuple((s.step_from, s.step_to) for s in report.diagnosis.stages),
        cuts=tuple(d.step for d in report.diagnosis.decays),
        tolerance=report.diagnosis.tolerance,
        power=_NORM_POWER.get(report.hyper.optimizer.kind, 2.0),
    )
