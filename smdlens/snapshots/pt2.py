"""Archives of `torch.export.save` (.pt2): a JSON table of weights, and their raw bytes.

The exported program itself is never looked at here.
"""

from __future__ import annotations

import math
from typing import Any

from smdlens.containers.files import RegularFile, reading
from smdlens.containers.inert_values import PickledTensor, Storage
from smdlens.containers.json_header import parse_json
from smdlens.containers.limits import Limits
from smdlens.containers.window import FileWindow
from smdlens.containers.zip_directory import ZipEntry, read_zip_directory, require_stored
from smdlens.errors import (
    SnapshotCorruptError,
    SnapshotUnsafeError,
    SnapshotUnsupportedError,
)
from smdlens.snapshots.candidate import Candidate, RawCheckpoint
from smdlens.snapshots.records import DTYPE_BYTES
from smdlens.snapshots.torch_zip import read_archive

_TABLE = "data/weights/model_weights_config.json"
_FOLDER = "data/weights/"
_FIRST_ENTRIES = (
    b"data/weights/", b"data/constants/", b"models/", b"archive_format", b"archive_version",
)  # fmt: skip
# The numbers of torch's export schema; a number that is not here is not read.
_DTYPES = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32",
    8: "float64", 10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16",
    29: "float8_e4m3fn", 30: "float8_e5m2", 31: "float8_e4m3fnuz", 32: "float8_e5m2fnuz",
    33: "float8_e8m0fnu", 34: "uint32", 35: "uint64",
}  # fmt: skip


class Pt2Reader:
    """Reader of torch.export archives."""

    name = "torch-export"

    def recognises(self, candidate: Candidate) -> bool:
        """A zip whose first entry is one that only torch.export writes."""
        head = candidate.head
        if not head.startswith(b"PK\3\4"):
            return False
        length = int.from_bytes(head[26:28], "little")
        _, slash, entry = head[30 : 30 + length].partition(b"/")
        return slash != b"" and entry.startswith(_FIRST_ENTRIES)

    def read(self, candidate: Candidate, limits: Limits) -> RawCheckpoint:
        """Read the table of weights; the weights stay where they are."""
        with reading(candidate.path) as file:
            entries = read_zip_directory(file, limits)
            prefix = next((n[: -len(_TABLE)] for n in entries if n.endswith(f"/{_TABLE}")), None)
            if prefix is None:
                raise SnapshotUnsupportedError(
                    "an exported program without a table of weights",
                    subject=file.path,
                    expected=f"an entry {_TABLE}, as torch.export.save writes it since 2.8",
                    remedy="Export the program again with a later torch, or save its state_dict.",
                )
            table = _table(file, require_stored(file, entries[prefix + _TABLE]), limits)
            weights: dict[str, Any] = {}
            for name, entry in table.items():
                weights[name] = _weight(file, entries, f"{prefix}{_FOLDER}", name, entry, limits)
        root, stamps, network = {"": weights}, {file.path: file.stamp}, str(candidate.path)
        return RawCheckpoint(self.name, root, (candidate.path,), stamps, network=network)


def _table(file: RegularFile, entry: ZipEntry, limits: Limits) -> dict[str, Any]:
    if entry.nbytes > limits.json_bytes:
        raise SnapshotUnsafeError(
            "the table of weights is too long",
            subject=file.path,
            expected=f"at most {limits.json_bytes} bytes",
            found=f"{entry.nbytes} bytes",
        )
    content = parse_json(file.read(entry.offset, entry.nbytes), subject=file.path, limits=limits)
    table = content.get("config") if isinstance(content, dict) else None
    if not isinstance(table, dict):
        raise SnapshotCorruptError("the table of weights is malformed", subject=file.path)
    return table


def _weight(
    file: RegularFile,
    entries: dict[str, ZipEntry],
    folder: str,
    name: str,
    declared: Any,
    limits: Limits,
) -> Any:
    try:
        path, meta = declared["path_name"], declared["tensor_meta"]
        shape = _numbers(meta["sizes"])
        strides = _numbers(meta["strides"])
        (start,) = _numbers([meta["storage_offset"]])
        code, pickled = meta["dtype"], declared["use_pickle"]
    except (KeyError, TypeError, ValueError) as error:
        raise SnapshotCorruptError(
            f"the table says too little about tensor {name!r}", subject=file.path
        ) from error
    entry = entries.get(f"{folder}{path}") if isinstance(path, str) else None
    if entry is None or len(shape) != len(strides) or len(shape) > 64:
        raise SnapshotCorruptError(
            f"tensor {name!r} is missing from the archive or has an impossible view",
            subject=file.path,
        )
    require_stored(file, entry)
    if pickled:
        return read_archive(FileWindow(file, entry.offset, entry.nbytes), limits, entry.offset)
    dtype = _DTYPES.get(code) if type(code) is int else None
    if dtype is None:
        raise SnapshotUnsupportedError(
            f"tensor {name!r} has a dtype that is not read", subject=file.path, found=str(code)[:50]
        )
    if math.prod(shape) * DTYPE_BYTES[dtype] > entry.nbytes:
        raise SnapshotCorruptError(
            f"tensor {name!r} has more elements than the archive holds for it",
            subject=file.path,
            found=f"{entry.nbytes} bytes",
        )
    storage = Storage(path, dtype, entry.nbytes // DTYPE_BYTES[dtype])
    storage.path, storage.offset, storage.nbytes = file.path, entry.offset, entry.nbytes
    return PickledTensor(storage, dtype, start, shape, strides)


def _numbers(values: Any) -> tuple[int, ...]:
    """Sizes as the table keeps them: {"as_int": n}, where nothing is symbolic."""
    found = tuple(value["as_int"] for value in values)
    if not all(type(n) is int and 0 <= n < 1 << 62 for n in found):
        raise ValueError("not a size")
    return found
