"""Put opened checkpoints on one axis: steps where possible, else epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from smdlens.errors import InputError
from smdlens.snapshots.discover import CheckpointRef
from smdlens.snapshots.records import Skipped, Snapshot
from smdlens.snapshots.steps import Position
from smdlens.vocabulary import SkipReason

# Layouts of one function: a run may go from one to the next when torch is updated.
_SAME_WRITER = {"torch-zip": "torch.save", "torch-legacy": "torch.save", "torch-tar": "torch.save"}


@dataclass(frozen=True, slots=True)
class Opened:
    """A checkpoint whose headers have been read."""

    ref: CheckpointRef
    snapshot: Snapshot
    position: Position
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Placed:
    """Checkpoints with a place on the axis, and those without."""

    axis: str
    opened: tuple[Opened, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]


def place(opened: Sequence[Opened], steps_per_epoch: int | None) -> Placed:
    """Decide the axis and give every checkpoint its place on it.

    Epochs become steps with `steps_per_epoch`, else with the rate that files holding both agree
    on; where too few files have a step, the axis is epochs.
    """
    notes: tuple[str, ...] = ()
    if steps_per_epoch is not None:
        opened = [_convert(o, steps_per_epoch, 0.0, "--steps-per-epoch") for o in opened]
    elif any(o.position.step is None for o in opened):
        rate = _rate(opened)
        if rate is not None:
            slope, offset = rate
            opened = [_convert(o, slope, offset, "epochs of files that hold both") for o in opened]
            notes = (f"epochs were turned into steps: {slope:g} steps per epoch",)
    with_step = [o for o in opened if o.snapshot.step is not None]
    with_epoch = [o for o in opened if o.snapshot.epoch is not None]
    if len(with_step) < 2 <= len(with_epoch) and len(with_epoch) > len(with_step):
        kept = [replace(o, snapshot=replace(o.snapshot, step=None)) for o in with_epoch]
        skipped = [_unplaced(o, "epochs") for o in opened if o.snapshot.epoch is None]
        kept.sort(key=lambda o: o.snapshot.epoch or 0)
        return Placed("epochs", tuple(kept), tuple(skipped), notes)
    skipped = [_unplaced(o, "steps") for o in opened if o.snapshot.step is None]
    with_step.sort(key=lambda o: o.snapshot.step or 0)
    return Placed("steps", tuple(with_step), tuple(skipped), notes)


def check_one_sequence(opened: Sequence[Opened], run: str) -> None:
    """Refuse a folder in which two sub-folders each hold a sequence.

    Raises:
        InputError: Names the sub-folders.
    """
    places: dict[str, set[object]] = {}
    for o in opened:
        position = o.position.step if o.position.step is not None else o.position.epoch
        if position is not None and not o.ref.is_copy:
            places.setdefault(o.ref.sequence, set()).add(position)
    several = [name for name, found in places.items() if len(found) >= 2]
    if len(several) > 1:
        raise InputError(
            "more than one sequence of checkpoints in this folder",
            subject=run,
            expected="one run",
            found=", ".join(several[:20]),
            remedy="Give one of these folders, or the files of one run.",
        )


def check_one_format(opened: Sequence[Opened], run: str) -> None:
    """Refuse a folder in which files of two formats each hold a sequence.

    Raises:
        InputError: Names the formats, and a file of each.
    """
    found: dict[str, dict[str, dict[object, str]]] = {}
    for o in opened:
        position = o.position.step if o.position.step is not None else o.position.epoch
        if position is not None and not o.ref.is_copy:
            kind = _SAME_WRITER.get(o.snapshot.format, o.snapshot.format)
            found.setdefault(o.ref.sequence, {}).setdefault(kind, {})[position] = o.ref.label
    for formats in found.values():
        several = [(kind, labels) for kind, labels in formats.items() if len(labels) >= 2]
        if len(several) > 1:
            shown = [f"{kind} ({next(iter(labels.values()))} ...)" for kind, labels in several]
            raise InputError(
                "checkpoints of more than one format in this folder",
                subject=run,
                expected="one run in one format",
                found=", ".join(shown),
                remedy="Give the files of one format, or move the others to a folder of their own.",
            )


def _convert(o: Opened, slope: float, offset: float, source: str) -> Opened:
    if o.snapshot.step is not None or o.position.epochs_done is None:
        return o
    step = round(o.position.epochs_done * slope + offset)
    if step < 0:
        return o
    text = f"epoch {o.snapshot.epoch:g} ({source})"
    return replace(o, snapshot=replace(o.snapshot, step=step, step_source=text))


def _rate(opened: Sequence[Opened]) -> tuple[float, float] | None:
    """Steps per epoch and offset, where at least two files hold both and all agree."""
    points = sorted(
        {
            (o.position.epoch, o.position.step)
            for o in opened
            if o.position.epoch is not None and o.position.step is not None
        }
    )
    if len(points) < 2 or points[0][0] == points[-1][0]:
        return None
    (e0, s0), (e1, s1) = points[0], points[-1]
    slope = (s1 - s0) / (e1 - e0)
    offset = s0 - slope * e0
    if slope <= 0 or any(abs(slope * e + offset - s) > 0.5 for e, s in points):
        return None
    return slope, offset


def _unplaced(o: Opened, axis: str) -> Skipped:
    label = o.ref.label
    if axis == "steps" and o.snapshot.epoch is not None:
        detail = f"only its epoch {o.snapshot.epoch:g} is known; give --steps-per-epoch"
        return Skipped(label, SkipReason.NOT_A_CHECKPOINT, detail)
    if o.ref.is_copy:
        return Skipped(label, SkipReason.BEST_OR_LAST_COPY, "carries no step of its own")
    detail = "no step inside or in its name: it cannot be placed in the run"
    return Skipped(label, SkipReason.NOT_A_CHECKPOINT, detail)
