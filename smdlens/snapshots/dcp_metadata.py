"""What `.metadata` of torch.distributed.checkpoint says, checked field by field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smdlens.containers.inert_values import Opaque, TorchDtype
from smdlens.errors import SnapshotCorruptError, SnapshotUnsupportedError
from smdlens.snapshots.records import DTYPE_BYTES

_MOST_DIMENSIONS = 64
Box = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class DeclaredTensor:
    """A tensor and the boxes (offsets, sizes) it was saved in."""

    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class Slice:
    """Where one saved piece lies: a file and a range of its bytes; `chunk` is None for objects."""

    key: str
    chunk: tuple[int, ...] | None
    file: str
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Metadata:
    """The whole file.

    Attributes:
        tensors: Key -> tensor.
        objects: Keys of values that are no tensors.
        order: All keys in the order of the state dict.
        paths: Key -> path in the nested state.
        slices: Every saved piece.
    """

    tensors: Mapping[str, DeclaredTensor]
    objects: frozenset[str]
    order: tuple[str, ...]
    paths: Mapping[str, tuple[str | int, ...]]
    slices: tuple[Slice, ...]


def parse_metadata(state: Mapping[Any, Any], subject: str) -> Metadata:
    """Check and copy what the pickle gives.

    Raises:
        SnapshotCorruptError: A field is missing or of another kind.
        SnapshotUnsupportedError: Slices that are compressed, or dtypes that are not read.
    """
    declared, stored = state.get("state_dict_metadata"), state.get("storage_data")
    if type(declared) is not dict or type(stored) is not dict:
        raise _corrupt(subject, "no state or storage is described")
    tensors: dict[str, DeclaredTensor] = {}
    objects: set[str] = set()
    for key, value in declared.items():
        if type(key) is not str or type(value) is not Opaque:
            raise _corrupt(subject, "a value without a name or kind")
        if value.name == "TensorStorageMetadata":
            tensors[key] = _tensor(key, value, subject)
        elif value.name == "BytesStorageMetadata":
            objects.add(key)
        else:
            raise _corrupt(subject, f"the kind of {key[:100]!r} is not known")
    slices = tuple(_slice(index, info, tensors, subject) for index, info in stored.items())
    paths = state.get("planner_data")
    found = _paths(paths, subject) if type(paths) is dict else {}
    return Metadata(tensors, frozenset(objects), tuple(declared), found, slices)


def _tensor(key: str, value: Opaque, subject: str) -> DeclaredTensor:
    state = value.state
    chunks = state.get("chunks") if type(state) is dict else None
    if type(state) is not dict or type(chunks) is not list:
        raise _corrupt(subject, f"tensor {key[:100]!r} has no pieces")
    shape = _sizes(state.get("size"))
    dtype = _dtype(state.get("properties"))
    if shape is None or dtype is None:
        raise _corrupt(subject, f"tensor {key[:100]!r} has no shape or dtype")
    if dtype not in DTYPE_BYTES:
        raise SnapshotUnsupportedError(
            f"tensor {key!r} has a dtype that is not read", subject=subject, found=dtype[:50]
        )
    boxes: dict[tuple[int, ...], tuple[int, ...]] = {}
    for chunk in chunks:
        held = chunk.state if type(chunk) is Opaque else None
        offsets = _sizes(held.get("offsets")) if type(held) is dict else None
        sizes = _sizes(held.get("sizes")) if type(held) is dict else None
        if offsets is None or sizes is None:
            raise _corrupt(subject, f"a piece of tensor {key[:100]!r} has no place")
        # Several ranks may have saved the same piece.
        boxes[offsets] = sizes
    return DeclaredTensor(shape, dtype, tuple(boxes.items()))


def _dtype(properties: Any) -> str | None:
    """From TensorProperties: (dtype, layout, ...), or a dict of them in early versions."""
    held = properties.state if type(properties) is Opaque else None
    if type(held) is dict:
        first = held.get("dtype")
    elif type(held) is tuple and held:
        first = held[0]
    else:
        return None
    return first.name if type(first) is TorchDtype else None


def _slice(index: Any, info: Any, tensors: Mapping[str, DeclaredTensor], subject: str) -> Slice:
    place = index.state if type(index) is Opaque else None
    where = info.state if type(info) is Opaque else None
    if type(place) is not dict or type(where) is not dict:
        raise _corrupt(subject, "a piece without a place")
    key, given = place.get("fqn"), place.get("offset")
    file, start, nbytes = (where.get(k) for k in ("relative_path", "offset", "length"))
    if type(key) is not str or type(file) is not str:
        raise _corrupt(subject, "a piece without a name or file")
    if type(start) is not int or type(nbytes) is not int or start < 0 or nbytes < 0:
        raise _corrupt(subject, f"a piece of {key[:100]!r} lies at an impossible place")
    if where.get("transform_descriptors"):
        raise SnapshotUnsupportedError(
            f"the pieces of {key!r} are compressed",
            subject=subject,
            expected="pieces as torch.save writes them",
            remedy="Save the checkpoint without storage extensions.",
        )
    chunk = None
    if key in tensors:
        chunk = _sizes(given)
        if chunk is None:
            chunk = (0,) * len(tensors[key].shape)
    return Slice(key, chunk, file, start, nbytes)


def _paths(paths: Mapping[Any, Any], subject: str) -> dict[str, tuple[str | int, ...]]:
    found: dict[str, tuple[str | int, ...]] = {}
    for key, path in paths.items():
        if type(key) is not str or type(path) is not tuple:
            continue
        if not all(type(part) in (str, int) for part in path):
            raise _corrupt(subject, f"the path of {key[:100]!r} is not one of names")
        found[key] = path
    return found


def _sizes(value: Any) -> tuple[int, ...] | None:
    if type(value) not in (tuple, list) or len(value) > _MOST_DIMENSIONS:
        return None
    good = all(type(n) is int and 0 <= n < 1 << 62 for n in value)
    return tuple(value) if good else None


def _corrupt(subject: str, found: str) -> SnapshotCorruptError:
    return SnapshotCorruptError(
        "the metadata contradict their format",
        subject=subject,
        found=found,
        remedy="Copy the checkpoint again, or leave it out.",
    )
