"""The theory's assumptions held against the run, each with its number and its limit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.measure_group import GroupMeasurement
from smdlens.diagnosis.records import Assumption, Stage
from smdlens.diagnosis.theorem_audit import covered
from smdlens.symmetry.records import ScaleGroups
from smdlens.theory.theorems import oscillation_limit

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

    lr * decay << 1, lr * decay < (1 - sqrt(a))^2 and a > 1/2 (with momentum), whether the theorems
    speak of the optimizer at all, and exact scale invariance (epsilon leak) per tensor. None where
    the numbers are not known. Those about gradients are `theorem_audit.audit_theorems`.
    """
    found: list[Assumption] = []
    for stage in stages:
        own = np.flatnonzero(owner == stage.index)
        for part in measured:
            bound = [
                row
                for row, name in enumerate(part.tracks.tensors)
                if groups.tensors[name].on_sphere
            ]
            if not bound or part.has_decay is False:
                continue
            found.extend(_of_settings(part, own, stage))
            found.extend(_exact_invariance(part, row, own, stage) for row in bound)
    return tuple(found)


def _of_settings(
    part: GroupMeasurement, own: NDArray[np.intp], stage: Stage
) -> Iterator[Assumption]:
    """What hyper-parameters alone decide."""
    law, product = part.law, _largest_product(part, own)
    unknown = "" if product is not None else "learning rate or weight decay is not known"
    theorem = 1 if law is None or law.momentum == 0.0 else 2
    yield Assumption(
        "lr_decay_small",
        None if product is None else product < SMALL_LR_DECAY,
        product,
        SMALL_LR_DECAY,
        None,
        stage.index,
        unknown or "terms of higher order are then below one percent",
        f"Wan2021, Thm {theorem}, assumption {1 if theorem == 1 else 5}",
    )
    if law is None:
        return
    if law.momentum > 0.0 and not law.adaptive:
        limit = float(oscillation_limit(law.momentum))
        yield Assumption(
            "lr_decay_below_oscillation",
            None if product is None else product < limit,
            product,
            limit,
            None,
            stage.index,
            unknown or "beyond it norms oscillate instead of relaxing",
            "Wan2021, Thm 2, assumption 5",
        )
    sgd = covered(part)
    yield Assumption(
        "theorem_covers_optimizer",
        sgd,
        None,
        None,
        None,
        stage.index,
        "plain SGD or heavy ball with coupled weight decay"
        if sgd
        else "Theorems 1 to 3 are about SGD and heavy ball with coupled decay; the equilibrium of "
        "this optimizer is derived elsewhere, and their assumptions are not audited",
        "Wan2021, Eq 7, 10-11",
    )
    if sgd and law.momentum > 0.0:
        yield Assumption(
            "momentum_above_half",
            law.momentum > 0.5,
            law.momentum,
            0.5,
            None,
            stage.index,
            "Theorem 2 is proved for momentum between 1/2 and 1; its formulas hold below too",
            "Wan2021, Thm 2",
        )


def _largest_product(part: GroupMeasurement, own: NDArray[np.intp]) -> float | None:
    known = own[part.rates.known[own]]
    if len(known) == 0:
        return None
    return float((part.rates.lr[:, known] * part.rates.decay[:, known]).max())


_NO_VARIANCE = "no running variance behind it, or gains of unknown motion"
_ADAPTIVE = "Adam and Lion move gains by normalised steps: how far epsilon pulls does not show"


def _exact_invariance(
    part: GroupMeasurement, row: int, own: NDArray[np.intp], stage: Stage
) -> Assumption:
    leak = part.ratios.kappa_ratio[row, own]
    measurable = np.isfinite(part.tracks.between["leak_shift"][row, own])
    adaptive = part.law is not None and part.law.adaptive
    if adaptive:
        # The gains' motion tells no gradient: the leak is not known, rather than none.
        measurable = np.zeros_like(measurable)
    unknown = _NO_VARIANCE if not adaptive else _ADAPTIVE
    value = float(np.abs(leak[measurable]).max()) if measurable.any() else None
    return Assumption(
        "exact_scale_invariance",
        None if value is None else value < SMALL_LEAK,
        value,
        SMALL_LEAK,
        part.tracks.tensors[row],
        stage.index,
        "" if value is not None else unknown,
        "derived in docs/theory.md §10",
    )
