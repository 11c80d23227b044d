"""The audit of the theory's assumptions in words that need no paper at hand: one row per name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from smdlens.diagnosis.records import Assumption
from smdlens.report import numbers
from smdlens.vocabulary import Outcome

INTRODUCTION = (
    "The paper proves its theorems under these assumptions. A broken one is no fault of the run: "
    "the equilibrium itself needs little more than gradients at right angles to the weights."
)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a name means: the statement, what its value counts, and in which order it is shown."""

    statement: str
    value: str
    limit: str


# In the order of the report: the network, the settings, the gradients, what follows from them.
_MEANINGS = {
    "gradient_orthogonal": Meaning(
        "gradients are at right angles to the weights, as scale invariance demands",
        "cosine",
        "at most",
    ),
    "exact_scale_invariance": Meaning(
        "the normalisation's epsilon is too small to matter",
        "epsilon's pull / weight decay",
        "below",
    ),
    "theorem_covers_optimizer": Meaning("the paper's theorems are about this optimizer", "", ""),
    "momentum_above_half": Meaning(
        "momentum is in the range Theorem 2 is proved for", "momentum", "above"
    ),
    "lr_decay_small": Meaning(
        "one update changes a norm little: lr × weight decay is far below 1",
        "lr × weight decay",
        "below",
    ),
    "lr_decay_below_oscillation": Meaning(
        "norms settle without oscillating: lr × weight decay is below (1 − √momentum)²",
        "lr × weight decay",
        "below",
    ),
    "gradient_variance_bounded": Meaning(
        "the size of single gradients scatters, but by a bounded amount",
        "standard deviation / mean",
        "",
    ),
    "gradient_smooth": Meaning(
        "the mean size of gradients changes slowly",
        "relative change per update",
        "below",
    ),
    "gradient_bounded_below": Meaning(
        "no single gradient is nearly zero, or turns the momentum back",
        "smallest / mean",
        "above",
    ),
    "norm_as_theorem": Meaning(
        "norms are where Theorem 1 (2 with momentum) puts them", "norm", "expected"
    ),
    "angle_as_theorem": Meaning(
        "Theorem 3: angles per update are within a bound of equilibrium, as often as promised",
        "difference, rad",
        "below",
    ),
}


@dataclass(frozen=True, slots=True)
class AssumptionRow:
    """An assumption over all stages and tensors: its worst case, and how many are not known.

    Attributes:
        meaning: The statement.
        outcome: How it is marked.
        verdict: In a few words.
        value: The worst value, with what it counts.
        limit: What it is held against.
        where: Stage and tensor of the worst value.
        reason: What was compared there, or why it cannot be told.
        source: Where the paper states it.
    """

    meaning: str
    outcome: Outcome
    verdict: str
    value: str
    limit: str
    where: str
    reason: str
    source: str


def assumption_rows(assumptions: Iterable[Assumption]) -> list[AssumptionRow]:
    """One row per name, in the order of the report; names it does not know come last."""
    names: dict[str, list[Assumption]] = {name: [] for name in _MEANINGS}
    for assumption in assumptions:
        names.setdefault(assumption.name, []).append(assumption)
    return [_row(name, own) for name, own in names.items() if own]


def _row(name: str, own: list[Assumption]) -> AssumptionRow:
    meaning = _MEANINGS.get(name, Meaning(name.replace("_", " "), "", ""))
    broken = [a for a in own if a.holds is False]
    held = [a for a in own if a.holds]
    shown = _worst(broken or held or own, smallest_is_worst=meaning.limit == "above")
    where = [] if shown.stage is None else [f"stage {shown.stage}"]
    where += [] if shown.tensor is None else [shown.tensor]
    outcome = Outcome.WARN if broken else Outcome.PASS if held else Outcome.INCONCLUSIVE
    return AssumptionRow(
        meaning=meaning.statement,
        outcome=outcome,
        verdict=_verdict(len(broken), len(held), len(own)),
        value=_with(meaning.value, shown.value) or _unknown(meaning.value, shown),
        limit=_with(meaning.limit, shown.limit),
        where=", ".join(where),
        reason=shown.reason,
        source=shown.source,
    )


def _verdict(broken: int, held: int, cases: int) -> str:
    """Counts of cases, a case being a tensor in a stage, or a stage."""
    open_ = cases - broken - held
    if broken == cases or held == cases or open_ == cases:
        word = "broken" if broken else "holds" if held else "not known"
        return word if cases == 1 else f"{word} in all {cases} cases"
    counts = ((broken, "broken in"), (held, "holds in"), (open_, "not known in"))
    return ", ".join(f"{word} {count}" for count, word in counts if count) + f" of {cases} cases"


def _worst(own: list[Assumption], smallest_is_worst: bool) -> Assumption:
    """The case closest to its limit or furthest beyond it; cases without a value last."""

    def badness(a: Assumption) -> float:
        if a.value is None:
            return float("-inf")
        if a.name == "norm_as_theorem" and a.limit:
            return abs(a.value / a.limit - 1.0)
        scale = a.limit if a.limit and a.limit > 0.0 else 1.0
        return -a.value / scale if smallest_is_worst else abs(a.value) / scale

    return max(own, key=badness)


def _unknown(word: str, shown: Assumption) -> str:
    """A limit does not stand there alone."""
    return f"{word} not known" if word and shown.limit is not None else ""


def _with(word: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{word} {numbers.quantity(value)}".strip()
