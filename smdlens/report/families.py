"""Findings that say the same of many tensors, gathered into one."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from smdlens.diagnosis.records import Finding
from smdlens.vocabulary import Outcome

_ORDER = (Outcome.ERROR, Outcome.FAIL, Outcome.WARN, Outcome.INCONCLUSIVE, Outcome.PASS)

_FEW = 3


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


def families(findings: Iterable[Finding], tensors: Collection[str]) -> tuple[Family, ...]:
    """Families by outcome, worst first; order within an outcome is the diagnosis's.

    Tensors always gather; stages and other subjects, whose numbers differ, only when they are many.
    """
    gathered: dict[tuple[str, Outcome], list[Finding]] = {}
    for finding in findings:
        gathered.setdefault((finding.rule, finding.outcome), []).append(finding)
    result: list[Family] = []
    for members in gathered.values():
        if len(members) > _FEW or all(f.subject in tensors for f in members):
            result.append(Family(tuple(members)))
        else:
            result += [Family((f,)) for f in members]
    return tuple(sorted(result, key=lambda family: _ORDER.index(family.first.outcome)))
