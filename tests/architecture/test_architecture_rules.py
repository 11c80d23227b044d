"""Finding rules: a number means one thing, and docs/findings.md says which."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from smdlens.diagnosis.cases import RULES

ROOT = Path(__file__).parents[2]
_RULE = re.compile(r'"(SMD\d{3})"')
_ROW = re.compile(r"^\| (SMD\d{3}) \| (.+) \| [a-z ]+ \|$", re.MULTILINE)
# Rules about the trainer's settings are raised wherever two sources meet; `check` lists some.
_SHARED = {"hyper", "check.py"}


def raised() -> dict[str, set[str]]:
    where: dict[str, set[str]] = defaultdict(set)
    for path in (ROOT / "smdlens").rglob("*.py"):
        for number in _RULE.findall(path.read_text(encoding="utf-8")):
            owner = path.parent.name if path.parent.name in _SHARED else path.name
            where[number].add(owner)
    return where


def test_a_rule_number_is_raised_in_one_place() -> None:
    owners = {number: files - {"check.py"} for number, files in raised().items()}
    assert {n: files for n, files in owners.items() if len(files) > 1} == {}


def test_the_page_lists_every_rule_once() -> None:
    listed = [n for n, _ in _ROW.findall((ROOT / "docs" / "findings.md").read_text())]
    assert len(listed) == len(set(listed)) > 40
    assert set(listed) == set(raised())


def test_the_page_says_of_check_what_check_says() -> None:
    words = dict(_ROW.findall((ROOT / "docs" / "findings.md").read_text()))
    for number, text in RULES.items():
        assert words[number] == f"`check`: {text[0].lower()}{text[1:]}"
