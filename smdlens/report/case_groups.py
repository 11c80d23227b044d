"""Cases of a check that say the same of many tensors of a stage, gathered into one line."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from smdlens.diagnosis.cases import Case, CheckResult
from smdlens.names import for_terminal
from smdlens.vocabulary import Outcome

# How outcomes are called when a person counts them.
WORDS: dict[Outcome, str] = {
    Outcome.FAIL: "failed",
    Outcome.ERROR: "could not be read",
    Outcome.INCONCLUSIVE: "inconclusive",
    Outcome.WARN: "with a warning",
    Outcome.PASS: "passed",
}


@dataclass(frozen=True, slots=True)
class CaseGroup:
    """Cases of one rule, stage and outcome; the first, the worst, stands for all."""

    cases: tuple[Case, ...]

    @property
    def first(self) -> Case:
        """The case that is shown."""
        return self.cases[0]

    @property
    def label(self) -> str:
        """`stage 3, conv1.weight and 5 more`."""
        more = f" and {len(self.cases) - 1} more" if len(self.cases) > 1 else ""
        subject = self.first.subject
        if self.first.stage is None or subject == self.first.place:
            return f"{subject}{more}"
        return f"{self.first.place}, {subject}{more}"


def case_groups(cases: Iterable[Case]) -> tuple[CaseGroup, ...]:
    """Groups in the order in which their first case comes."""
    gathered: dict[tuple[str, int | None, Outcome], list[Case]] = {}
    for case in cases:
        gathered.setdefault((case.rule, case.stage, case.outcome), []).append(case)
    return tuple(CaseGroup(tuple(sorted(m, key=_nearness))) for m in gathered.values())


def _nearness(case: Case) -> float:
    """Sorts the ratio furthest from 1 first; cases without one keep their order."""
    return -abs(math.log(case.ratio)) if case.ratio else 0.0


def counts_text(result: CheckResult) -> str:
    """`6 failed, 1 with a warning, 12 passed`; soft failures are called so."""
    parts = []
    for outcome, word in WORDS.items():
        count = result.count(outcome)
        if count:
            soft = " (soft: not counted)" if outcome is Outcome.FAIL and result.soft else ""
            parts.append(f"{count} {word}{soft}")
    return ", ".join(parts) or "nothing was asked"


def verdict_text(result: CheckResult) -> str:
    """What the check came to, in words that fit the exit code."""
    words = {
        Outcome.FAIL: "Check failed",
        Outcome.ERROR: "Check incomplete: a snapshot could not be read",
        Outcome.INCONCLUSIVE: "Check inconclusive",
        Outcome.WARN: "Check passed with warnings",
        Outcome.PASS: "Check passed",
    }
    if result.outcome is Outcome.INCONCLUSIVE and result.allow_inconclusive:
        return "Check passed; some of it is inconclusive, which is allowed"
    return words[result.outcome]


def explain(result: CheckResult) -> str:
    """Verdict, counts and every reason, one per line: the text of a failed assertion."""
    lines = [
        f"{verdict_text(result)} (policy {for_terminal(result.policy)}): {counts_text(result)}"
    ]
    for outcome in (Outcome.FAIL, Outcome.ERROR, Outcome.INCONCLUSIVE):
        for group in case_groups(result.with_outcome(outcome)):
            label, message = for_terminal(group.label), for_terminal(group.first.message)
            lines.append(f"  {outcome.value}: {label}: {message} [{group.first.rule}]")
    return "\n".join(lines)
