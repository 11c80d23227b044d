"""What the optimizer's buffers mean for a tensor: Adam's direction, and the gradient of one update.

torch's update rules (docs/theory.md): SGD keeps v = momentum * v + (1 - dampening)(g + decay * w);
Adam moves along mhat / (sqrt(vhat) + eps), with the largest vhat so far under amsgrad.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from smdlens.hyper.records import HyperParameters
from smdlens.motion.plan import GradientRule
from smdlens.snapshots.records import SnapshotSeries, TensorRef
from smdlens.vocabulary import OptimizerKind, Slot

# The frameworks' default, where no file says otherwise.
DEFAULT_ADAM_EPS = 1e-8


@dataclass(frozen=True, slots=True)
class AdamMoments:
    """Adam's moments of one tensor in one snapshot, with the factors that unbias them."""

    first: TensorRef
    second: TensorRef
    bias1: float
    bias2: float
    eps: float


def adam_moments(
    series: SnapshotSeries,
    index: int,
    name: str,
    slots: Mapping[str, TensorRef],
    hyper: HyperParameters,
) -> AdamMoments | None:
    """Adam's moments; None where they are not saved, or betas or the update count are not known.

    Args:
        series: The run.
        index: Which snapshot.
        name: Canonical tensor name.
        slots: The tensor's buffers in that snapshot, by `Slot`.
        hyper: Gives betas and epsilon.
    """
    snapshot = series.snapshots[index]
    first, second = slots.get(Slot.FIRST_MOMENT), slots.get(Slot.SECOND_MOMENT)
    if hyper.optimizer.amsgrad is not False:
        second = slots.get(Slot.MAX_SECOND_MOMENT, second)
    group = hyper.group_of(name)
    betas = (group.betas if group else None) or hyper.optimizer.betas
    updates = snapshot.optimizer.updates.get(name) if snapshot.optimizer else None
    if updates is None and series.axis == "steps":
        updates = snapshot.step
    if first is None or second is None or betas is None or not updates or updates < 1:
        return None
    bias1, bias2 = 1 - betas[0] ** updates, 1 - betas[1] ** updates
    if not (0 < bias1 <= 1 and 0 < bias2 <= 1):
        return None
    eps = hyper.optimizer.eps
    return AdamMoments(first, second, bias1, bias2, DEFAULT_ADAM_EPS if eps is None else eps)


def gradient_rule(
    series: SnapshotSeries, pair: int, name: str, hyper: HyperParameters
) -> GradientRule | None:
    """How weights and buffers of two snapshots one update apart give the gradient.

    None where they are not one update apart, the optimizer is not SGD, or its momentum or weight
    decay is not known. Nesterov keeps the same buffer, so it changes nothing here.
    """
    step_from, step_to = (s.step for s in series.snapshots[pair : pair + 2])
    group = hyper.group_of(name)
    if series.axis != "steps" or step_from is None or step_to is None or step_to - step_from != 1:
        return None
    if hyper.optimizer.kind != OptimizerKind.SGD or group is None:
        return None
    momentum = hyper.optimizer.momentum if group.momentum is None else group.momentum
    scheduled = float(hyper.rates(group.index, step_from, step_to)[1][0])
    decay = group.weight_decay if math.isnan(scheduled) else scheduled
    decoupled = hyper.optimizer.decoupled
    dampening = hyper.optimizer.dampening or 0.0
    if momentum is None or decay is None or decoupled is None or dampening >= 1:
        return None
    return GradientRule(momentum, dampening, 0.0 if decoupled else decay)
