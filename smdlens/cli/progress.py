"""A bar with throughput and time left on stderr, for reads that take a while."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from smdlens.cli.console import is_plain, report_console


@contextlib.contextmanager
def reading_bar(*, wanted: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Gives a callback (bytes done, bytes in all), or None where no bar should be seen."""
    if not wanted or is_plain(sys.stderr):
        yield None
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = report_console(sys.stderr)
    # Until the headers are read nobody knows how much there is: a bar would show question marks.
    opening = console.status("opening the run", spinner="line")
    bar = Progress(
        TextColumn("reading"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    task = bar.add_task("reading", total=None)

    def advance(done: int, total: int) -> None:
        opening.stop()
        bar.update(task, completed=done, total=total)
        bar.start()

    opening.start()
    try:
        yield advance
    finally:
        opening.stop()
        bar.stop()
