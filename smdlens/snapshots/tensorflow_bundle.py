"""TensorFlow's checkpoints (.index beside .data-00000-of-00001): Keras, TF 1, SavedModel variables.

Message numbers from tensorflow/core/protobuf/tensor_bundle.proto.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from smdlens.containers.files import FileStamp, RegularFile, contained, open_regular, reading
from smdlens.containers.limits import Limits
from smdlens.containers.protobuf import ProtobufError, fields, raw, varint, whole
from smdlens.containers.sorted_table import is_sorted_table, read_sorted_table
from smdlens.errors import (
    SnapshotCorruptError,
    SnapshotError,
    SnapshotTruncatedError,
    SnapshotUnsafeError,
    SnapshotUnsupportedError,
)
from smdlens.snapshots.candidate import Candidate, RawCheckpoint
from smdlens.snapshots.chunks import Chunk, PieceBudget, join_chunks
from smdlens.snapshots.records import DTYPE_BYTES, Extent, TensorRef
from smdlens.snapshots.scalars import ScalarReader
from smdlens.snapshots.tensorflow_graph import ObjectGraph, parse_graph
from smdlens.snapshots.tensorflow_slices import Extents, slice_box, slice_extents, slice_key
from smdlens.snapshots.tensorflow_tree import Variable, from_variables

_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_STRING = 7
_DTYPES = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 8: "complex64",
    9: "int64", 10: "bool", 14: "bfloat16", 17: "uint16", 18: "complex128", 19: "float16",
    22: "uint32", 23: "uint64", 24: "float8_e5m2", 25: "float8_e4m3fn",
}  # fmt: skip


class TensorFlowReader:
    """Reader of tensor bundles, by their .index file."""

    name = "tensorflow"

    def recognises(self, candidate: Candidate) -> bool:
        """A sorted table whose first key is empty, as the bundle's header is kept."""
        if candidate.head[:2] != b"\0\0":
            return False
        try:
            with open_regular(candidate.path) as file:
                return is_sorted_table(file)
        except SnapshotError:
            return False

    def read(self, candidate: Candidate, limits: Limits) -> RawCheckpoint:
        """Read the index and the small text of names; tensors stay in the data files."""
        path = candidate.path
        with reading(path) as file:
            try:
                entries, parts, shards = _index(file, limits)
            except ProtobufError as error:
                raise _corrupt(str(path), str(error)) from error
        stem = path.name.removesuffix(".index")
        files = [
            contained(path.parent, f"{stem}.data-{n:05d}-of-{shards:05d}", subject=str(path))
            for n in range(shards)
        ]
        stamps: dict[str, FileStamp] = {}
        sizes: list[int] = []
        graph = ObjectGraph()
        for number, data in enumerate(files):
            with reading(data) as file:
                sizes.append(file.size)
                held = entries.get(_GRAPH)
                if held is not None and held.dtype == _STRING and held.shard == number:
                    graph = _graph(file, held, limits)
            stamps[file.path] = file.stamp
        bundle = _Bundle(entries, parts, files, sizes, PieceBudget(str(path), limits))
        variables = [
            Variable(key, graph.name(key), ref, graph.places.get(key, len(graph.nodes)))
            for key, entry in entries.items()
            if (ref := _tensor(key, entry, bundle, str(path))) is not None
        ]
        with ScalarReader(stamps) as scalars:
            root = from_variables(variables, scalars.number, graph)
        return RawCheckpoint(self.name, root, (path, *files), stamps)


@dataclass(frozen=True, slots=True)
class _Entry:
    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    nbytes: int
    slices: tuple[Extents, ...]


@dataclass(frozen=True, slots=True)
class _Bundle:
    """An index: tensors by key, slices of partitioned ones by theirs, and the data files."""

    entries: dict[str, _Entry]
    parts: dict[bytes, _Entry]
    files: list[Path]
    sizes: list[int]
    budget: PieceBudget


def _index(file: RegularFile, limits: Limits) -> tuple[dict[str, _Entry], dict[bytes, _Entry], int]:
    """Entries by key, those of slices by theirs, and the number of data files."""
    entries: dict[str, _Entry] = {}
    parts: dict[bytes, _Entry] = {}
    shards = 0
    for number, (key, value) in enumerate(read_sorted_table(file, limits)):
        if number > limits.plain_values:
            raise SnapshotUnsafeError(
                "the index has too many entries",
                subject=file.path,
                expected=f"at most {limits.plain_values}",
            )
        if key.startswith(b"\0"):
            parts[key] = _entry(value)
            continue
        if key:
            entries[key.decode("utf-8", "replace")] = _entry(value)
            continue
        header = {n: v for n, v in fields(value) if isinstance(v, int)}
        if 1 not in header and any(n == 1 for n, _ in fields(value)):
            raise SnapshotUnsupportedError(
                "a checkpoint of TensorFlow's first format (SaverDef.V1)",
                subject=file.path,
                remedy="Restore it and save it again; every Saver's default is the second.",
            )
        shards = header.get(1, 0)
        if header.get(2, 0) != 0:
            raise SnapshotUnsupportedError(
                "the checkpoint was written on a big-endian machine", subject=file.path
            )
    if not 0 < shards <= limits.index_files:
        raise _corrupt(file.path, f"{shards} data files")
    return entries, parts, shards


def _entry(value: bytes) -> _Entry:
    numbers = {1: 0, 3: 0, 4: 0, 5: 0}
    shape: tuple[int, ...] = ()
    slices: list[Extents] = []
    for number, item in fields(value):
        if number in numbers:
            numbers[number] = whole(item)
        elif number == 2:
            dims = [raw(v) for n, v in fields(raw(item)) if n == 2]
            shape = tuple(next((whole(v) for n, v in fields(dim) if n == 1), 0) for dim in dims)
        elif number == 7:
            slices.append(slice_extents(raw(item)))
    if len(shape) > 64 or any(n >= 1 << 62 for n in (*shape, *numbers.values())):
        raise ProtobufError("an impossible shape or place")
    return _Entry(numbers[1], shape, numbers[3], numbers[4], numbers[5], tuple(slices))


def _tensor(key: str, entry: _Entry, bundle: _Bundle, subject: str) -> TensorRef | None:
    """Where a tensor lies; None for text and other things that are no numbers."""
    dtype = _DTYPES.get(entry.dtype)
    if dtype is None:
        return None
    if entry.slices:
        return _joined(key, entry, dtype, bundle, subject)
    if entry.nbytes != math.prod(entry.shape) * DTYPE_BYTES[dtype] or entry.shard >= len(
        bundle.files
    ):
        raise _corrupt(subject, f"{key[:100]!r} has another size than its shape says")
    data, size = str(bundle.files[entry.shard]), bundle.sizes[entry.shard]
    if entry.offset + entry.nbytes > size:
        raise SnapshotTruncatedError(
            f"the data file ends inside {key!r}",
            subject=data,
            expected=f"{entry.nbytes} bytes at offset {entry.offset}",
            found=f"a file of {size} bytes",
            remedy="Wait for the trainer to finish, or copy the checkpoint again.",
        )
    place = Extent(data, entry.offset, entry.nbytes)
    return TensorRef(key, entry.shape, dtype, (place,) if entry.nbytes else ())


def _joined(key: str, entry: _Entry, dtype: str, bundle: _Bundle, subject: str) -> TensorRef:
    """A variable that was saved in partitions."""
    boxes = []
    for extents in entry.slices:
        try:
            corner, shape = slice_box(extents, entry.shape)
        except ProtobufError as error:
            raise _corrupt(subject, f"{key[:100]!r}: {error}") from error
        held = bundle.parts.get(slice_key(key, extents))
        part = None if held is None else _tensor(key, held, bundle, subject)
        if part is None or part.shape != shape or part.dtype != dtype:
            raise _corrupt(subject, f"{key[:100]!r} without the slice at {corner}")
        boxes.append(Chunk(corner, part))
    return join_chunks(key, entry.shape, dtype, boxes, bundle.budget)


def _graph(file: RegularFile, entry: _Entry, limits: Limits) -> ObjectGraph:
    """The saved graph of objects."""
    if entry.nbytes > limits.json_bytes:
        raise SnapshotUnsafeError(
            "the object graph is too long",
            subject=file.path,
            expected=f"at most {limits.json_bytes} bytes",
            found=f"{entry.nbytes} bytes",
        )
    data = file.read(entry.offset, entry.nbytes)
    try:
        # A string tensor of one element: its length, a checksum of four bytes, then the text.
        length, at = varint(data, 0)
        if length != len(data) - at - 4:
            raise ProtobufError("a text of another length than it says")
        return parse_graph(data[at + 4 :])
    except ProtobufError as error:
        raise _corrupt(file.path, f"the object graph: {error}") from error


def _corrupt(subject: str, found: str) -> SnapshotCorruptError:
    return SnapshotCorruptError(
        "the checkpoint contradicts its format",
        subject=subject,
        found=found,
        remedy="Copy all its files again, or leave it out.",
    )
