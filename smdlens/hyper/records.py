"""What the trainer used, per parameter group and step, and who says so."""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from smdlens.vocabulary import OptimizerKind


@dataclass(frozen=True, slots=True)
class Optimizer:
    """The update rule of the run. None means not known.

    `decoupled` is True where weight decay multiplies the weights by 1 - lr*wd (SGDW, AdamW),
    False where it is added to the gradient; `momentum` is also Adam's beta1 via `betas`.
    """

    kind: OptimizerKind
    name: str | None
    momentum: float | None
    nesterov: bool | None
    dampening: float | None
    betas: tuple[float, float] | None
    eps: float | None
    decoupled: bool | None
    amsgrad: bool | None
    source: str


@dataclass(frozen=True, slots=True)
class ParamGroup:
    """Parameters that share hyper-parameters. `weight_decay` None means not known."""

    index: int
    name: str
    tensors: tuple[str, ...]
    weight_decay: float | None
    momentum: float | None
    betas: tuple[float, float] | None
    source: str


@dataclass(frozen=True, slots=True)
class RateSegment:
    """Rate in force for step_from <= t < step_to: `lr`, or linear from lr to lr_to."""

    group: int
    step_from: int
    step_to: int
    lr: float
    lr_to: float | None
    weight_decay: float | None
    source: str


@dataclass(frozen=True, slots=True)
class RateCut:
    """A jump of lr * weight_decay by 1.5x or more; the first update at the new rate is `step`.

    Known exactly when step_low == step_high; otherwise the jump lies somewhere in
    step_low <= step <= step_high and `step` is the most plausible place.
    """

    step: int
    step_low: int
    step_high: int


@dataclass(frozen=True)
class HyperParameters:
    """Resolved hyper-parameters of a run.

    Attributes:
        optimizer: The update rule.
        groups: Parameter groups; a tensor is in at most one.
        schedule: Per group, contiguous segments in step order; empty when the rate is unknown.
        cuts: Jumps shared by all groups, in step order.
        warm_up_end: Step of the first maximum of a schedule that climbs to it, else None.
        notes: Contradictions and other observations, ready to become findings: (rule, text,
            remedy) with a stable rule id.
        epsilon: Epsilon of the normalisation layers.
    """

    optimizer: Optimizer
    groups: tuple[ParamGroup, ...]
    schedule: tuple[RateSegment, ...]
    cuts: tuple[RateCut, ...] = ()
    warm_up_end: int | None = None
    notes: tuple[tuple[str, str, str], ...] = ()
    epsilon: float = 1e-5
    epsilon_source: str = "assumed (the frameworks' default)"

    @cached_property
    def _index_of(self) -> Mapping[str, int]:
        return {name: at for at, group in enumerate(self.groups) for name in group.tensors}

    @cached_property
    def _segments(self) -> Mapping[int, tuple[RateSegment, ...]]:
        found: dict[int, list[RateSegment]] = {}
        for segment in self.schedule:
            found.setdefault(segment.group, []).append(segment)
        return {group: tuple(segments) for group, segments in found.items()}

    def group_of(self, tensor: str) -> ParamGroup | None:
        """The group that holds `tensor`, or None."""
        index = self._index_of.get(tensor)
        return None if index is None else self.groups[index]

    def rates(
        self, group: int, step_from: int, step_to: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Learning rate and weight decay of updates step_from..step_to-1 of a group.

        Returns:
            Two float64 arrays [step_to - step_from]; NaN where not known.
        """
        lr = np.full(step_to - step_from, np.nan)
        decay = np.full(step_to - step_from, np.nan)
        segments = self._segments.get(group, ())
        first = bisect.bisect_right(segments, step_from, key=lambda segment: segment.step_to)
        for segment in segments[first:]:
            if segment.step_from >= step_to:
                break
            low, high = max(segment.step_from, step_from), min(segment.step_to, step_to)
            where = slice(low - step_from, high - step_from)
            lr[where] = segment.lr
            if segment.lr_to is not None:
                t = np.arange(low, high, dtype=np.float64) - segment.step_from
                span = segment.step_to - segment.step_from
                lr[where] += (segment.lr_to - segment.lr) * t / span
            if segment.weight_decay is not None:
                decay[where] = segment.weight_decay
        return lr, decay
