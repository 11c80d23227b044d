"""Find the checkpoints of a run on disk, and say what was left out at sight."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from smdlens.errors import InputError, NothingToAnalyseError, SnapshotError
from smdlens.snapshots.candidate import Candidate, is_folder
from smdlens.snapshots.hf_folder import has_trainer_state, is_unfinished
from smdlens.snapshots.keras_shards import index_of_shard
from smdlens.snapshots.readers import look, reader_for
from smdlens.snapshots.records import Skipped
from smdlens.snapshots.sharded_markers import missing_marker
from smdlens.snapshots.steps import is_copy_name, natural_key, position_of_name
from smdlens.vocabulary import SkipReason
from smdlens.wording import count_of

_DEPTH = 3
# No format can be told from fewer bytes, and no checkpoint is as small; the first ones tell a
# checkpoint that a trainer has just begun from something else.
_SMALLEST = 64
_FIRST_BYTES = re.compile(
    rb"PK|\x80[\x02-\x05]|\x89H?D?F?|GGUF|\x93NUMPY|.{3}\0{5}|\0+\Z", re.DOTALL
)
_CHECKPOINT_SUFFIX = re.compile(
    r"\.(?:pt|pth|ckpt|bin|safetensors|tar|th|pkl|pt2|h5|hdf5|keras|np[yz]|msgpack|index|onnx|gguf|"
    r"pdparams|params|distcp)(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_UNFINISHED_NAME = re.compile(
    r"(?:tmp[-_.](?P<rest>.*)|(?P<stem>.*)\.(?:tmp|temp|part|partial|incomplete|crdownload|orbax-checkpoint-tmp)"
    r"(?:[-_.].*)?)",
    re.IGNORECASE,
)
# Parts of a checkpoint that hold no weights; they belong to the file or folder beside them.
_AUXILIARY_NAME = re.compile(
    r"(?:optimizer|optim|scheduler|lr_scheduler|scaler|sampler|rng_state|random_states|"
    r"training_args|dataloader|tokenizer)(?:[_-][\w-]*|\d*)\.\w+|.*\.(?:pdopt|pdstates|pdema|states)"
)


@dataclass(frozen=True, slots=True)
class CheckpointRef:
    """One checkpoint found on disk.

    Attributes:
        path: The file or folder.
        label: Its path relative to the run folder, for people.
        names: Its own name, then its folders' names up to the run folder.
        sequence: Label of the folder whose sequence it belongs to.
        is_copy: Whether it is a copy of another by its name (latest, best, final) or place (the
            run folder itself, beside checkpoint folders).
    """

    path: Path
    label: str
    names: tuple[str, ...]
    sequence: str
    is_copy: bool


@dataclass(slots=True)
class Discovery:
    """What a search found.

    Attributes:
        root: The run folder; labels are relative to it.
        refs: Checkpoints in natural order of their labels.
        skipped: Left out at sight.
    """

    root: Path
    refs: list[CheckpointRef] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def skip(self, path: Path, reason: SkipReason, detail: str) -> None:
        """Leave a file or folder out."""
        self.skipped.append(Skipped(self.label(path), reason, detail))

    def label(self, path: Path) -> str:
        """The path relative to the run folder."""
        return path.relative_to(self.root).as_posix() if path != self.root else path.resolve().name

    def add(self, path: Path) -> None:
        """Take a checkpoint in."""
        parts = path.relative_to(self.root).parts or (path.name,)
        names = tuple(reversed(parts))
        folders = list(parts[:-1])
        if not _has_position(parts[-1]):
            # step1000/model.pt: the folder carries the step, its parent holds the sequence.
            while folders and _has_position(folders[-1]):
                folders.pop()
        sequence = "/".join(folders) or "."
        copy = path == self.root or is_copy_name(names[0])
        # The name of the run folder is no name of a checkpoint.
        names = names if path != self.root else ()
        self.refs.append(CheckpointRef(path, self.label(path), names, sequence, copy))


def discover(paths: Sequence[Path]) -> Discovery:
    """Search one run folder to depth 3, or take the files and checkpoint folders given.

    Raises:
        NothingToAnalyseError: A path does not exist or cannot be listed.
        InputError: Several paths, one of which is a folder that is no checkpoint.
    """
    for path in paths:
        if not os.path.lexists(path):
            raise NothingToAnalyseError(
                "no such file or folder", subject=str(path), remedy="Check the path."
            )
    if len(paths) == 1 and is_folder(paths[0]):
        found = Discovery(paths[0])
        _search(found, paths[0], _DEPTH, set())
    else:
        absolute = [path.absolute() for path in paths]
        parents = [str(path.parent) for path in absolute]
        found = Discovery(Path(os.path.commonpath(parents)) if parents else Path())
        for path in dict.fromkeys(absolute):
            _take_given(found, path)
    found.refs.sort(key=lambda ref: natural_key(ref.label))
    return found


def _take_given(found: Discovery, path: Path) -> None:
    if not is_folder(path):
        _file(found, path, insist=True)
        return
    candidate = _look(found, path)
    if candidate is None:
        return
    if reader_for(candidate) is None:
        raise InputError(
            "a folder among several paths must be one checkpoint",
            subject=str(path),
            expected="one run folder alone, or files and checkpoint folders of one run",
            remedy="Give the folder alone, or the checkpoints inside it.",
        )
    _folder(found, candidate, trained_by_trainer=False)


def _search(found: Discovery, folder: Path, depth: int, seen: set[str]) -> None:
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    try:
        entries = sorted(folder.iterdir(), key=lambda p: natural_key(p.name))
    except OSError as error:
        if folder == found.root:
            raise NothingToAnalyseError(
                "the folder cannot be listed", subject=str(folder), found=error.strerror
            ) from error
        found.skip(folder, SkipReason.UNREADABLE, f"cannot be listed: {error.strerror}")
        return
    entries = [e for e in entries if not e.name.startswith(".")]
    folders = [e for e in entries if is_folder(e)]
    inside = [(e, c) for e in folders if (c := _look(found, e)) is not None]
    trainer = any(has_trainer_state(candidate) for _, candidate in inside)
    own = _look(found, folder)
    whole = own is not None and reader_for(own) is not None
    if own is not None and whole:
        # A run folder may hold a final copy of the weights beside the checkpoint folders.
        _folder(found, own, trained_by_trainer=False)
    for entry, candidate in inside:
        if reader_for(candidate) is not None:
            _folder(found, candidate, trained_by_trainer=trainer)
        elif _named_unfinished(entry.name):
            found.skip(entry, SkipReason.UNFINISHED, "named as a temporary folder")
        elif (missing := missing_marker(candidate)) is not None:
            found.skip(entry, SkipReason.UNFINISHED, missing)
        elif depth > 0:
            _search(found, entry, depth - 1, seen)
    if not whole:
        names = {entry.name for entry in entries}
        for entry in entries:
            # Shards of Keras' weights are read by way of their index.
            if entry not in folders and index_of_shard(entry.name) not in names:
                _file(found, entry, insist=False)


def _folder(found: Discovery, candidate: Candidate, *, trained_by_trainer: bool) -> None:
    path = candidate.path
    if _named_unfinished(path.name):
        found.skip(path, SkipReason.UNFINISHED, "named as a temporary folder")
    elif path != found.root and is_unfinished(candidate, trained_by_trainer):
        found.skip(path, SkipReason.UNFINISHED, "trainer_state.json is missing")
    else:
        found.add(path)


def _file(found: Discovery, path: Path, *, insist: bool) -> None:
    """Take a file in, skip it with a reason, or pass over it silently.

    Args:
        found: Where to.
        path: The file.
        insist: The user named it, so silence is no answer.
    """
    name = path.name
    if _named_unfinished(name):
        found.skip(path, SkipReason.UNFINISHED, "named as a temporary file")
        return
    looks = insist or _CHECKPOINT_SUFFIX.search(name) is not None
    if not insist and _AUXILIARY_NAME.fullmatch(name):
        return
    try:
        candidate = look(path)
    except SnapshotError as error:
        if looks and (insist or os.path.lexists(path)):
            found.skip(path, SkipReason.UNREADABLE, error.describe(beside=str(path)))
        return
    if reader_for(candidate) is not None:
        found.add(path)
    elif looks and candidate.size < _SMALLEST and _just_begun(candidate.head):
        few = f"has only {count_of(candidate.size, 'byte')}" if candidate.size else "is empty"
        found.skip(path, SkipReason.UNFINISHED, f"the file {few}")
    elif looks:
        found.skip(path, SkipReason.NOT_A_CHECKPOINT, "not a format that smdlens reads")


def _just_begun(head: bytes) -> bool:
    return not head or _FIRST_BYTES.match(head) is not None


def _look(found: Discovery, path: Path) -> Candidate | None:
    try:
        return look(path)
    except SnapshotError:
        return None


def _named_unfinished(name: str) -> bool:
    """Whether a name is that of a checkpoint still being written (ckpt_5.pt.tmp, tmp-step5)."""
    match = _UNFINISHED_NAME.fullmatch(name)
    if match is None:
        return False
    final = match["stem"] or match["rest"] or ""
    return _CHECKPOINT_SUFFIX.search(final) is not None or _has_position(final)


def _has_position(name: str) -> bool:
    read = position_of_name(name)
    return read.step is not None or read.epoch is not None or read.number is not None
