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
    if first is None or second is None:
        return None
    group = hyper.group_of(name)
    betas = (group.betas if group else None) or hyper.optimizer.betas
    updates = snapshot.optimizer.updates.get(name) if snapshot.optimizer else None
    if updates is None and series.axis == "steps":
        updates = snapshot.step
    if betas is None or not updates or updates < 1:
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

    None where they are not one update apart, the optimizer is neither SGD nor Adam, or its momentum
    or weight decay is not known. Nesterov keeps the same buffer, so it changes nothing here.
    """
    step_from, step_to = (s.step for s in series.snapshots[pair : pair + 2])
    if series.axis != "steps" or step_from is None or step_to is None or step_to - step_from != 1:
        return None
    group = hyper.group_of(name)
    if group is None:
        return None
    scheduled = float(hyper.rates(group.index, step_from, step_to)[1][0])
    decay = group.weight_decay if math.isnan(scheduled) else scheduled
    kind, decoupled = hyper.optimizer.kind, hyper.optimizer.decoupled
    if kind in (OptimizerKind.ADAM, OptimizerKind.ADAMW):
        betas = group.betas or hyper.optimizer.betas
        seen = [
            s.optimizer.updates.get(name) if s.optimizer else None
            for s in series.snapshots[pair : pair + 2]
        ]
        if None not in seen and seen[1] != (seen[0] or 0) + 1:
            return None
        momentum = dampening = None if betas is None else betas[0]
        decoupled = kind is OptimizerKind.ADAMW
    elif kind is OptimizerKind.SGD:
        momentum = hyper.optimizer.momentum if group.momentum is None else group.momentum
        dampening = hyper.optimizer.dampening or 0.0
    else:
        return None
    if momentum is None or dampening is None or dampening >= 1:
        return None
    if decoupled is None or (decay is None and not decoupled):
        return None
    return GradientRule(momentum, dampening, 0.0 if decoupled or decay is None else decay)
