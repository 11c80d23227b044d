"""Finding rules: a number means one thing, wherever it is raised."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "smdlens"
_RULE = re.compile(r'"(SMD\d{3})"')


def test_a_rule_number_is_raised_in_one_file() -> None:
    where: dict[str, set[str]] = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        for number in _RULE.findall(path.read_text(encoding="utf-8")):
            where[number].add(path.relative_to(PACKAGE).as_posix())
    assert len(where) > 20
    assert {n: sorted(files) for n, files in where.items() if len(files) > 1} == {}
