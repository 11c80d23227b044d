"""Policies: what is asked of which tensors in which stages, and what breaking it means.

A state is physics and no policy edits it; a policy only says which states pass, warn or fail.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from smdlens.diagnosis.records import Stage
from smdlens.vocabulary import HELD_STATES, NOT_HELD_STATES, Outcome, State

ALL_STATES = frozenset(State)
_JUDGED = HELD_STATES | NOT_HELD_STATES | {State.UNDETERMINED}
# States in which no equilibrium exists to be reached.
NO_EQUILIBRIUM_STATES = ALL_STATES - _JUDGED

StageSelector = int | str
STAGE_WORDS = ("all", "first", "last", "warm-up")


@dataclass(frozen=True, slots=True)
class Demand:
    """Which states pass and which only warn; `ratio` is a band for measured/expected.

    A state in neither set fails; `undetermined` in neither is inconclusive.
    """

    allow: frozenset[State]
    warn: frozenset[State] = frozenset()
    ratio: tuple[float, float] | None = None

    def outcome_of(self, state: State) -> Outcome:
        """What the demand makes of a state."""
        if state in self.allow:
            return Outcome.PASS
        if state in self.warn:
            return Outcome.WARN
        return Outcome.INCONCLUSIVE if state is State.UNDETERMINED else Outcome.FAIL


@dataclass(frozen=True, slots=True)
class Override:
    """Another demand for some tensors (globs) in some stages; None keeps what was asked."""

    tensors: tuple[str, ...] = ("*",)
    stages: tuple[StageSelector, ...] = ("all",)
    allow: frozenset[State] | None = None
    warn: frozenset[State] | None = None
    ratio: tuple[float, float] | None = None

    def applies(self, tensor: str, stage: Stage, count: int, warm_up_end: int | None) -> bool:
        """Whether this speaks of `tensor` in `stage`, one of `count` stages."""
        return any(fnmatchcase(tensor, glob) for glob in self.tensors) and any(
            _selects(selector, stage, count, warm_up_end) for selector in self.stages
        )


def _selects(selector: StageSelector, stage: Stage, count: int, warm_up_end: int | None) -> bool:
    if isinstance(selector, int):
        return stage.index == (selector if selector > 0 else count + 1 + selector)
    if selector == "warm-up":
        return warm_up_end is not None and stage.step_to <= warm_up_end
    return selector == "all" or stage.index == (1 if selector == "first" else count)


@dataclass(frozen=True)
class Policy:
    """What `smdlens check` holds a run against.

    Attributes:
        name: For the report: a built-in name, or the file it came from.
        demand: What is asked of every scale-invariant tensor in every stage.
        overrides: Other demands for some of them; later ones win.
        tolerance: Tolerance of the analysis, None to leave it to the options.
        share: How much of a stage must be in an allowed state, 0 to 1; below 1 single tensors that
            fail only warn while their stage keeps its share.
        iterations: What a cut without enough iterations after it is (None: not looked at).
        findings: Rule id (or "*") -> what such a finding is; None ignores it.
        unreadable: What an unreadable snapshot of the run is.
        baseline: JSON report of an earlier run, None for none.
    """

    name: str
    demand: Demand
    overrides: tuple[Override, ...] = ()
    tolerance: float | None = None
    share: float = 1.0
    iterations: Outcome | None = Outcome.WARN
    findings: Mapping[str, Outcome | None] = field(default_factory=dict)
    unreadable: Outcome = Outcome.ERROR
    baseline: str | None = None

    def demand_of(self, tensor: str, stage: Stage, count: int, warm_up_end: int | None) -> Demand:
        """What is asked of one tensor in one stage."""
        allow, warn, ratio = self.demand.allow, self.demand.warn, self.demand.ratio
        for other in self.overrides:
            if other.applies(tensor, stage, count, warm_up_end):
                allow = allow if other.allow is None else other.allow
                warn = warn if other.warn is None else other.warn
                ratio = ratio if other.ratio is None else other.ratio
        return Demand(allow, warn, ratio)

    def outcome_of_finding(self, rule: str, outcome: Outcome) -> Outcome | None:
        """What a finding counts as: the rule's own entry, else "*", else as it was found.

        "*" lowers an inconclusive finding but never makes it a failure: not knowing proves nothing.
        """
        if outcome is Outcome.PASS:
            return outcome
        if rule in self.findings:
            return self.findings[rule]
        general = self.findings.get("*", outcome)
        if outcome is Outcome.INCONCLUSIVE and general is Outcome.FAIL:
            return outcome
        return general


_WARM_UP = Override(stages=("warm-up",), allow=ALL_STATES)

STRICT = Policy(
    name="strict",
    demand=Demand(allow=HELD_STATES),
    iterations=Outcome.FAIL,
    findings={"*": Outcome.FAIL},
)
DEFAULT = Policy(
    name="default",
    demand=Demand(allow=HELD_STATES, warn=NO_EQUILIBRIUM_STATES),
    overrides=(_WARM_UP,),
)
REPORT_ONLY = Policy(
    name="report-only",
    demand=Demand(allow=HELD_STATES, warn=ALL_STATES - HELD_STATES),
    overrides=(_WARM_UP,),
    findings={"*": Outcome.WARN},
    unreadable=Outcome.WARN,
)
BUILT_IN: Mapping[str, Policy] = {p.name: p for p in (STRICT, DEFAULT, REPORT_ONLY)}

RULE_ID = re.compile(r"SMD\d{3}|\*")
