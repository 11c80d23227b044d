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

    columns = (
        TextColumn("reading"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=report_console(sys.stderr), transient=True) as bar:
        task = bar.add_task("reading", total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield advance
