"""Contradictions between weights and momentum, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl

from smdlens.diagnosis.buffer_check import Contradiction, Mismatch
from smdlens.diagnosis.records import Finding, Stage
from smdlens.vocabulary import Outcome, State

# Why a state is not given where weights and momentum contradict each other.
REASONS: Mapping[Mismatch, str] = {
    Mismatch.AVERAGED: "the weights look like an averaged (EMA/SWA) copy: analyse the raw ones",
    Mismatch.NO_DECAY_ACTS: "its weight decay does not act: give the decay that really ran",
    Mismatch.OTHER_RATE: "its learning rate is not the recorded one: give the one that ran",
    Mismatch.OTHER_DECAY: "its weight decay is not the recorded one: give the one that ran",
    Mismatch.RATE_OR_DECAY: "its learning rate or weight decay is not the recorded one",
    Mismatch.OTHER_PRODUCT: "its learning rate x weight decay is not the recorded one",
    Mismatch.RADIAL_MOMENTUM: "its momentum has a radial part: is it really scale-invariant?",
}


# States that say why momentum and norms disagree, or that do not rest on their agreement.
_EXPLAINED = frozenset(
    {
        State.FROZEN,
        State.PURE_DECAY,
        State.PERIODIC,
        State.DIVERGING,
        State.FIXED_NORM,
        State.NO_DECAY,
        State.EPSILON_LIMITED,
    }
)


def with_doubts(
    states: pl.DataFrame, stages: tuple[Stage, ...], found: tuple[Contradiction, ...]
) -> tuple[pl.DataFrame, tuple[Contradiction, ...]]:
    """States after the contradictions had their say, and the contradictions that stand.

    A tensor whose momentum contradicts its weights gets no state from where that began, unless one
    of its states explains the contradiction.
    """
    explained = set(
        states.filter(pl.col("state").is_in([state.value for state in _EXPLAINED]))
        .get_column("tensor")
        .to_list()
    )
    standing = tuple(item for item in found if item.tensor not in explained)
    for item in standing:
        doubted = [stage.index for stage in stages if stage.step_to > (item.step or 0)]
        here = (pl.col("tensor") == item.tensor) & pl.col("stage").is_in(doubted)
        states = states.with_columns(
            pl.when(here)
            .then(pl.lit(State.UNDETERMINED.value))
            .otherwise(pl.col("state"))
            .alias("state"),
            pl.when(here)
            .then(pl.lit(REASONS[item.kind]))
            .otherwise(pl.col("reason"))
            .alias("reason"),
        )
    return states, standing


def contradiction_findings(found: tuple[Contradiction, ...]) -> Iterator[Finding]:
    """One finding per tensor, or one for a run whose weights are averaged."""
    averaged = [item for item in found if item.kind is Mismatch.AVERAGED]
    if averaged:
        yield Finding(
            "SMD040",
            Outcome.WARN,
            "weights",
            f"the weights of most of the {len(averaged)} scale-invariant tensors look like an "
            f"averaged (EMA/SWA) copy: {averaged[0].evidence}",
            "Choose the raw weights with --weights KEY, or save them beside the optimizer. If they "
            "are raw, the learning rate was less than a third of the recorded one.",
        )
        return
    for item in found:
        if item.kind is Mismatch.NO_DECAY_ACTS:
            yield Finding(
                "SMD041",
                Outcome.WARN,
                item.tensor,
                f"no weight decay acts on it from step {item.step} on, though one is recorded "
                f"({item.evidence})",
                "Check which parameter group it is in.",
            )
        elif item.kind is Mismatch.OTHER_RATE:
            yield Finding(
                "SMD042",
                Outcome.WARN,
                item.tensor,
                f"it moves as if its learning rate were {item.value:.2g} times the recorded one "
                f"({item.evidence})",
                "Check for a learning-rate multiplier on this layer.",
            )
        elif item.kind is Mismatch.OTHER_DECAY:
            yield Finding(
                "SMD044",
                Outcome.WARN,
                item.tensor,
                f"its weight decay was {item.value:.2g} times the recorded one ({item.evidence})",
                "Give the weight decay that ran with --weight-decay, or check its group's.",
            )
        elif item.kind is Mismatch.OTHER_PRODUCT:
            yield Finding(
                "SMD046",
                Outcome.WARN,
                item.tensor,
                f"its learning rate x weight decay was {item.value:.2g} times the recorded product "
                f"({item.evidence})",
                "Check for a multiplier on this layer, and which weight decay ran.",
            )
        elif item.kind is Mismatch.RATE_OR_DECAY:
            yield Finding(
                "SMD045",
                Outcome.WARN,
                item.tensor,
                f"its weight decay was {item.value:.2g} times the recorded one, or its learning "
                f"rate {1.0 / item.value:.2g} times: in equilibrium the two look alike",
                "Check both; snapshots after a cut of the learning rate would tell them apart.",
            )
        else:
            yield Finding(
                "SMD043",
                Outcome.WARN,
                item.tensor,
                f"its momentum has a radial part (kappa {item.value:+.2f} of the weight decay), "
                "which a scale-invariant tensor cannot have",
                "Check that these checkpoints and the model belong together.",
            )
