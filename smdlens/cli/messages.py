"""What goes to stderr: errors in one clear block, never a traceback."""

from __future__ import annotations

import sys

from smdlens.errors import SmdlensError
from smdlens.names import for_terminal


def show(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(text + "\n")


def show_error(error: SmdlensError) -> None:
    """An error smdlens raised on purpose: what, expected, found, and what to do."""
    about = f"{for_terminal(error.subject)}: " if error.subject else ""
    lines = [f"Error: {about}{for_terminal(error.message)}"]
    if error.expected is not None:
        lines.append(f"  expected {for_terminal(error.expected)}")
    if error.found is not None:
        lines.append(f"  found    {for_terminal(error.found)}")
    if error.remedy:
        lines.append(f"  {for_terminal(error.remedy)}")
    show("\n".join(lines))


def show_usage_error(error: BaseException) -> None:
    """A command line that cannot be read, with where to look."""
    message = getattr(error, "format_message", lambda: str(error))()
    if not message:  # no arguments at all: typer has just printed the help
        return
    message = message.replace(": Value error, ", ": ")  # how pydantic opens any complaint
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", "smdlens")
    show(f"Error: {for_terminal(message)}\n  See {command} --help")


def show_internal_error(error: Exception) -> None:
    """A defect of smdlens: one line, and how to report it."""
    show(
        f"Internal error: {type(error).__name__}: {for_terminal(str(error))[:300]}\n"
        "  This is a defect of smdlens, not of your files. Please report it with the\n"
        "  output of the same command with -v added and how the checkpoints were written."
    )
