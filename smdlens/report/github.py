"""A check as GitHub workflow commands: at most ten errors and ten warnings, the rest counted."""

from __future__ import annotations

from smdlens.diagnosis.cases import CheckResult
from smdlens.names import for_annotation, for_terminal
from smdlens.report.case_groups import CaseGroup, case_groups
from smdlens.vocabulary import Outcome

# What GitHub shows per step and kind.
MOST = 10


def github_annotations(result: CheckResult) -> str:
    """One command per line, for stdout; empty when everything passed."""
    failed = case_groups(result.with_outcome(Outcome.FAIL))
    errors = case_groups(result.with_outcome(Outcome.ERROR))
    warnings = case_groups(
        [*result.with_outcome(Outcome.INCONCLUSIVE), *result.with_outcome(Outcome.WARN)]
    )
    if result.soft:
        warnings, failed = (*failed, *warnings), ()
    lines = [*_lines("error", (*failed, *errors)), *_lines("warning", warnings)]
    return "".join(f"{line}\n" for line in lines)


def _lines(kind: str, groups: tuple[CaseGroup, ...]) -> list[str]:
    # The last of the ten places is needed to say how many more there are.
    shown = groups if len(groups) <= MOST else groups[: MOST - 1]
    lines = [_line(kind, f"smdlens {g.first.rule}", f"{g.label}: {g.first.message}") for g in shown]
    hidden = len(groups) - len(shown)
    if hidden:
        lines.append(_line(kind, "smdlens", f"{hidden} more are in the report"))
    return lines


def _line(kind: str, title: str, message: str) -> str:
    text = for_terminal(message).replace("%", "%25")
    return f"::{kind} title={for_annotation(title)}::{text}"
