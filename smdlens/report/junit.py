"""A check as JUnit XML, valid against the junit-10 schema that pytest's own output follows.

One suite per stage and one for the run; a failed rule is a <failure>, an unreadable snapshot an
<error>, an inconclusive case a <skipped>. No times and no host names: repeated runs give the same
bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

from smdlens.diagnosis.cases import RULES, Case, CheckResult
from smdlens.names import for_xml
from smdlens.vocabulary import Outcome


def junit(result: CheckResult) -> str:
    """The whole document, ending with a newline."""
    places: dict[str, list[Case]] = {}
    for case in result.cases:
        places.setdefault(case.place, []).append(case)
    suites = "".join(_suite(place, cases, result) for place, cases in places.items())
    totals = _counts(result.cases, result.soft)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<testsuites name="smdlens" tests="{totals["tests"]}" failures="{totals["failures"]}" '
        f'errors="{totals["errors"]}">\n{suites}</testsuites>\n'
    )


def _counts(cases: Iterable[Case], soft: bool) -> dict[str, int]:
    outcomes = [case.outcome for case in cases]
    failed = outcomes.count(Outcome.FAIL)
    return {
        "tests": len(outcomes),
        "failures": 0 if soft else failed,
        "errors": outcomes.count(Outcome.ERROR),
        "skipped": outcomes.count(Outcome.INCONCLUSIVE) + (failed if soft else 0),
    }


def _suite(place: str, cases: list[Case], result: CheckResult) -> str:
    counts = " ".join(f'{k}="{v}"' for k, v in _counts(cases, result.soft).items())
    body = "".join(_case(case, result.soft) for case in cases)
    policy = for_xml(result.policy)
    return (
        f'  <testsuite name="{for_xml(place)}" {counts}>\n'
        f'    <properties><property name="policy" value="{policy}"/></properties>\n'
        f"{body}  </testsuite>\n"
    )


def _case(case: Case, soft: bool) -> str:
    title = for_xml(f"{case.subject} [{case.rule}]")
    start = f'    <testcase classname="smdlens.{case.place.replace(" ", "_")}" name="{title}"'
    if case.outcome is Outcome.PASS:
        return f"{start}/>\n"
    text = for_xml(case.message)
    remedy = f" {for_xml(case.remedy)}" if case.remedy else ""
    if case.outcome is Outcome.WARN:
        return f"{start}><system-out>warning: {text}.{remedy}</system-out></testcase>\n"
    tag, kind = {
        Outcome.FAIL: ("skipped", "soft failure") if soft else ("failure", case.rule),
        Outcome.ERROR: ("error", case.rule),
        Outcome.INCONCLUSIVE: ("skipped", "inconclusive"),
    }[case.outcome]
    rule = for_xml(RULES.get(case.rule, ""))
    body = " ".join(part for part in (f"{rule}." if rule else "", remedy.strip()) if part)
    return f'{start}><{tag} type="{kind}" message="{text}">{body}</{tag}></testcase>\n'
