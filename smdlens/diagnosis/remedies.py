"""Remedies with their numbers worked out."""

from __future__ import annotations

import numpy as np
import polars as pl

from smdlens.diagnosis.records import Diagnosis, Stage
from smdlens.theory.relaxation import iterations_to_tolerance
from smdlens.vocabulary import OptimizerKind, State


def enough_for_stage(diagnosis: Diagnosis, stage: Stage, state: State) -> str | None:
    """What would have brought the stage to equilibrium: a longer stage, or more weight decay."""
    if state not in (State.APPROACHING_FROM_BELOW, State.APPROACHING_FROM_ABOVE):
        return None
    cut = next((d for d in diagnosis.decays if d.step == stage.step_from), None)
    if cut is None:
        return "Start from a norm nearer to equilibrium, or train this stage longer."
    rows = diagnosis.decay_tensors.filter(pl.col("decay") == cut.index)
    needed = rows.get_column("iterations_to_tolerance_measured").drop_nulls()
    if needed.is_empty():
        needed = rows.get_column("iterations_to_tolerance").drop_nulls()
    if needed.is_empty():
        return "Train this stage longer."
    iterations = float(np.median(needed.to_numpy()))
    available = stage.step_to - stage.step_from
    text = f"A longer stage ({_human(iterations)} iterations, it had {_human(available)})"
    more = _decay_factor(cut.factor, cut.tolerance, iterations, available)
    if more is not None:
        text += f", or weight decay x {more:.2g} in it"
    rescaling = _rescaling(diagnosis, cut.factor)
    if rescaling is not None:
        text += f", or at the cut {rescaling}"
    return text + "."


def _rescaling(diagnosis: Diagnosis, factor: float) -> str | None:
    """The rescaling that puts weights into the new equilibrium at once [Wan2021, §4.2].

    SGD: weights / k^(1/4) and momentum x k^(1/4); AdamW: weights / k^(1/2), first moment x k^(1/2),
    second moment x k (docs/theory.md §8).
    """
    kind = diagnosis.hyper.optimizer.kind
    if factor <= 1.0 or kind not in (OptimizerKind.SGD, OptimizerKind.ADAMW):
        return None
    if kind is OptimizerKind.ADAMW:
        root = factor**0.5
        return f"weights / {root:.3g}, exp_avg x {root:.3g} and exp_avg_sq x {factor:.3g}"
    root = factor**0.25
    if not diagnosis.hyper.optimizer.momentum:
        return f"weights / {root:.3g}"
    return f"weights / {root:.3g} and their momentum x {root:.3g}"


def _decay_factor(
    factor: float, tolerance: float, iterations: float, available: float
) -> float | None:
    """Weight decay that ends the stage in equilibrium, as a multiple of the one it had.

    More decay speeds up the relaxation and makes the norm too large by the same factor m more:
    ln(k m - 1) + const = m R n, solved by bisection for the same share of the law's time.
    """
    if factor <= 1.0 or available <= 0 or iterations <= available:
        return None
    rate = float(iterations_to_tolerance(factor, tolerance, 1.0)) / iterations
    low, high = 1.0, 1e6
    for _ in range(100):
        middle = float(np.sqrt(low * high))
        needed = float(iterations_to_tolerance(factor * middle, tolerance, rate * middle))
        low, high = (middle, high) if needed > available else (low, middle)
    # Beyond this it is no advice.
    return high if high <= 10.0 else None


def save_every(diagnosis: Diagnosis, stage: Stage) -> str | None:
    """How often to save so that the stage can be decided."""
    length = stage.step_to - stage.step_from
    if length < 12 or diagnosis.intervals.is_empty():
        return None
    return f"Save every {max(1, length // 12)} iterations or fewer in this stage."


def _human(count: float) -> str:
    if count >= 1e6:
        return f"{count / 1e6:.2g}M"
    if count >= 1e4:
        return f"{count / 1e3:.0f}k"
    return f"{count:.0f}"
