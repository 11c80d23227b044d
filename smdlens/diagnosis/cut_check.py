"""Rates and decays that are not the recorded ones, and averaged weights, from weights alone.

`cut_test` reads off every cut how much decay there is; this says what follows from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smdlens.diagnosis.balance import balance_of
from smdlens.diagnosis.buffer_check import Contradiction, Mismatch
from smdlens.diagnosis.cut_test import decay_shown
from smdlens.diagnosis.measure_group import GroupMeasurement
from smdlens.hyper.records import HyperParameters
from smdlens.symmetry.records import ScaleGroups

# Readings on real networks lie within 0.93 and 1.07; beyond these something else ran.
_LOW, _HIGH = 0.6, 1.6
# Below this nothing of the decay acts.
_NONE = 0.25
# Norms of averages grow after a cut: what wandered, and cancelled out, has come to rest.
_GROWING = -0.1
# AdamW's steps have a known length: mean square per entry in equilibrium on real networks.
_STEP2 = 1.5
# Rate and decay are told apart where one of them lies within this factor of the recorded one.
_TOLD = np.log(1.4)


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one tensor showed at one cut; `step2` is NaN but for AdamW."""

    tensor: str
    cut: int
    shown: float
    step2: float


def cut_contradictions(
    measured: list[GroupMeasurement], groups: ScaleGroups, hyper: HyperParameters
) -> tuple[Contradiction, ...]:
    """Scale-invariant tensors without buffers whose norms fall unlike the record after a cut.

    Args:
        measured: The parameter groups; those whose buffers tell more are left out.
        groups: Scale groups.
        hyper: Hyper-parameters with every cut placed.
    """
    readings = [r for part in measured for r in _readings(part, groups, hyper)]
    shown = np.array([r.shown for r in readings])
    if len(readings) >= 2 and np.mean(shown < _NONE) > 0.5 and np.median(shown) < _GROWING:
        names = dict.fromkeys(r.tensor for r in readings)
        what = f"their norms grow after the cut at step {readings[0].cut}"
        return tuple(Contradiction(n, Mismatch.AVERAGED, 0.0, None, what) for n in names)
    found: dict[str, Contradiction] = {}
    for reading in readings:
        verdict = _verdict(reading)
        if verdict is not None and reading.tensor not in found:
            found[reading.tensor] = verdict
    return tuple(found.values())


def _readings(
    part: GroupMeasurement, groups: ScaleGroups, hyper: HyperParameters
) -> list[_Reading]:
    balance = balance_of(part)
    if balance is not None and np.isfinite(balance.trend).any():
        return []
    found = []
    for cut in hyper.cuts:
        shown = decay_shown(part, cut)
        before = part.tracks.steps[1:] <= cut.step_low
        for row, name in enumerate(part.tracks.tensors):
            if shown is None or not groups.tensors[name].on_sphere:
                continue
            step2 = np.nan
            if part.law is not None and part.law.family == "adamw" and before.any():
                drive = part.steps.drive[row, before][-8:]
                step2 = float(np.median(drive) / part.tracks.numel[row])
            if np.isfinite(shown[row]):
                found.append(_Reading(name, cut.step, float(shown[row]), step2))
    return found


def _verdict(reading: _Reading) -> Contradiction | None:
    product, name = reading.shown, reading.tensor
    if _LOW <= product <= _HIGH:
        return None
    evidence = f"its norm after the cut at step {reading.cut} shows that"
    if product < _NONE:
        return Contradiction(name, Mismatch.NO_DECAY_ACTS, product, reading.cut, evidence)
    if np.isfinite(reading.step2) and reading.step2 > 0.0:
        # rate x decay is the product, rate / decay the mean square of the steps.
        rate = float(np.sqrt(product * reading.step2 / _STEP2))
        decay = product / rate
        evidence = f"its norm, and how it falls after the cut at step {reading.cut}, show that"
        if abs(np.log(decay)) < _TOLD:
            return Contradiction(name, Mismatch.OTHER_RATE, rate, None, evidence)
        if abs(np.log(rate)) < _TOLD:
            return Contradiction(name, Mismatch.OTHER_DECAY, decay, None, evidence)
    return Contradiction(name, Mismatch.OTHER_PRODUCT, product, None, evidence)
