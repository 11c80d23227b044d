"""A check as SARIF 2.1.0: one result per case that did not pass.

Failures are `error`, warnings `warning`, soft failures `note`; what is inconclusive has the kind
`open`, which SARIF reserves for "could not be decided".
"""

from __future__ import annotations

import hashlib
import json
from typing import Any
from urllib.parse import quote

from smdlens.diagnosis.cases import RULES, Case, CheckResult
from smdlens.names import for_terminal
from smdlens.version import __version__
from smdlens.vocabulary import Outcome

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {Outcome.FAIL: "error", Outcome.ERROR: "error", Outcome.WARN: "warning"}


def sarif(result: CheckResult, run: str) -> str:
    """The log as JSON text; `run` is the run's path as given, which results point to."""
    shown = [case for case in result.cases if case.outcome is not Outcome.PASS]
    ids = sorted({*RULES, *(case.rule for case in shown)})
    log = {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "smdlens",
                        "version": __version__,
                        "rules": [_rule(rule, shown) for rule in ids],
                    }
                },
                "invocations": [{"executionSuccessful": True}],
                "columnKind": "unicodeCodePoints",
                "results": [_result(case, ids, result.soft, run) for case in shown],
                "properties": {"policy": for_terminal(result.policy)},
            }
        ],
    }
    return json.dumps(log, indent=1, allow_nan=False) + "\n"


def _rule(rule: str, cases: list[Case]) -> dict[str, Any]:
    text = RULES.get(rule)
    if text is None:
        # A finding's rule has no sentence of its own; its first message says what it is about.
        text = next(case.message for case in cases if case.rule == rule)
    return {"id": rule, "shortDescription": {"text": _message(text)}}


def _result(case: Case, ids: list[str], soft: bool, run: str) -> dict[str, Any]:
    open_ = case.outcome is Outcome.INCONCLUSIVE
    level = "none" if open_ else _LEVELS[case.outcome]
    if soft and case.outcome is Outcome.FAIL:
        level = "note"
    text = f"{case.place}, {case.subject}: {case.message}"
    if case.remedy:
        text += f". {case.remedy}"
    logical = {"fullyQualifiedName": for_terminal(case.subject), "kind": "member"}
    key = f"{case.rule}\0{case.place}\0{case.subject}".encode("utf-8", "surrogatepass")
    return {
        "ruleId": case.rule,
        "ruleIndex": ids.index(case.rule),
        "kind": "open" if open_ else "fail",
        "level": level,
        "message": {"text": _message(text)},
        "locations": [
            {
                "physicalLocation": {"artifactLocation": {"uri": _uri(run)}},
                "logicalLocations": [logical],
            }
        ],
        "partialFingerprints": {"smdlensCase/v1": hashlib.sha256(key).hexdigest()},
    }


def _message(text: str) -> str:
    """Plain text: SARIF reads braces as placeholders and brackets as links (3.11.5, 3.11.6)."""
    safe = for_terminal(text)
    for char in "\\[]":
        safe = safe.replace(char, "\\" + char)
    return safe.replace("{", "{{").replace("}", "}}")


def _uri(path: str) -> str:
    quoted = quote(path.encode("utf-8", "surrogateescape"))
    return f"file://{quoted}" if path.startswith("/") else quoted
