"""Leaving in time: Ctrl-C within two seconds, SIGTERM, a closed or a full stdout."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from types import FrameType

from smdlens import atomic
from smdlens.cli import messages
from smdlens.errors import ExitCode, OutputError

# Worker threads may sit in a long read; the process does not wait for them longer than this.
_GRACE_SECONDS = 1.5


def install() -> None:
    """Turns SIGINT and SIGTERM into an orderly way out with a time limit."""
    signal.signal(signal.SIGINT, _interrupted)
    signal.signal(signal.SIGTERM, _terminated)


def _interrupted(signum: int, frame: FrameType | None) -> None:
    _leave_soon(ExitCode.INTERRUPTED)
    raise KeyboardInterrupt


def _terminated(signum: int, frame: FrameType | None) -> None:
    _leave_soon(ExitCode.TERMINATED)
    sys.exit(ExitCode.TERMINATED)


def _leave_soon(code: ExitCode) -> None:
    timer = threading.Timer(_GRACE_SECONDS, _leave_now, (code,))
    timer.daemon = True
    timer.start()


def _leave_now(code: ExitCode) -> None:
    atomic.discard_temporaries()
    os._exit(code)


def flush(code: int) -> int:
    """Flushes stdout; a reader that is gone turns success into `BROKEN_PIPE`, quietly."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = ExitCode.BROKEN_PIPE
    except OSError as error:
        if code != ExitCode.WRITE_FAILED:
            code = stdout_failed(error)
    if code in (ExitCode.BROKEN_PIPE, ExitCode.WRITE_FAILED):
        # The interpreter flushes once more on its way out and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def is_full(error: OSError) -> bool:
    """Whether stdout goes to a full disk: files of our own raise `OutputError` instead."""
    return error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT)


def stdout_failed(error: OSError) -> ExitCode:
    """Tells that stdout could not be written, and gives the code to leave with."""
    messages.show_error(
        OutputError(
            f"could not be written ({error.strerror or error})",
            subject="stdout",
            remedy="Free space or send it elsewhere.",
        )
    )
    return ExitCode.WRITE_FAILED
