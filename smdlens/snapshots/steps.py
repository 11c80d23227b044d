"""When a snapshot was taken: steps and epochs from inside a file, or from its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smdlens.snapshots.scalars import ScalarReader

STEP_KEYS = (
    "global_step", "global_steps", "step", "iteration", "iter", "it", "n_iter", "num_updates",
    "steps",
)  # fmt: skip
EPOCH_KEYS = ("epoch", "epochs", "epoch_idx", "current_epoch")
# Sub-dictionaries in which trainers keep them.
_NESTED = ("", "trainer_state", "meta", "train_state", "trainer", "progress", "__metadata__")
_SUFFIXES = re.compile(
    r"(?:\.(?:pth|pt|pt2|ckpt|bin|pkl|tar|th|safetensors|model|index|h5|weights|npz|npy|params|hdf5|"
    r"distcp|msgpack|onnx|gguf|pdparams|pdopt|keras))+$"
)
_TAIL = r"(?:[_\-=+ ,@(\[].*)?"
_WORD = r"(?:.*[^a-z])?"
_STEP = re.compile(
    rf"{_WORD}(?:global_?steps?|steps?|iterations?|iters?|it|updates?|gs)[=_\-]?(\d{{1,15}}){_TAIL}"
)
_EPOCH = re.compile(rf"{_WORD}(?:epochs?|ep)[=_\-]?(\d{{1,9}}){_TAIL}")
_NUMBER = re.compile(
    r"(?:.*(?:[_\-= ]|(?<!\d)\.)|(?:ckpt|checkpoint|model|snapshot|weights|state|net|save))?"
    r"(\d{1,15})"
)
# ModelCheckpoint("weights.{epoch:02d}-{val_loss:.2f}.h5"), the example in Keras' documentation.
_EPOCH_AND_LOSS = re.compile(r"(?:.*[^0-9])?(\d{1,6})-\d+\.\d+")
COPY_NAME = re.compile(
    rf"{_WORD}(?:latest|last|best|final|current|resume|newest|model_best)(?:[^a-z].*)?"
)


@dataclass(frozen=True, slots=True)
class NamePosition:
    """What a name says; `number` is a bare number: a step unless the file objects."""

    step: int | None = None
    epoch: int | None = None
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """When a snapshot was taken.

    Attributes:
        step: Updates done, where known.
        epoch: Epoch as the file or its name has it, where known.
        source: Where the step (else the epoch) comes from.
        epochs_done: Epochs finished at that time where a scheduler stepped once per epoch tells
            it (a loop that counts from 0 saves epoch e after e + 1 epochs), else `epoch`.
    """

    step: int | None
    epoch: float | None
    source: str
    epochs_done: float | None = None


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts step-9 before step-10."""
    return tuple(
        (0, int(part), "") if part.isdecimal() and part.isascii() else (1, 0, part)
        for part in re.split(r"([0-9]+)", text)
        if part
    )


def position_of_name(name: str) -> NamePosition:
    """Read a file or folder name by full match; integers, never a prefix of another word."""
    stem = _SUFFIXES.sub("", name.lower())
    step = _STEP.fullmatch(stem)
    epoch = _EPOCH.fullmatch(stem)
    if step or epoch:
        return NamePosition(
            int(step.group(1)) if step else None, int(epoch.group(1)) if epoch else None
        )
    if (found := _EPOCH_AND_LOSS.fullmatch(stem)) is not None:
        return NamePosition(epoch=int(found.group(1)))
    number = _NUMBER.fullmatch(stem)
    return NamePosition(number=int(number.group(1)) if number else None)


def is_copy_name(name: str) -> bool:
    """Whether a name is that of a copy: latest, last, best, final."""
    return COPY_NAME.fullmatch(_SUFFIXES.sub("", name.lower())) is not None


def position_of(
    root: Any, names: tuple[str, ...], adam_steps: int | None, numbers: ScalarReader
) -> Position:
    """The position of one checkpoint.

    Args:
        root: Its raw content.
        names: Its name, then its folders' names up to the run folder.
        adam_steps: Largest `step` in its optimizer state.
        numbers: Reader for counters stored as tensors.
    """
    step, source = _inside(root, STEP_KEYS, numbers)
    epoch, epoch_source = _inside(root, EPOCH_KEYS, numbers)
    if adam_steps is not None and step is not None and abs(adam_steps - step) == 1:
        # A loop that counts from 0 saves its index; the optimizer counts the updates themselves.
        return Position(adam_steps, epoch, f"optimizer state 'step' ({source} says {int(step)})")
    if step is not None:
        return Position(int(step), epoch, source)
    if adam_steps is not None:
        return Position(adam_steps, epoch, "optimizer state 'step'")
    done = _epochs_done(root, epoch, numbers)
    for name in names:
        read = position_of_name(name)
        if read.step is not None or read.epoch is not None:
            named = _first(epoch, read.epoch)
            return Position(read.step, named, f"name {name!r}", _first(done, read.epoch))
        if read.number is not None:
            if epoch is not None and abs(read.number - epoch) <= 1:
                return Position(None, epoch, epoch_source, done)
            return Position(read.number, epoch, f"name {name!r}", done)
    return Position(None, epoch, epoch_source, done)


def _first(epoch: float | None, other: int | None) -> float | None:
    return epoch if epoch is not None else other


def _inside(root: Any, keys: tuple[str, ...], numbers: ScalarReader) -> tuple[float | None, str]:
    for place in _NESTED:
        where = root.get(place) if place and isinstance(root, Mapping) else root
        if not isinstance(where, Mapping):
            continue
        for key in keys:
            value = _counter(where.get(key), numbers, text=place == "__metadata__")
            if value is not None and (keys is EPOCH_KEYS or value == int(value)):
                return value, f"key {f'{place}.{key}' if place else key!r}"
    return None, "unknown"


def _counter(value: Any, numbers: ScalarReader, *, text: bool) -> float | None:
    if text and isinstance(value, str) and re.fullmatch(r"\d{1,15}", value):
        return float(value)
    number = numbers.number(value)
    if number is None or isinstance(number, bool) or not 0 <= number < 1e15:
        return None
    return number


def _epochs_done(root: Any, epoch: float | None, numbers: ScalarReader) -> float | None:
    if epoch is None or not isinstance(root, Mapping):
        return epoch
    for key in ("lr_scheduler", "scheduler", "lr_schedulers"):
        state = root.get(key)
        if isinstance(state, Mapping) and numbers.number(state.get("last_epoch")) == epoch + 1:
            return epoch + 1
    arch, version = root.get("arch"), numbers.number(root.get("version"))
    if isinstance(arch, str) and version is not None and version >= 2:
        return epoch + 1  # timm counts from 0 since version 2 of its checkpoints
    return epoch
