"""What goes wrong while a graph file is read, as one error that names the file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smdlens.errors import GraphError, SnapshotError

# What plain code that walks a foreign structure raises where the structure is another one.
_STRANGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
_LONGEST = 300


@contextmanager
def reading_graph(
    path: Path | str,
    what: str = "graph in it",
    *,
    expected: str | None = None,
    remedy: str | None = None,
) -> Iterator[None]:
    """Turns every error of the block into a `GraphError` about the file.

    Args:
        path: The file.
        what: What is of a form that is not known, where it is.
        expected: What would have been known.
        remedy: What the user can do about it.

    Raises:
        GraphError: In place of any error of the file or its structure.
    """
    try:
        yield
    except (SnapshotError, GraphError) as error:
        if isinstance(error, GraphError) and error.subject is not None:
            raise
        raise GraphError(
            error.message,
            subject=str(path),
            expected=error.expected,
            found=error.found,
            remedy=error.remedy,
        ) from error
    except _STRANGE as error:
        message = f"the {what} is of a form that is not known ({type(error).__name__}: {error})"
        raise GraphError(
            message[:_LONGEST], subject=str(path), expected=expected, remedy=remedy
        ) from error
