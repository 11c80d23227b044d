"""What a check consists of: one case per thing asked, and how cases become an exit code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from smdlens.errors import ExitCode
from smdlens.vocabulary import Outcome

STATE, RATIO, SHARE, ITERATIONS, BASELINE, READABLE = (
    "SMD101",
    "SMD102",
    "SMD103",
    "SMD104",
    "SMD105",
    "SMD106",
)
# What each rule of a policy asks, for reports that list their rules.
RULES: Mapping[str, str] = {
    STATE: "The tensor ends the stage in an allowed state",
    RATIO: "Measured over expected angle per update lies in the policy's band",
    SHARE: "Enough of the stage's tensors end it in an allowed state",
    ITERATIONS: "The stage after a cut is long enough to re-equilibrate",
    BASELINE: "Nothing is worse than in the baseline",
    READABLE: "Every finished snapshot of the run can be read",
}


@dataclass(frozen=True, slots=True)
class Case:
    """One thing a policy asks: of a tensor, a stage, a cut or a file; `ratio` where it has one."""

    rule: str
    stage: int | None
    subject: str
    outcome: Outcome
    message: str
    remedy: str | None = None
    ratio: float | None = None

    @property
    def place(self) -> str:
        """Where it belongs: a stage, or the run."""
        return "run" if self.stage is None else f"stage {self.stage}"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """All cases of a check, in the order of the run, and how to read them.

    Attributes:
        policy: Name of the policy.
        cases: Every case, passed ones included.
        soft: Failures are reported as skipped and do not fail the check.
        allow_inconclusive: What could not be decided does not change the exit code.
    """

    policy: str
    cases: tuple[Case, ...]
    soft: bool = False
    allow_inconclusive: bool = False

    def count(self, outcome: Outcome) -> int:
        """Number of cases with an outcome."""
        return sum(case.outcome is outcome for case in self.cases)

    def with_outcome(self, outcome: Outcome) -> tuple[Case, ...]:
        """Cases with an outcome, in order."""
        return tuple(case for case in self.cases if case.outcome is outcome)

    @property
    def outcome(self) -> Outcome:
        """The worst outcome that counts: fail, error, inconclusive, warn, pass."""
        if not self.soft and self.count(Outcome.FAIL):
            return Outcome.FAIL
        for outcome in (Outcome.ERROR, Outcome.INCONCLUSIVE, Outcome.WARN):
            if self.count(outcome):
                return outcome
        return Outcome.WARN if self.count(Outcome.FAIL) else Outcome.PASS

    @property
    def exit_code(self) -> ExitCode:
        """Exit code of `smdlens check`; a proven failure comes before what could not be read."""
        if self.outcome is Outcome.FAIL:
            return ExitCode.CHECK_FAILED
        if self.outcome is Outcome.ERROR:
            return ExitCode.NOTHING_ANALYSED
        if self.outcome is Outcome.INCONCLUSIVE and not self.allow_inconclusive:
            return ExitCode.INCONCLUSIVE
        return ExitCode.OK
