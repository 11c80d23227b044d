"""What can go wrong, said in a way that tells the user what to do.

Every error a user can meet derives from `SmdlensError` and names its subject (a file, a tensor,
an option), what was expected, what was found and a remedy. An exception is for what cannot be
read or run; an undecidable result is data (`State.UNDETERMINED`), never an exception.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Process exit codes (docs/exit-codes.md). Precedence: 70 > 2 > 1 > 3 > 4 > 0."""

    OK = 0
    CHECK_FAILED = 1
    USAGE = 2
    NOTHING_ANALYSED = 3
    INCONCLUSIVE = 4
    INTERNAL = 70
    WRITE_FAILED = 74
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


class SmdlensError(Exception):
    """Base of all errors smdlens raises on purpose.

    Args:
        message: One sentence saying what is wrong.
        subject: The file, tensor or option the error is about.
        expected: What would have been right, when there is such a thing.
        found: What was there instead.
        remedy: What the user can do about it.
    """

    exit_code: ExitCode = ExitCode.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        subject: str | None = None,
        expected: str | None = None,
        found: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.message = message
        self.subject = subject
        self.expected = expected
        self.found = found
        self.remedy = remedy
        super().__init__(self.describe())

    def describe(self, *, beside: str | None = None) -> str:
        """The whole error on one line: subject, message, expected, found, remedy.

        Args:
            beside: What stands beside it already; a subject that is the same is left out.
        """
        subject = self.subject if self.subject != beside else None
        parts = [f"{subject}: {self.message}" if subject else self.message]
        if self.expected is not None:
            parts.append(f"expected {self.expected}")
        if self.found is not None:
            parts.append(f"found {self.found}")
        text = ", ".join(parts)
        return f"{text}. {self.remedy}" if self.remedy else text


class InputError(SmdlensError):
    """An option, a configuration file or a combination of them that cannot be used."""

    exit_code = ExitCode.USAGE


class GraphError(SmdlensError):
    """A model graph that cannot be built, traced or understood."""

    exit_code = ExitCode.USAGE


class OutputError(SmdlensError):
    """An output that could not be written to the end (disk full, device gone)."""

    exit_code = ExitCode.WRITE_FAILED


class NothingToAnalyseError(SmdlensError):
    """No path, no two usable snapshots, or no tensor left to measure."""

    exit_code = ExitCode.NOTHING_ANALYSED


class SnapshotError(SmdlensError):
    """One checkpoint file that cannot be read; the subclasses say why."""

    exit_code = ExitCode.NOTHING_ANALYSED


class SnapshotMissingError(SnapshotError):
    """The path does not exist, or may not be read."""


class SnapshotTruncatedError(SnapshotError):
    """The file ends before its own headers say it should."""


class SnapshotCorruptError(SnapshotError):
    """The bytes contradict the format: bad magic, overlapping extents, impossible sizes."""


class SnapshotUnsafeError(SnapshotError):
    """Reading on would leave the run folder, run a program or allocate without bound."""


class SnapshotUnsupportedError(SnapshotError):
    """A well-formed file of a format, dtype or layout that smdlens does not read."""


class SnapshotChangedError(SnapshotError):
    """The file changed (size, time or identity) while it was being read."""
