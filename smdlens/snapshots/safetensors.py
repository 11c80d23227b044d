"""safetensors: eight bytes of header length, a JSON header, then the tensors without gaps.

Format: https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

from smdlens.containers.files import FileStamp, RegularFile, reading
from smdlens.containers.json_header import parse_json
from smdlens.containers.limits import Limits
from smdlens.errors import (
    SnapshotCorruptError,
    SnapshotTruncatedError,
    SnapshotUnsafeError,
    SnapshotUnsupportedError,
)
from smdlens.snapshots.candidate import Candidate, RawCheckpoint
from smdlens.snapshots.mlx import (
    from_mlx,
    input_second,
    is_optimizer_state,
    optimizer_beside,
    with_state,
    written_by_mlx,
)
from smdlens.snapshots.records import DTYPE_BYTES, Extent, TensorRef, shared

METADATA = "__metadata__"
_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "C64": "complex64", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


class SafetensorsReader:
    """Reader of single safetensors files."""

    name = "safetensors"

    def recognises(self, candidate: Candidate) -> bool:
        """A plausible header length followed by the start of a JSON object."""
        length = int.from_bytes(candidate.head[:8], "little")
        return candidate.head[8:9] == b"{" and 2 <= length < 1 << 40

    def read(self, candidate: Candidate, limits: Limits) -> RawCheckpoint:
        """Read the header; the metadata strings appear beside the tensors."""
        with reading(candidate.path) as file:
            tensors, metadata, mlx = _parse(file, limits)
        root: dict[str, Any] = from_mlx(tensors) if mlx else {"": tensors}
        files, stamps = [candidate.path], {file.path: file.stamp}
        beside = optimizer_beside(candidate.path)
        if beside is not None and "optimizer" not in root:
            root |= read_optimizer(beside, limits, files, stamps)
        if metadata:
            root[METADATA] = metadata
        return RawCheckpoint(self.name, root, tuple(files), stamps, ordered=False)


def read_header(
    path: Path, limits: Limits
) -> tuple[dict[str, TensorRef], dict[str, str], dict[str, FileStamp]]:
    """Tensors, metadata and stamp of one file.

    Raises:
        SnapshotTruncatedError, SnapshotCorruptError, SnapshotUnsafeError,
        SnapshotUnsupportedError: See the messages.
    """
    with reading(path) as file:
        tensors, metadata, mlx = _parse(file, limits)
    if mlx:
        tensors = {name: input_second(name, ref) for name, ref in tensors.items()}
    return tensors, metadata, {file.path: file.stamp}


def read_optimizer(
    path: Path, limits: Limits, files: list[Path], stamps: dict[str, FileStamp]
) -> dict[str, Any]:
    """What MLX's optimizer state in a file of its own adds; nothing where it is not one."""
    with reading(path) as file:
        tensors, _, _ = _parse(file, limits)
    if not is_optimizer_state(tensors):
        return {}
    files.append(path)
    stamps[file.path] = file.stamp
    return with_state(tensors)


def _parse(file: RegularFile, limits: Limits) -> tuple[dict[str, TensorRef], dict[str, str], bool]:
    length = int.from_bytes(file.read(0, 8), "little")
    if length > limits.json_bytes:
        raise SnapshotUnsafeError(
            "the header is too long",
            subject=file.path,
            expected=f"at most {limits.json_bytes} bytes",
            found=f"{length} bytes",
        )
    header = parse_json(file.read(8, length), subject=file.path, limits=limits)
    if not isinstance(header, dict):
        raise _corrupt(file, "the header is not an object", "")
    mlx = written_by_mlx(header)
    metadata = header.pop(METADATA, None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _corrupt(file, "the metadata are not strings", "")
    start = 8 + length
    tensors: dict[str, TensorRef] = {}
    ranges: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        ref, first, last = _tensor(file, name, entry, start)
        tensors[ref.name] = ref
        ranges.append((first, last, name))
    end = 0
    for first, last, name in sorted(ranges):
        if first != end:
            raise _corrupt(file, f"tensor {name!r} overlaps another or leaves a gap", f"{first}")
        end = last
    if start + end > file.size:
        raise SnapshotTruncatedError(
            "the file ends before its tensors do",
            subject=file.path,
            expected=f"{start + end} bytes",
            found=f"{file.size} bytes",
            remedy="Wait for the trainer to finish, or copy the file again.",
        )
    if start + end < file.size:
        raise _corrupt(file, "bytes follow the last tensor", f"{file.size - start - end} bytes")
    return tensors, metadata, mlx


def _tensor(file: RegularFile, name: str, entry: Any, start: int) -> tuple[TensorRef, int, int]:
    try:
        code, shape, (first, last) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise _corrupt(file, f"tensor {name!r} lacks dtype, shape or offsets", "") from error
    if not (_naturals([first, last]) and isinstance(shape, list) and _naturals(shape)):
        raise _corrupt(file, f"tensor {name!r} has an impossible shape or offset", str(entry)[:200])
    dtype = _DTYPES.get(code) if isinstance(code, str) else None
    if dtype is None:
        raise SnapshotUnsupportedError(
            f"tensor {name!r} has a dtype that is not read", subject=file.path, found=str(code)[:50]
        )
    nbytes = last - first
    if nbytes < 0 or math.prod(shape) * DTYPE_BYTES[dtype] != nbytes:
        raise _corrupt(file, f"tensor {name!r} has offsets that contradict its shape", f"{nbytes}")
    extents = (Extent(file.path, start + first, nbytes),) if nbytes else ()
    return TensorRef(sys.intern(name), shared(tuple(shape)), dtype, extents), first, last


def _naturals(values: list[Any]) -> bool:
    return len(values) <= 64 and all(type(v) is int and 0 <= v < 1 << 63 for v in values)


def _corrupt(file: RegularFile, message: str, found: str) -> SnapshotCorruptError:
    return SnapshotCorruptError(
        message,
        subject=file.path,
        found=found or None,
        remedy="Copy the checkpoint again, or leave it out.",
    )
