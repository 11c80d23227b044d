"""The theory's assumptions held against the run, each with its number and its limit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.measure_group import GroupMeasurement
from smdlens.diagnosis.records import Assumption, Stage
from smdlens.symmetry.records import ScaleGroups
from smdlens.vocabulary import INVARIANT_ROLES

# "Much smaller than 1" in figures: terms of order lr * decay are then below 1%.
SMALL_LR_DECAY = 0.01
# A leak of this share of the decay shifts the equilibrium angle by 5%.
SMALL_LEAK = 0.1


def audit_assumptions(
    measured: list[GroupMeasurement],
    stages: tuple[Stage, ...],
    owner: NDArray[np.int64],
    groups: ScaleGroups,
) -> tuple[Assumption, ...]:
    """Assumptions of Theorems 1 and 2 that need hyper-parameters or norms only, per stage.

    lr * decay << 1, lr * decay < (1 - sqrt(a))^2 (with momentum), and exact scale invariance
    (epsilon leak) per tensor. None where the numbers are not known.
    """
    found: list[Assumption] = []
    for stage in stages:
        own = np.flatnonzero(owner == stage.index)
        for part in measured:
            bound = [
                row
                for row, name in enumerate(part.tracks.tensors)
                if groups.tensors[name].role in INVARIANT_ROLES
            ]
            if not bound or part.has_decay is False:
                continue
            product = _largest_product(part, own)
            small = None if product is None else product < SMALL_LR_DECAY
            found.append(
                Assumption("lr_decay_small", small, product, SMALL_LR_DECAY, None, stage.index)
            )
            if part.law is not None and part.law.momentum > 0.0 and not part.law.adaptive:
                limit = (1.0 - float(np.sqrt(part.law.momentum))) ** 2
                below = None if product is None else product < limit
                found.append(
                    Assumption(
                        "lr_decay_below_oscillation", below, product, limit, None, stage.index
                    )
                )
            found.extend(_exact_invariance(part, row, own, stage) for row in bound)
    return tuple(found)


def _largest_product(part: GroupMeasurement, own: NDArray[np.intp]) -> float | None:
    known = own[part.rates.known[own]]
    if len(known) == 0:
        return None
    return float((part.rates.lr[:, known] * part.rates.decay[:, known]).max())


def _exact_invariance(
    part: GroupMeasurement, row: int, own: NDArray[np.intp], stage: Stage
) -> Assumption:
    leak = part.ratios.kappa_ratio[row, own]
    measurable = np.isfinite(part.tracks.between["leak_shift"][row, own])
    value = float(np.abs(leak[measurable]).max()) if measurable.any() else None
    return Assumption(
        "exact_scale_invariance",
        None if value is None else value < SMALL_LEAK,
        value,
        SMALL_LEAK,
        part.tracks.tensors[row],
        stage.index,
    )
