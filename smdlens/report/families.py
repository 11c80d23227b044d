"""Findings that say the same of many tensors, gathered into one."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from smdlens.diagnosis.records import Finding
from smdlens.vocabulary import Outcome

_ORDER = (Outcome.ERROR, Outcome.FAIL, Outcome.WARN, Outcome.INCONCLUSIVE, Outcome.PASS)


@dataclass(frozen=True, slots=True)
class Family:
    """Findings of one rule and outcome; the first, which is the worst, stands for all."""

    findings: tuple[Finding, ...]

    @property
    def first(self) -> Finding:
        """The finding that is shown."""
        return self.findings[0]

    def label(self, tensors: Collection[str]) -> str:
        """Whom it is about: the subject, or how many and an example."""
        subjects = list(dict.fromkeys(f.subject for f in self.findings))
        if len(subjects) == 1:
            return subjects[0]
        kind = "tensors" if all(s in tensors for s in subjects) else "cases"
        return f"{len(subjects)} {kind}, such as {subjects[0]}"

    def text(self, tensors: Collection[str]) -> str:
        """Label and message as one sentence."""
        message, label = self.first.message, self.label(tensors)
        if message.startswith(self.first.subject) and len(self.findings) == 1:
            return message
        return f"{label}: {message.removeprefix(self.first.subject).lstrip(': ')}"


def families(findings: Iterable[Finding]) -> tuple[Family, ...]:
    """Families by outcome, worst first; order within an outcome is the diagnosis's."""
    gathered: dict[tuple[str, Outcome], list[Finding]] = {}
    for finding in findings:
        gathered.setdefault((finding.rule, finding.outcome), []).append(finding)
    ordered = sorted(gathered.items(), key=lambda entry: _ORDER.index(entry[0][1]))
    return tuple(Family(tuple(members)) for _, members in ordered)
