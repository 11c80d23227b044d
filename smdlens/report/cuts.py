"""Every cut in a few numbers: the curve after it, medians over tensors, and what was missing."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from smdlens.diagnosis.records import Decay, Diagnosis
from smdlens.report import numbers


@dataclass(frozen=True, slots=True)
class CutSummary:
    """Medians over the scale-invariant tensors of one cut; None where not known.

    Attributes:
        decay: The cut.
        steps: Middles of the intervals after it.
        ratios: Measured ratio in each, None where unknown.
        predicted: Predicted with the unit gradient of before.
        renewed: Predicted with the one measured after it.
        gradient: Unit gradient after over before.
        needed: Iterations to tolerance with the old gradient.
        needed_renewed: With the new one.
        missing: Iterations still missing at the end of the stage.
        enough: Length of stage, multiple of the weight decay and divisor of the weights that would
            have been enough.
    """

    decay: Decay
    steps: tuple[float, ...]
    ratios: tuple[float | None, ...]
    predicted: tuple[float | None, ...]
    renewed: tuple[float | None, ...]
    gradient: float | None
    needed: float | None
    needed_renewed: float | None
    missing: float | None
    enough: tuple[float | None, float | None, float | None]

    @property
    def ends(self) -> tuple[float | None, float | None]:
        """First and last measured ratio."""
        known = [ratio for ratio in self.ratios if ratio is not None]
        return (known[0], known[-1]) if known else (None, None)

    @property
    def predicted_ends(self) -> tuple[float | None, float | None]:
        """First and last ratio of the law with the old unit gradient."""
        known = [ratio for ratio in self.predicted if ratio is not None]
        return (known[0], known[-1]) if known else (None, None)

    @property
    def gradient_text(self) -> str:
        """`x 0.92, which costs 53 iterations`; empty where the change is not known."""
        if self.gradient is None:
            return ""
        text = f"x {self.gradient:.2f}"
        if self.needed is None or self.needed_renewed is None:
            return text
        more = round(self.needed_renewed - self.needed)
        if more == 0:
            return text
        word = "costs" if more > 0 else "saves"
        return f"{text}, which {word} {numbers.humanised(abs(more))} iterations"

    @property
    def enough_text(self) -> str:
        """`3.5k iterations, weight decay x 2.5, weights / 1.5`; empty where it was enough."""
        longer, more, divisor = self.enough
        parts = [] if longer is None else [f"{numbers.humanised(longer)} iterations"]
        parts += [] if more is None else [f"weight decay x {more:.2g}"]
        parts += [] if divisor is None else [f"weights / {divisor:.3g} at the cut"]
        return ", or ".join(parts)


def summarise_cuts(diagnosis: Diagnosis) -> tuple[CutSummary, ...]:
    """One summary per cut, in order."""
    return tuple(_summary(diagnosis, decay) for decay in diagnosis.decays)


def _summary(diagnosis: Diagnosis, decay: Decay) -> CutSummary:
    rows = diagnosis.decay_tensors.filter(pl.col("decay") == decay.index)
    curve = diagnosis.decay_curves.filter(pl.col("decay") == decay.index)

    def middle(column: str) -> float | None:
        known = rows.get_column(column).drop_nulls()
        value = known.median()
        return value if isinstance(value, float) and 2 * len(known) > len(rows) else None

    return CutSummary(
        decay=decay,
        steps=tuple(curve["step"].to_list()),
        ratios=tuple(curve["ratio"].to_list()),
        predicted=tuple(curve["ratio_predicted"].to_list()),
        renewed=tuple(curve["ratio_predicted_new_gradient"].to_list()),
        gradient=middle("unit_gradient_change"),
        needed=middle("iterations_to_tolerance"),
        needed_renewed=middle("iterations_to_tolerance_new_gradient"),
        missing=middle("iterations_missing"),
        enough=(
            middle("enough_iterations"),
            middle("enough_weight_decay_factor"),
            middle("enough_weight_divisor"),
        ),
    )
