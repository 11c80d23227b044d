"""The doctor's findings in a terminal, one line each."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from smdlens.report.health import Health
from smdlens.report.terminal.pen import SYMBOLS, Pen
from smdlens.vocabulary import Outcome


def render(findings: Sequence[Health], console: Console) -> None:
    """Prints what was found; what is broken is marked."""
    pen = Pen(console)
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        symbol, style = SYMBOLS[Outcome.FAIL if finding.broken else Outcome.PASS]
        pen.item(symbol, style, [pen.text(f"{finding.name:<{width}}  {finding.text}")])
