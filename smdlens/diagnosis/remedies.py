"""Remedies with their numbers worked out."""

from __future__ import annotations

import numpy as np
import polars as pl

from smdlens.diagnosis.records import Diagnosis, Stage
from smdlens.diagnosis.update_rule import law_of
from smdlens.theory.relaxation import iterations_from_ratio, relaxation_rate
from smdlens.vocabulary import OptimizerKind, State


def iterations_needed(rows: pl.DataFrame) -> float | None:
    """How long a stage has to be for the tensors of the cut that opens it: median over tensors.

    Restarted from the ratio measured right after the cut, or, where most never arrived, from the
    one at the end of the stage.

    Args:
        rows: Those of one cut in a table of cuts and tensors.
    """
    arrived, available, missing = (
        rows[f"iterations_{what}"].drop_nulls() for what in ("observed", "available", "missing")
    )
    if len(available) and len(missing) and 2 * len(arrived) < len(rows):
        return float(available[0]) + float(np.median(missing.to_numpy()))
    measured = rows["iterations_to_tolerance_measured"].drop_nulls()
    return float(np.median(measured.to_numpy())) if len(measured) else None


def enough_for_stage(diagnosis: Diagnosis, stage: Stage, state: State) -> str | None:
    """What would have brought the stage to equilibrium: longer, more weight decay, rescaling.

    Each is offered with its number, median over the tensors, and only where the relaxation law says
    that it works (`enough`).
    """
    if state not in (State.APPROACHING_FROM_BELOW, State.APPROACHING_FROM_ABOVE):
        return None
    cut = next((d for d in diagnosis.decays if d.step == stage.step_from), None)
    if cut is None:
        return _longer(diagnosis, stage)
    rows = diagnosis.decay_tensors.filter(pl.col("decay") == cut.index)
    available = stage.step_to - stage.step_from
    offers = []
    longer = _median(rows, "enough_iterations")
    if longer is not None:
        offers.append(f"a longer stage ({_human(longer)} iterations, it had {_human(available)})")
    more = _median(rows, "enough_weight_decay_factor")
    if more is not None:
        offers.append(f"weight decay x {more:.2g} in it")
    divisor = _median(rows, "enough_weight_divisor")
    rescaling = None if divisor is None else _rescaling(diagnosis, divisor)
    if rescaling is not None:
        offers.append(f"at the cut {rescaling}")
    text = ", or ".join(offers)
    return f"{text[0].upper()}{text[1:]}." if text else None


def _median(rows: pl.DataFrame, column: str) -> float | None:
    """Median over the tensors; None where most of them have none."""
    known = rows.get_column(column).drop_nulls()
    return float(np.median(known.to_numpy())) if 2 * len(known) > len(rows) else None


def _longer(diagnosis: Diagnosis, stage: Stage) -> str:
    """How much longer a stage without a cut in front of it would have had to be."""
    advice = "Start from a norm nearer to equilibrium, or train this stage longer."
    rows = diagnosis.stage_tensors.filter(
        (pl.col("stage") == stage.index)
        & pl.col("state").str.starts_with("approaching")
        & (pl.col("ratio") > 0.0)
        & (pl.col("lr_to") > 0.0)
        & (pl.col("weight_decay") > 0.0)
    )
    group = diagnosis.hyper.group_of(rows.item(0, "tensor")) if len(rows) else None
    law = None if group is None else law_of(diagnosis.hyper.optimizer, group)
    if law is None or law.is_l2_adam:
        return advice
    columns = [rows.get_column(name).to_numpy() for name in ("lr_to", "weight_decay", "ratio")]
    rate = relaxation_rate(columns[0], columns[1], law.momentum, law.family)
    missing = float(np.median(iterations_from_ratio(columns[2], diagnosis.tolerance, rate)))
    length = stage.step_to - stage.step_from
    if not np.isfinite(missing) or missing < 1.0:
        return advice
    held = "hold its last rate" if stage.lr_from != stage.lr_to else "train this stage"
    return (
        f"Start from a norm nearer to equilibrium, or {held} for {_human(missing)} more "
        f"iterations (the stage had {_human(length)})."
    )


def _rescaling(diagnosis: Diagnosis, divisor: float) -> str | None:
    """The rescaling that puts weights into the new equilibrium at once [Wan2021, §4.2].

    Buffers go along: SGD's momentum times what weights are divided by; AdamW's first moment too,
    and its second moment times the square (docs/theory.md §8).
    """
    kind = diagnosis.hyper.optimizer.kind
    if kind not in (OptimizerKind.SGD, OptimizerKind.ADAMW):
        return None
    weights = f"weights / {divisor:.3g}"
    if kind is OptimizerKind.ADAMW:
        return f"{weights}, exp_avg x {divisor:.3g} and exp_avg_sq x {divisor**2:.3g}"
    if not diagnosis.hyper.optimizer.momentum:
        return weights
    return f"{weights} and their momentum x {divisor:.3g}"


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
    return f"{count:,.0f}"
