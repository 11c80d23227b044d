"""Open a run: checkpoints in, a series of snapshots in the order of their steps out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from smdlens.containers.collector import collector_paused
from smdlens.containers.limits import DEFAULT_LIMITS, Limits
from smdlens.errors import (
    InputError,
    NothingToAnalyseError,
    SnapshotChangedError,
    SnapshotError,
    SnapshotMissingError,
    SnapshotTruncatedError,
)
from smdlens.snapshots.assemble import Assembled, AveragedOnlyError, NoWeightsError, assemble
from smdlens.snapshots.consistency import keep_same_tensors, share_parameter_names
from smdlens.snapshots.discover import CheckpointRef, discover
from smdlens.snapshots.duplicates import keep_one_per_step
from smdlens.snapshots.placing import Opened, check_one_format, check_one_sequence, place
from smdlens.snapshots.readers import read_checkpoint
from smdlens.snapshots.records import Skipped, Snapshot, SnapshotSeries
from smdlens.snapshots.steps import natural_key
from smdlens.snapshots.weight_trees import is_averaged_name
from smdlens.vocabulary import SkipReason
from smdlens.wording import count_of

RunPath = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
StepRange = tuple[int | None, int | None, int | None]

_KEEP_MORE = (
    "Save more checkpoints: Lightning ModelCheckpoint(save_top_k=-1), Hugging Face "
    "TrainingArguments(save_total_limit=None), timm --checkpoint-hist."
)


def open_snapshot(
    path: str | os.PathLike[str],
    *,
    weights_key: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Snapshot:
    """One checkpoint file or folder, from its headers alone.

    Args:
        path: The file or checkpoint folder.
        weights_key: Dotted key of the weight tree to take, where the file holds several.
        limits: Bounds on what the file may claim.

    Raises:
        SnapshotError: It cannot be read; the subclass says why.
        InputError: `weights_key` names no tree.
    """
    where = Path(path)
    raw = read_checkpoint(where, limits)
    files = tuple(_label(file, where.parent) for file in raw.files)
    return assemble(raw, files, (where.name,), weights_key, limits).snapshot


def open_series(
    path: RunPath,
    *,
    weights_key: str | None = None,
    steps_per_epoch: int | None = None,
    steps: StepRange | None = None,
    minimum: int = 2,
    limits: Limits = DEFAULT_LIMITS,
) -> SnapshotSeries:
    """The snapshots of a run in the order of their steps, from headers alone.

    Args:
        path: One run folder (searched to depth 3), or files and checkpoint folders of one run.
        weights_key: Dotted key of the weight tree to take, where files hold several.
        steps_per_epoch: Optimizer iterations per epoch, where files know epochs only.
        steps: (from, to, stride): first and last step, both included, and every stride-th
            snapshot of those; None leaves a side open.
        minimum: Fewest snapshots to return.
        limits: Bounds on what a file may claim.

    Raises:
        NothingToAnalyseError: No such path, or fewer than `minimum` usable snapshots.
        InputError: Two sequences in one folder, or a `weights_key` that no file has.
    """
    single = isinstance(path, (str, os.PathLike))
    paths = [Path(path)] if isinstance(path, (str, os.PathLike)) else [Path(p) for p in path]
    shown = str(paths[0]) if len(paths) == 1 else " ".join(map(str, paths[:3]))
    found = discover(paths)
    opened, skipped, cut_short = _open_all(found.refs, found.root, weights_key, limits)
    skipped += found.skipped
    if single:
        check_one_sequence(opened, shown)
        check_one_format(opened, shown)
    opened = _without_averaged(opened, skipped) if weights_key is None else opened
    placed = place(opened, steps_per_epoch)
    kept, duplicates, restarts = keep_one_per_step(placed.opened)
    kept, different, missing = keep_same_tensors(kept)
    skipped += [*placed.skipped, *duplicates, *different]
    notes = [*placed.notes, *restarts, *missing]
    notes += dict.fromkeys(note for o in kept for note in o.notes)
    chosen = _select([o.snapshot for o in kept], steps)
    skipped = sorted(_settle(skipped, cut_short, kept), key=lambda s: natural_key(s.file))
    if len(chosen) < minimum:
        raise too_few_snapshots(shown, chosen, skipped, minimum, ranged=steps is not None)
    return SnapshotSeries(
        shown, share_parameter_names(chosen), tuple(skipped), placed.axis, tuple(notes)
    )


def _open_all(
    refs: Sequence[CheckpointRef], root: Path, weights_key: str | None, limits: Limits
) -> tuple[list[Opened], list[Skipped], set[str]]:
    """Opened checkpoints, those skipped, and the labels of those that were cut short."""
    cut_short: set[str] = set()
    opened: list[Opened] = []
    skipped: list[Skipped] = []
    wrong_key: InputError | None = None
    for ref in refs:
        try:
            made = _open(ref, root, weights_key, limits)
        except InputError as error:
            wrong_key = error
            skipped.append(Skipped(ref.label, SkipReason.DIFFERENT_TENSORS, error.describe()))
        except SnapshotError as error:
            detail = error.describe(beside=str(ref.path))
            skipped.append(Skipped(ref.label, _reason(error, ref), detail))
            if isinstance(error, SnapshotTruncatedError):
                cut_short.add(ref.label)
        else:
            opened.append(Opened(ref, made.snapshot, made.position, made.notes))
    if wrong_key is not None and not opened:
        raise wrong_key
    return opened, skipped, cut_short


@collector_paused()
def _open(ref: CheckpointRef, root: Path, weights_key: str | None, limits: Limits) -> Assembled:
    try:
        raw = read_checkpoint(ref.path, limits)
    except SnapshotChangedError:
        # A trainer may just have replaced it; a second change means it is still writing.
        raw = read_checkpoint(ref.path, limits)
    files = tuple(_label(file, root) for file in raw.files)
    return assemble(raw, files, ref.names, weights_key, limits)


def _reason(error: SnapshotError, ref: CheckpointRef) -> SkipReason:
    if isinstance(error, AveragedOnlyError):
        return SkipReason.AVERAGED
    if isinstance(error, NoWeightsError):
        return SkipReason.NOT_A_CHECKPOINT
    if isinstance(error, SnapshotMissingError) and not os.path.lexists(ref.path):
        return SkipReason.UNFINISHED  # a trainer that keeps the last few has deleted it
    if isinstance(error, SnapshotTruncatedError | SnapshotChangedError):
        return SkipReason.UNFINISHED
    return SkipReason.UNREADABLE


def _settle(
    skipped: Sequence[Skipped], cut_short: set[str], kept: Sequence[Opened]
) -> list[Skipped]:
    """A file cut short is unfinished only where it is the last; earlier ones are damaged."""
    last = max((natural_key(o.ref.label) for o in kept), default=())
    return [
        Skipped(s.file, SkipReason.UNREADABLE, s.detail)
        if s.file in cut_short and natural_key(s.file) < last
        else s
        for s in skipped
    ]


def _without_averaged(opened: list[Opened], skipped: list[Skipped]) -> list[Opened]:
    """Leave files out whose name says averaged, where others do not say so."""
    averaged = [o for o in opened if is_averaged_name(o.ref.path.name)]
    if not averaged or len(averaged) == len(opened):
        return opened
    skipped += [
        Skipped(o.ref.label, SkipReason.AVERAGED, "its name says that the weights are averaged")
        for o in averaged
    ]
    return [o for o in opened if o not in averaged]


def _select(snapshots: Sequence[Snapshot], steps: StepRange | None) -> tuple[Snapshot, ...]:
    if steps is None:
        return tuple(snapshots)
    first, last, stride = steps
    inside = [
        s
        for s in snapshots
        if (position := s.step if s.step is not None else s.epoch) is not None
        and (first is None or position >= first)
        and (last is None or position <= last)
    ]
    return tuple(inside[:: stride or 1])


def too_few_snapshots(
    run: str,
    snapshots: Sequence[Snapshot],
    skipped: Sequence[Skipped],
    minimum: int,
    *,
    ranged: bool,
    also: str | None = None,
) -> NothingToAnalyseError:
    """The error for a run with fewer usable snapshots than it takes.

    Args:
        run: The path as given.
        snapshots: What is usable.
        skipped: What is not.
        minimum: How many it takes.
        ranged: --steps left some out.
        also: What the one snapshot says all the same.
    """
    found = [f"{count_of(len(snapshots), 'usable snapshot')}"]
    if len(snapshots) == 1:
        found = [f"one usable snapshot ({snapshots[0].files[0]})" + (f": {also}" if also else "")]
    counts = Counter(s.reason.value for s in skipped)
    found += [f"{count} skipped as {reason}" for reason, count in sorted(counts.items())]
    unreadable = next((s for s in skipped if s.reason is SkipReason.UNREADABLE), None)
    if unreadable is not None:
        found.append(f"the first unreadable, {unreadable.file}: {unreadable.detail}")
    return NothingToAnalyseError(
        "too few checkpoints to analyse",
        subject=run,
        expected=f"at least {max(minimum, 2)} usable snapshots",
        found="; ".join(found),
        remedy=_remedy(snapshots, skipped, ranged),
    )


def _remedy(snapshots: Sequence[Snapshot], skipped: Sequence[Skipped], ranged: bool) -> str:
    """What helps depends on why there are so few."""
    if ranged:
        return "Widen --steps."
    if any(s.reason is SkipReason.AVERAGED for s in skipped) and not snapshots:
        return (
            "The files hold averaged weights only; --weights KEY takes them all the same, but "
            "averages do not obey the law."
        )
    if not snapshots and not skipped:
        return (
            "Give the folder that holds the run's checkpoints (.pt, .pth, .ckpt, .bin, "
            ".safetensors, checkpoint-N folders ...); `smdlens doctor` lists the formats."
        )
    return _KEEP_MORE


def _label(file: Path, root: Path) -> str:
    try:
        return file.relative_to(root).as_posix()
    except ValueError:
        return file.name
