"""Consoles for stdout and stderr: no colour when not a terminal, in CI or with NO_COLOR."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

_NARROWEST, _NOT_A_TERMINAL = 40, 80


def is_plain(stream: TextIO) -> bool:
    """Whether `stream` gets neither colour nor moving bars."""
    return not stream.isatty() or bool(os.environ.get("NO_COLOR")) or _in_ci()


def _in_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def width_of(stream: TextIO) -> int:
    """Columns to use: COLUMNS, else the terminal's, else 80."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdigit() and int(asked):
        return max(int(asked), _NARROWEST)
    columns = shutil.get_terminal_size((_NOT_A_TERMINAL, 24)).columns if stream.isatty() else 0
    return max(columns or _NOT_A_TERMINAL, _NARROWEST)


def report_console(stream: TextIO | None = None) -> Console:
    """The console a report goes to."""
    from rich.console import Console

    target = sys.stdout if stream is None else stream
    plain = is_plain(target)
    return Console(
        file=target,
        width=width_of(target),
        color_system=None if plain else "auto",
        force_terminal=False if plain else None,
        no_color=plain,
        markup=False,
        emoji=False,
        highlight=False,
    )
