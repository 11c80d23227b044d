"""One checkpoint from its headers: what it holds, what the trainer used, who says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smdlens.errors import InputError, SnapshotChangedError, SnapshotUnsupportedError
from smdlens.hyper.groups import resolve_groups
from smdlens.hyper.optimizer import resolve_optimizer
from smdlens.hyper.options import DeclaredHyperParameters
from smdlens.hyper.records import Optimizer
from smdlens.hyper.settings import Settings, read_settings
from smdlens.hyper.settings_notes import settings_notes
from smdlens.snapshots.candidate import is_folder
from smdlens.snapshots.discover import discover
from smdlens.snapshots.records import Snapshot, SnapshotSeries
from smdlens.snapshots.series import open_snapshot

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Inspection:
    """Everything `smdlens inspect` shows.

    Attributes:
        path: As given.
        snapshot: The checkpoint, headers only.
        sizes: Its files as the snapshot labels them -> size in bytes.
        optimizer: The update rule.
        settings: What the trainer wrote down beside the optimizer's state.
        notes: Contradictions and what is undecidable: (rule, text, remedy).
    """

    path: str
    snapshot: Snapshot
    sizes: Mapping[str, int]
    optimizer: Optimizer
    settings: tuple[Settings, ...]
    notes: tuple[tuple[str, str, str], ...]

    @property
    def slot_counts(self) -> Mapping[str, int]:
        """Name of each kind of optimizer buffer -> number of tensors that have one."""
        record = self.snapshot.optimizer
        slots = record.slots.values() if record is not None else ()
        return Counter(slot for held in slots for slot in held)

    @property
    def trained(self) -> int:
        """Number of parameters the optimizer holds."""
        record = self.snapshot.optimizer
        return sum(group.count for group in record.groups) if record is not None else 0

    def file_paths(self) -> dict[str, Path]:
        """Label of each file -> where it is."""
        return {label: Path(self.path).parent / label for label in self.snapshot.files}


def inspect_checkpoint(path: str, *, weights: str | None = None) -> Inspection:
    """Reads the headers of one checkpoint file or folder.

    Args:
        path: The checkpoint.
        weights: Dotted path of the weight tree inside it; chosen unless given.

    Raises:
        SnapshotError: It cannot be read; the subclass says why.
        InputError: A run folder, or no such weight tree.
    """
    # A path that ends in a dot or a slash still has a name of its own.
    where = Path(path) if Path(path).name else Path(path).resolve()
    try:
        snapshot = open_snapshot(where, weights_key=weights)
    except SnapshotUnsupportedError as error:
        if is_folder(where):
            raise _run_folder(path, where) or error from error
        raise
    series = SnapshotSeries(str(where), (snapshot,), ())
    settings = read_settings(series)
    declared = DeclaredHyperParameters()
    optimizer, optimizer_notes = resolve_optimizer(series, declared, settings)
    _, group_notes = resolve_groups(series, declared, settings)
    sizes = {
        label: (where.parent / label).stat(follow_symlinks=True).st_size for label in snapshot.files
    }
    notes = (*optimizer_notes, *group_notes, *settings_notes(series, settings))
    return Inspection(str(where), snapshot, sizes, optimizer, settings, notes)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise SnapshotChangedError(
            "the file went away while its checkpoint was being read",
            subject=str(path),
            found=error.strerror,
        ) from error


def _run_folder(path: str, where: Path) -> InputError | None:
    """An error that names the checkpoints inside a run folder; None where it has none."""
    refs = discover([where]).refs
    if not refs:
        return None
    labels = [ref.label for ref in refs]
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return InputError(
        "a run folder, not one checkpoint",
        subject=path,
        expected="one checkpoint",
        found=f"{len(labels)} of them: {', '.join(labels[:_SHOWN])}{more}",
        remedy="Name one of them; `smdlens analyze` reads the whole folder.",
    )


def plain_scalars(value: Any, *, depth: int = 4, longest: int = 64) -> Any:
    """A copy of plain data fit for a report: nesting and lists beyond the bounds are counted."""
    if isinstance(value, Mapping):
        if depth <= 0:
            return {"entries": len(value)}
        return {str(k): plain_scalars(v, depth=depth - 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        if len(value) > longest or depth <= 0:
            return {"items": len(value)}
        return [plain_scalars(item, depth=depth - 1) for item in value]
    return value
