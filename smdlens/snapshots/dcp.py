"""Folders of torch.distributed.checkpoint: `.metadata`, and slices in `.distcp` files.

Also written by FSDP (sharded state dicts), FSDP2, torchtitan, Megatron's torch_dist and the
Trainer with FSDP. `.metadata` is a pickle and every slice a whole archive of `torch.save`; both go
through the inert reader. A tensor saved by several ranks is joined from its slices.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smdlens.containers.files import FileStamp, contained, reading
from smdlens.containers.inert_pickle import PickleEndsError, load_pickle
from smdlens.containers.inert_values import Opaque, PickledTensor
from smdlens.containers.limits import Limits
from smdlens.containers.window import FileWindow
from smdlens.errors import (
    SnapshotCorruptError,
    SnapshotTruncatedError,
    SnapshotUnsafeError,
    SnapshotUnsupportedError,
)
from smdlens.snapshots.candidate import Candidate, RawCheckpoint
from smdlens.snapshots.chunks import Chunk, PieceBudget, join_chunks
from smdlens.snapshots.dcp_metadata import Metadata, Slice, parse_metadata
from smdlens.snapshots.dcp_tree import unflatten
from smdlens.snapshots.resolve import tensor_ref
from smdlens.snapshots.torch_zip import read_archive

METADATA = ".metadata"


class DcpReader:
    """Reader of torch.distributed.checkpoint folders."""

    name = "torch-distributed"

    def recognises(self, candidate: Candidate) -> bool:
        """A folder with the metadata file, which is written last."""
        return METADATA in candidate.names

    def read(self, candidate: Candidate, limits: Limits) -> RawCheckpoint:
        """Read the metadata and the headers of all slices."""
        root, files, stamps = read_dcp(candidate.path, limits)
        return RawCheckpoint(self.name, root, files, stamps)


def read_dcp(
    folder: Path, limits: Limits
) -> tuple[dict[str, Any], tuple[Path, ...], dict[str, FileStamp]]:
    """The nested state in a folder, its files and their stamps."""
    path = folder / METADATA
    metadata = _metadata(path, limits)
    slices, files, stamps = _read_slices(folder, metadata, limits)
    budget = PieceBudget(str(path), limits)
    values: dict[str, Any] = {}
    for key, declared in metadata.tensors.items():
        chunks = []
        for offsets, sizes in declared.chunks:
            found = slices.get((key, offsets))
            if type(found) is not PickledTensor or found.shape != sizes:
                raise SnapshotCorruptError(
                    f"a piece of tensor {key!r} is missing or has another shape",
                    subject=str(path),
                    expected=f"a tensor of shape {sizes} at {offsets}",
                )
            chunks.append(Chunk(offsets, tensor_ref(key, found)))
        values[key] = join_chunks(key, declared.shape, declared.dtype, chunks, budget)
    for key in metadata.objects:
        if (key, None) in slices:
            values[key] = slices[key, None]
    # File order is the order of the state dict, which the metadata keep.
    ordered = {key: values[key] for key in metadata.order if key in values}
    return unflatten(ordered, metadata.paths, str(path)), (path, *files), stamps


def _metadata(path: Path, limits: Limits) -> Metadata:
    with reading(path) as file:
        if file.size > limits.pickle_bytes:
            raise SnapshotUnsafeError(
                "the metadata are too long",
                subject=str(path),
                expected=f"at most {limits.pickle_bytes} bytes",
                found=f"{file.size} bytes",
            )
        data = file.read(0, file.size)
    try:
        root, _ = load_pickle(data, subject=str(path), limits=limits)
    except PickleEndsError as error:
        raise SnapshotTruncatedError(
            "the file ends inside its pickle",
            subject=str(path),
            found=f"{len(data)} bytes",
            remedy="Wait for the trainer to finish, or copy the checkpoint again.",
        ) from error
    if type(root) is not Opaque or root.name != "Metadata" or type(root.state) is not dict:
        raise SnapshotUnsupportedError(
            "not the metadata of torch.distributed.checkpoint", subject=str(path)
        )
    return parse_metadata(root.state, str(path))


_Slices = Mapping[tuple[str, tuple[int, ...] | None], Any]


def _read_slices(
    folder: Path, metadata: Metadata, limits: Limits
) -> tuple[_Slices, list[Path], dict[str, FileStamp]]:
    """What each slice holds, file by file so that one is open at a time."""
    by_file: dict[str, list[Slice]] = {}
    for part in metadata.slices:
        by_file.setdefault(part.file, []).append(part)
    if len(by_file) > limits.index_files:
        raise SnapshotUnsafeError(
            "the metadata name too many files",
            subject=str(folder / METADATA),
            expected=f"at most {limits.index_files}",
            found=str(len(by_file)),
        )
    found: dict[tuple[str, tuple[int, ...] | None], Any] = {}
    files: list[Path] = []
    stamps: dict[str, FileStamp] = {}
    for name, parts in by_file.items():
        path = contained(folder, name, subject=str(folder / METADATA))
        files.append(path)
        with reading(path) as file:
            for part in parts:
                window = FileWindow(file, part.offset, part.nbytes)
                found[part.key, part.chunk] = read_archive(window, limits, part.offset)
        stamps[file.path] = file.stamp
    return found, files, stamps
