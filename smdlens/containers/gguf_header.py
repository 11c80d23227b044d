"""The header of a GGUF file: settings by key, and where each tensor lies.

Layout from the GGUF specification (ggml, docs/gguf.md), versions 2 and 3: counts, pairs of key and
typed value, then name, dimensions (fastest first), type and offset of every tensor; the data follow
at the next multiple of `general.alignment`.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

from smdlens.containers.cursor import Cursor
from smdlens.containers.files import RegularFile
from smdlens.containers.limits import Limits
from smdlens.errors import (
    SnapshotCorruptError,
    SnapshotTruncatedError,
    SnapshotUnsafeError,
    SnapshotUnsupportedError,
)

MAGIC = b"GGUF"
_LONGEST_TEXT = 1 << 20
_LONGEST_NAME = 1 << 12
_MOST_DIMENSIONS = 8
_KEPT_ITEMS = 64
_DEEPEST = 4
_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?",
            10: "<Q", 11: "<q", 12: "<d"}  # fmt: skip
_TEXT, _ARRAY = 8, 9
# Number of a type -> its name, elements per block, bytes per block (ggml.h).
_TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4),
    27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor: name, shape (slowest axis first), type, and where its bytes lie."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """All settings that are short, and all tensors in file order."""

    settings: dict[str, Any]
    tensors: tuple[GgufTensor, ...]


def read_gguf_header(file: RegularFile, limits: Limits) -> GgufHeader:
    """Read and check a header.

    Raises:
        SnapshotTruncatedError: The file ends inside its header or a tensor.
        SnapshotCorruptError: It contradicts itself: names twice, tensors that overlap.
        SnapshotUnsafeError: Longer or more than `limits` allows.
        SnapshotUnsupportedError: Another version, big-endian, or a type that is not known.
    """
    cursor = Cursor(file, 4, limits.json_bytes)
    version = cursor.unsigned(4)
    if version not in (2, 3):
        raise SnapshotUnsupportedError(
            "a GGUF file of another version or byte order",
            subject=file.path,
            expected="version 2 or 3, little-endian",
            found=str(version),
            remedy="Convert it with a current version of llama.cpp.",
        )
    tensors, settings = cursor.unsigned(8), cursor.unsigned(8)
    if not (cursor.fits(tensors, 24) and cursor.fits(settings, 13)):
        raise _truncated(file, f"{tensors} tensors and {settings} settings")
    if max(tensors, settings) > limits.zip_entries:
        raise SnapshotUnsafeError(
            "too many tensors or settings",
            subject=file.path,
            expected=f"at most {limits.zip_entries}",
            found=str(max(tensors, settings)),
        )
    found: dict[str, Any] = {}
    for _ in range(settings):
        key = _text(cursor, _LONGEST_NAME)
        if key in found:
            raise _corrupt(file, f"the setting {key[:100]!r} is given twice")
        found[key] = _value(cursor, cursor.unsigned(4), 0)
    infos = [_info(cursor) for _ in range(tensors)]
    alignment = found.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment <= 1 << 16:
        raise _corrupt(file, f"an alignment of {alignment!r}")
    return GgufHeader(found, _placed(file, infos, -(-cursor.pos // alignment) * alignment))


def _placed(file: RegularFile, infos: list[GgufTensor], start: int) -> tuple[GgufTensor, ...]:
    """Tensors with offsets in the file; none may overlap another or reach beyond the end."""
    if len({info.name for info in infos}) != len(infos):
        raise _corrupt(file, "two tensors of one name")
    end = 0
    for info in sorted(infos, key=lambda i: (i.offset, i.nbytes)):
        if info.offset < end:
            raise _corrupt(file, f"tensor {info.name!r} overlaps another")
        end = info.offset + info.nbytes
        if start + end > file.size:
            raise _truncated(file, f"tensor {info.name!r} at offset {start + info.offset}")
    return tuple(GgufTensor(i.name, i.shape, i.type, start + i.offset, i.nbytes) for i in infos)


def _info(cursor: Cursor) -> GgufTensor:
    name = _text(cursor, _LONGEST_NAME)
    dimensions = cursor.unsigned(4)
    if dimensions > _MOST_DIMENSIONS:
        raise _corrupt(cursor.file, f"tensor {name!r} of {dimensions} dimensions")
    sizes = [cursor.unsigned(8) for _ in range(dimensions)]
    code, offset = cursor.unsigned(4), cursor.unsigned(8)
    if code not in _TYPES:
        raise SnapshotUnsupportedError(
            f"tensor {name!r} has a type that is not known",
            subject=cursor.file.path,
            found=f"ggml type {code}",
        )
    kind, block, width = _TYPES[code]
    numel = math.prod(sizes)
    if numel % block or (sizes and sizes[0] % block) or max([offset, numel]) >= 1 << 62:
        raise _corrupt(cursor.file, f"tensor {name!r} of an impossible shape or offset")
    return GgufTensor(name, tuple(reversed(sizes)), kind, offset, numel // block * width)


def _value(cursor: Cursor, kind: int, depth: int) -> Any:
    """A setting; None for lists longer than any that smdlens uses (vocabularies)."""
    if kind in _NUMBERS:
        form = _NUMBERS[kind]
        return struct.unpack(form, cursor.take(struct.calcsize(form)))[0]
    if kind == _TEXT:
        return _text(cursor, _LONGEST_TEXT)
    if kind != _ARRAY or depth >= _DEEPEST:
        raise _corrupt(cursor.file, f"a setting of kind {kind} before offset {cursor.pos}")
    inner, count = cursor.unsigned(4), cursor.unsigned(8)
    if inner in _NUMBERS:
        width = struct.calcsize(_NUMBERS[inner])
        if count > _KEPT_ITEMS:
            _fits(cursor, count, width)
            cursor.skip(count * width)
            return None
    _fits(cursor, count, {_TEXT: 8, _ARRAY: 12}.get(inner, 1))
    items = (_value(cursor, inner, depth + 1) for _ in range(count))
    if count <= _KEPT_ITEMS:
        return list(items)
    for _ in items:  # read past them
        pass
    return None


def _fits(cursor: Cursor, count: int, nbytes: int) -> None:
    if not cursor.fits(count, nbytes):
        raise _truncated(cursor.file, f"a list of {count} items at offset {cursor.pos}")


def _text(cursor: Cursor, longest: int) -> str:
    length = cursor.unsigned(8)
    if length > longest:
        raise SnapshotUnsafeError(
            "a text is too long",
            subject=cursor.file.path,
            expected=f"at most {longest} bytes",
            found=f"{length} bytes at offset {cursor.pos}",
        )
    return cursor.take(length).decode("utf-8", "replace")


def _truncated(file: RegularFile, found: str) -> SnapshotTruncatedError:
    return SnapshotTruncatedError(
        "the file ends before its own header says",
        subject=file.path,
        found=f"{found}, in a file of {file.size} bytes",
        remedy="Copy the file again, or leave it out.",
    )


def _corrupt(file: RegularFile, found: str) -> SnapshotCorruptError:
    return SnapshotCorruptError(
        "not a sound GGUF file",
        subject=file.path,
        found=found,
        remedy="Copy the file again, or leave it out.",
    )
