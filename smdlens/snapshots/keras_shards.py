"""Keras' sharded weights, X.weights.json beside X_00000.weights.h5 and so on, as one tree."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from smdlens.containers.files import RegularFile, contained, reading
from smdlens.containers.hdf5_file import Hdf5Dataset, Hdf5Group, read_hdf5
from smdlens.containers.json_header import read_json
from smdlens.containers.limits import Limits
from smdlens.errors import SnapshotCorruptError, SnapshotMissingError, SnapshotTruncatedError

_INDEX = re.compile(rb'\{\s*(?:"metadata".{0,200})?"weight_map"\s*:\s*\{\s*"/', re.DOTALL)
_SHARD = re.compile(r"(?P<stem>.+)_\d{5}\.weights\.h5")
Owners = dict[int, RegularFile]


def is_shard_index(head: bytes) -> bool:
    """Whether a file starts as an index of groups ("/layers/conv2d/vars") by shard."""
    return _INDEX.match(head) is not None


def index_of_shard(name: str) -> str | None:
    """Name of the index beside a file that is named as a shard; None for other names."""
    match = _SHARD.fullmatch(name)
    return None if match is None else f"{match['stem']}.weights.json"


def read_shards(path: Path, limits: Limits, stack: ExitStack) -> tuple[Hdf5Group, Owners]:
    """The joined groups of all shards, and each dataset's file by the dataset's identity.

    Args:
        path: The index.
        limits: Bounds.
        stack: Keeps the files open.

    Raises:
        SnapshotError: A shard is missing, damaged or lies outside the index' folder.
    """
    groups: list[Hdf5Group] = []
    owners: Owners = {}
    for name in _shards(read_json(str(path), limits=limits), str(path), limits):
        shard = contained(path.parent, name, subject=str(path))
        try:
            file = stack.enter_context(reading(shard))
        except SnapshotMissingError as error:
            raise SnapshotTruncatedError(
                "a shard of the weights is missing",
                subject=str(path),
                expected=name[:200],
                remedy="Wait for the trainer to finish, or copy all its files again.",
            ) from error
        group = read_hdf5(file, limits)
        groups.append(group)
        owners.update((id(dataset), file) for dataset in _datasets(group))
    if not owners:
        raise _corrupt(str(path), "no array in any of them")
    return _joined(groups, "", str(path)), owners


def _shards(index: Any, subject: str, limits: Limits) -> list[str]:
    table = index.get("weight_map") if isinstance(index, Mapping) else None
    found: dict[str, None] = {}
    for value in table.values() if isinstance(table, Mapping) else ():
        for name in value if isinstance(value, list) else [value]:
            if type(name) is not str or len(found) > limits.index_files:
                raise _corrupt(subject, "an impossible table of shards")
            found[name] = None
    if not found:
        raise _corrupt(subject, "no table of shards")
    return list(found)


def _datasets(group: Hdf5Group) -> Iterator[Hdf5Dataset]:
    for value in group.members.values():
        if isinstance(value, Hdf5Group):
            yield from _datasets(value)
        else:
            yield value


def _joined(groups: list[Hdf5Group], place: str, subject: str) -> Hdf5Group:
    members: dict[str, Hdf5Group | Hdf5Dataset] = {}
    attributes = {k: v for group in groups for k, v in group.attributes.items()}
    for name in dict.fromkeys(name for group in groups for name in group.members):
        held = [group.members[name] for group in groups if name in group.members]
        inner = [value for value in held if isinstance(value, Hdf5Group)]
        if len(inner) == len(held):
            members[name] = _joined(inner, f"{place}/{name}", subject)
        elif len(held) == 1:
            members[name] = held[0]
        else:
            raise _corrupt(subject, f"{place}/{name}"[:200] + " lies in two shards")
    return Hdf5Group(members, attributes)


def _corrupt(subject: str, found: str) -> SnapshotCorruptError:
    return SnapshotCorruptError(
        "the shards of the weights do not fit together",
        subject=subject,
        found=found,
        remedy="Copy all its files again, or leave it out.",
    )
