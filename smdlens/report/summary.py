"""What the tables say in a few numbers and one sentence: per stage, and for the whole run."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import polars as pl

from smdlens.diagnosis.records import Decay, Diagnosis, Stage
from smdlens.diagnosis.remedies import iterations_needed
from smdlens.report.frames import decay_frame, stage_frame
from smdlens.vocabulary import HELD_STATES, NOT_HELD_STATES, State
from smdlens.wording import count_of


@dataclass(frozen=True, slots=True)
class EquilibriumCounts:
    """Counts of (scale-invariant tensor, stage) pairs by what became of the equilibrium."""

    held: int = 0
    not_held: int = 0
    undetermined: int = 0
    not_applicable: int = 0

    @property
    def total(self) -> int:
        """All pairs."""
        return self.held + self.not_held + self.undetermined + self.not_applicable


@dataclass(frozen=True, slots=True)
class Reequilibration:
    """How long a stage's tensors need after the cut that opens it: medians over tensors.

    `needed` is restarted from the ratio measured right after the cut, or, where most never arrived,
    from the one at the end of the stage; `arrived` of `tensors` came within tolerance inside the
    stage, the median of them after `observed` iterations.
    """

    decay: Decay
    tensors: int
    needed: float | None
    available: int | None
    arrived: int
    observed: float | None


@dataclass(frozen=True, slots=True)
class StageSummary:
    """One stage over its scale-invariant tensors: states, median ratio and its quartiles."""

    stage: Stage
    counts: EquilibriumCounts
    states: tuple[tuple[State, int], ...]
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    reequilibration: Reequilibration | None

    @property
    def dominant(self) -> State | None:
        """The state of most tensors."""
        return self.states[0][0] if self.states else None

    @property
    def dominant_not_held(self) -> State | None:
        """The state of most tensors that are out of equilibrium."""
        return next((s for s, _ in self.states if s in NOT_HELD_STATES), None)


def count_states(states: Counter[State]) -> EquilibriumCounts:
    """Sorts states into held, not held, undetermined and not applicable."""
    held = sum(n for s, n in states.items() if s in HELD_STATES)
    not_held = sum(n for s, n in states.items() if s in NOT_HELD_STATES)
    undetermined = states[State.UNDETERMINED]
    rest = sum(states.values()) - held - not_held - undetermined
    return EquilibriumCounts(held, not_held, undetermined, rest)


def invariant_rows(diagnosis: Diagnosis) -> pl.DataFrame:
    """The stage table's rows of scale-invariant tensors."""
    return stage_frame(diagnosis).filter(pl.col("tensor").is_in(invariant_names(diagnosis)))


def invariant_names(diagnosis: Diagnosis) -> tuple[str, ...]:
    """Names with the motion of a vector on a sphere; a set measured as one has its first name."""
    return tuple(n for n, t in diagnosis.groups.tensors.items() if t.on_sphere)


def invariant_count(diagnosis: Diagnosis) -> str:
    """`6 of 14 tensors scale-invariant, 4 of them in 2 sets`."""
    tensors = diagnosis.groups.tensors
    sets = sets_measured(diagnosis)
    inside = sum(1 + len(others) for others in sets.values())
    count = len(invariant_names(diagnosis)) - len(sets) + inside
    text = f"{count} of {count_of(len(tensors), 'tensor')} scale-invariant"
    if not sets:
        return text
    return f"{text}, {inside} of them in {count_of(len(sets), 'set')}"


def sets_measured(diagnosis: Diagnosis) -> dict[str, tuple[str, ...]]:
    """First member of each jointly invariant set measured as one vector -> the other members."""
    found: dict[str, list[str]] = {}
    for name, tensor in diagnosis.groups.tensors.items():
        if tensor.measured_under is not None:
            others = found.setdefault(tensor.measured_under, [])
            if name != tensor.measured_under:
                others.append(name)
    return {first: tuple(others) for first, others in found.items()}


def summarise_stages(diagnosis: Diagnosis) -> tuple[StageSummary, ...]:
    """One summary per stage, in order."""
    rows = invariant_rows(diagnosis)
    decays = decay_frame(diagnosis)
    names = set(invariant_names(diagnosis))
    opened_by = _opening_decays(diagnosis)
    result = []
    for stage in diagnosis.stages:
        here = rows.filter(pl.col("stage") == stage.index)
        states = Counter(State(s) for s in here["state"].to_list())
        ratios = here["ratio"].drop_nulls().drop_nans()
        decay = opened_by.get(stage.index)
        result.append(
            StageSummary(
                stage=stage,
                counts=count_states(states),
                states=tuple(states.most_common()),
                ratio=_number(ratios.median()),
                ratio_low=_number(ratios.quantile(0.25, "linear")),
                ratio_high=_number(ratios.quantile(0.75, "linear")),
                reequilibration=_reequilibration(decay, decays, names) if decay else None,
            )
        )
    return tuple(result)


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _opening_decays(diagnosis: Diagnosis) -> dict[int, Decay]:
    """Which cut opens which stage: the stage that starts nearest to it."""
    later = diagnosis.stages[1:]
    return {
        min(later, key=lambda s: abs(s.step_from - decay.step)).index: decay
        for decay in diagnosis.decays
        if later
    }


def _reequilibration(decay: Decay, decays: pl.DataFrame, names: set[str]) -> Reequilibration:
    rows = decays.filter((pl.col("decay") == decay.index) & pl.col("tensor").is_in(sorted(names)))
    available = rows["iterations_available"].drop_nulls()
    observed = rows["iterations_observed"].drop_nulls()
    return Reequilibration(
        decay=decay,
        tensors=rows.height,
        needed=iterations_needed(rows),
        available=int(available[0]) if available.len() else None,
        arrived=observed.len(),
        observed=_number(observed.median()),
    )


def total_counts(stages: tuple[StageSummary, ...]) -> EquilibriumCounts:
    """Sums the counts of all stages."""
    return EquilibriumCounts(
        held=sum(s.counts.held for s in stages),
        not_held=sum(s.counts.not_held for s in stages),
        undetermined=sum(s.counts.undetermined for s in stages),
        not_applicable=sum(s.counts.not_applicable for s in stages),
    )
