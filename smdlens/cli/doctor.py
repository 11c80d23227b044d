"""`smdlens doctor`: what is installed, and which formats and devices work here."""

from __future__ import annotations

import typer

from smdlens.cli.console import report_console
from smdlens.errors import ExitCode

EXAMPLES = """[bold]Example[/]

smdlens doctor

Exit codes: 0, or 2 when something smdlens needs does not work.
"""


def doctor() -> None:
    """Says what is installed and what works here, one thing per line."""
    from smdlens.report.health import look_around
    from smdlens.report.terminal.health import render

    console = report_console()
    findings = look_around(console.encoding)
    render(findings, console)
    if any(finding.broken for finding in findings):
        raise typer.Exit(ExitCode.USAGE)
