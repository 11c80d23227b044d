"""What a reader gets and gives: a candidate on disk, and its content as one plain tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from smdlens.containers.files import FileStamp, open_regular
from smdlens.containers.limits import Limits
from smdlens.errors import SnapshotMissingError

HEAD_BYTES = 512


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file or folder that may be a checkpoint.

    Attributes:
        path: Where it is.
        head: First bytes of a file; empty for a folder.
        size: Size of a file in bytes; 0 for a folder.
        names: Names of the files in a folder; empty for a file.
        is_folder: Whether it is a folder.
    """

    path: Path
    head: bytes
    size: int
    names: frozenset[str]
    is_folder: bool


@dataclass(frozen=True, slots=True)
class RawCheckpoint:
    """Content of one checkpoint before anything is interpreted.

    Attributes:
        format: Name of the format.
        root: Nested dicts, lists and plain values; tensors are `PickledTensor` or `TensorRef`,
            foreign objects `Opaque`.
        files: Files it consists of.
        stamps: Path of each file with tensor bytes -> its stamp while the headers were read.
        ordered: Whether tensors come in the model's own order (a safetensors file sorts them).
        network: The model's description as JSON, where the checkpoint holds Keras' or MXNet's; the
            path of the program in a SavedModel, TorchScript, .pt2 or ONNX file.
    """

    format: str
    root: Any
    files: tuple[Path, ...]
    stamps: Mapping[str, FileStamp]
    ordered: bool = True
    network: str | None = None


class Reader(Protocol):
    """One checkpoint format."""

    name: str

    def recognises(self, candidate: Candidate) -> bool:
        """Whether the candidate's content (never its suffix) is of this format."""

    def read(self, candidate: Candidate, limits: Limits) -> RawCheckpoint:
        """Read its headers. Raises a subclass of `SnapshotError`."""


def candidate_file(path: Path) -> Candidate:
    """Look at the first bytes of a regular file; errors as `open_regular`."""
    with open_regular(path) as file:
        return Candidate(
            path, file.read(0, min(HEAD_BYTES, file.size)), file.size, frozenset(), False
        )


def candidate_folder(path: Path) -> Candidate:
    """Look at the names in a folder.

    Raises:
        SnapshotMissingError: It cannot be listed.
    """
    try:
        names = frozenset(entry.name for entry in path.iterdir())
    except OSError as error:
        raise SnapshotMissingError(
            "the folder cannot be listed", subject=str(path), found=error.strerror
        ) from error
    return Candidate(path, b"", 0, names, True)


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; False where it may not even be asked."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
