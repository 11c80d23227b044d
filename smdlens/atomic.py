"""The only module that writes files: a temporary file in the same folder, fsync, replace.

A reader sees the old content or the new one, never a torn file, whenever the process dies.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from smdlens.errors import InputError, OutputError

TEMPORARY_SUFFIX = ".smdlens-tmp"
# Temporary files in use, so that an interrupted process can remove them on its way out.
_open_temporaries: set[str] = set()


def check_writable(path: str | os.PathLike[str]) -> None:
    """Checks, before any reading starts, that a file can be written at `path`.

    Raises:
        InputError: The folder is missing or not writable, or `path` is not a regular file.
    """
    target = Path(path)
    if target.is_dir():
        raise InputError(
            "is a folder, not a file", subject=str(path), remedy=f"End it with a slash: {path}/"
        )
    if target.exists() and not target.is_file():
        raise InputError(
            "is a device or pipe; results are replaced as a whole and need a regular file",
            subject=str(path),
            remedy="Use --json to write to stdout.",
        )
    if target.is_file() and not os.access(target, os.W_OK):
        raise InputError("is read-only", subject=str(path), remedy="Choose another output file.")
    _try_folder(_real(target).parent, str(path))


def check_writable_folder(path: str | os.PathLike[str]) -> None:
    """Checks that a folder exists or can be made at `path`, and that files can be written there.

    Raises:
        InputError: It cannot.
    """
    target = Path(path)
    if target.exists() and not target.is_dir():
        raise InputError("exists and is not a folder", subject=str(path))
    _try_folder(target if target.is_dir() else _real(target).parent, str(path))


def _try_folder(folder: Path, subject: str) -> None:
    if not folder.is_dir():
        raise InputError(
            "the folder to write to does not exist", subject=subject, remedy=f"Create {folder}."
        )
    try:
        handle, name = tempfile.mkstemp(suffix=TEMPORARY_SUFFIX, dir=folder)
    except OSError as error:
        raise InputError(
            f"cannot be written ({error.strerror})",
            subject=subject,
            remedy="Choose a folder you may write to.",
        ) from error
    os.close(handle)
    Path(name).unlink()


def _real(path: Path) -> Path:
    # Replacing a symbolic link would cut it; replace what it points to.
    return Path(os.path.realpath(path))


def _mode(target: Path) -> int:
    with contextlib.suppress(OSError):
        return stat.S_IMODE(target.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


@contextlib.contextmanager
def open_atomic(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file that becomes `path` when the block ends, and vanishes if it raises.

    Raises:
        OutputError: Writing failed half-way (disk full, device gone); `path` is as it was.
    """
    target = _real(Path(path))
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(
            prefix=f".{target.name}.", suffix=TEMPORARY_SUFFIX, dir=target.parent
        )
        _open_temporaries.add(temporary)
        with os.fdopen(handle, "wb") as file:
            yield cast(BinaryIO, file)
            file.flush()
            os.fchmod(file.fileno(), _mode(target))
            os.fsync(file.fileno())
        Path(temporary).replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise OutputError(
            f"could not be written ({error.strerror or error}); no partial file is left",
            subject=str(path),
            remedy="Free space or choose another place; earlier content is unchanged.",
        ) from error
    finally:
        _open_temporaries.discard(temporary)
        with contextlib.suppress(OSError):
            Path(temporary).unlink()


def _sync_folder(folder: Path) -> None:
    # Not every file system can sync a folder; the content itself is already safe.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes `content` to `path` atomically.

    Raises:
        OutputError: Writing failed; `path` is as it was.
    """
    with open_atomic(path) as file:
        file.write(content)


def make_folder(path: str | os.PathLike[str], *, parents: bool = False) -> None:
    """Makes the folder `path` unless it exists, and with `parents` the folders above it.

    Raises:
        OutputError: It cannot be made.
    """
    try:
        Path(path).mkdir(exist_ok=True, parents=parents)
    except OSError as error:
        raise OutputError(
            f"the folder could not be made ({error.strerror})", subject=str(path)
        ) from error


def discard_temporaries() -> None:
    """Removes temporary files of writes in progress: for a process that must leave at once."""
    for name in tuple(_open_temporaries):
        with contextlib.suppress(OSError):
            Path(name).unlink()


def scratch_file() -> int:
    """Descriptor of a new file without a name, in the folder for temporary files; the caller's.

    It is gone when it is closed, or when the process ends in any way.

    Raises:
        OSError: There is no room, or no such folder.
    """
    with tempfile.TemporaryFile(prefix="smdlens-") as made:
        return os.dup(made.fileno())
