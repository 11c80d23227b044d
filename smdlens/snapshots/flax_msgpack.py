"""Files of `flax.serialization` and `flax.training.checkpoints`: one MessagePack map.

Arrays are extension 1, each a MessagePack triple of shape, dtype and bytes; arrays above a gigabyte
are cut into chunks. Their bytes stay where they are.
"""

from __future__ import annotations

import math
from typing import Any

from smdlens.containers.files import RegularFile, reading
from smdlens.containers.limits import Limits
from smdlens.containers.msgpack_scan import Scanner, Span
from smdlens.errors import SnapshotCorruptError, SnapshotUnsupportedError
from smdlens.snapshots.candidate import Candidate, RawCheckpoint
from smdlens.snapshots.orbax_tree import interpreted
from smdlens.snapshots.records import DTYPE_BYTES, Extent, TensorRef

_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3
_CHUNKED = "__msgpack_chunked_array__"


class FlaxMsgpackReader:
    """Reader of Flax's MessagePack files."""

    name = "flax-msgpack"

    def recognises(self, candidate: Candidate) -> bool:
        """A MessagePack map whose first key is a printable name."""
        head = candidate.head
        if not head or not (0x81 <= head[0] <= 0x8F or head[0] in (0xDE, 0xDF)):
            return False
        at = {0xDE: 3, 0xDF: 5}.get(head[0], 1)
        code = head[at] if len(head) > at else 0
        if 0xA1 <= code <= 0xBF:
            start, length = at + 1, code & 0x1F
        elif code == 0xD9 and len(head) > at + 1:
            start, length = at + 2, head[at + 1]
        else:
            return False
        key = head[start : start + length]
        return len(key) == length > 0 and key.isascii() and key.decode("ascii").isprintable()

    def read(self, candidate: Candidate, limits: Limits) -> RawCheckpoint:
        """Walk over the file; only what is not an array is read."""
        with reading(candidate.path) as file:
            root = msgpack_tree(file, limits)
        if type(root) is dict:
            root = interpreted(root)
        return RawCheckpoint(self.name, root, (candidate.path,), {file.path: file.stamp})


def msgpack_tree(file: RegularFile, limits: Limits) -> Any:
    """What a file holds, arrays as tensors named by their path with slashes.

    Raises:
        SnapshotError: The file is cut short, damaged, too large a tree, or has dtypes not read.
    """
    scanner = Scanner(file, limits, _extension)
    root = scanner.value()
    if scanner.pos != file.size:
        raise scanner.corrupt("bytes behind the end")
    return _joined(root, file)


def _extension(scanner: Scanner, kind: int, span: Span) -> Any:
    if kind == _COMPLEX:
        parts = scanner.value()
        good = type(parts) is list and len(parts) == 2 and all(type(p) is float for p in parts)
        return complex(*parts) if good else None
    if kind not in (_ARRAY, _SCALAR):
        return None
    parts = scanner.value()
    if type(parts) is not list or len(parts) != 3 or scanner.pos != span.offset + span.nbytes:
        raise scanner.corrupt("an array without shape, dtype and bytes")
    shape, dtype, data = parts
    sizes = type(shape) is list and len(shape) <= 64 and all(_size(n) for n in shape)
    if not sizes or type(dtype) is not str or type(data) is not Span:
        raise scanner.corrupt("an array without shape, dtype and bytes")
    if dtype not in DTYPE_BYTES:
        raise SnapshotUnsupportedError(
            "an array has a dtype that is not read", subject=scanner.file.path, found=dtype[:50]
        )
    if math.prod(shape) * DTYPE_BYTES[dtype] != data.nbytes:
        raise scanner.corrupt("an array with another number of bytes than its shape says")
    extents = (Extent(scanner.file.path, data.offset, data.nbytes),) if data.nbytes else ()
    return TensorRef("", tuple(shape), dtype, extents)


def _size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _joined(value: Any, file: RegularFile, path: tuple[str, ...] = ()) -> Any:
    """Chunked arrays put together, arrays named by their path; byte strings are left out."""
    if type(value) is TensorRef:
        return TensorRef("/".join(path), value.shape, value.dtype, value.extents)
    if type(value) is Span:
        return None
    if type(value) is dict:
        if value.get(_CHUNKED) is True:
            return _chunked(value, file, "/".join(path))
        return {k: _joined(v, file, (*path, k)) for k, v in value.items()}
    if type(value) is list:
        return [_joined(v, file, (*path, str(i))) for i, v in enumerate(value)]
    return value


def _chunked(value: dict[str, Any], file: RegularFile, name: str) -> TensorRef:
    shape, chunks = value.get("shape"), value.get("chunks")
    if type(shape) is not dict or type(chunks) is not dict:
        raise _bad_chunks(file, name)
    sizes = [shape.get(str(i)) for i in range(len(shape))]
    parts = [chunks.get(str(i)) for i in range(len(chunks))]
    if not parts or len(sizes) > 64 or not all(type(p) is TensorRef for p in parts):
        raise _bad_chunks(file, name)
    refs = [p for p in parts if type(p) is TensorRef]
    numel = math.prod(n for n in sizes if type(n) is int) if all(map(_size, sizes)) else -1
    if numel != sum(r.numel for r in refs) or len({r.dtype for r in refs}) != 1:
        raise _bad_chunks(file, name)
    extents = tuple(e for r in refs for e in r.extents)
    return TensorRef(name, tuple(int(n or 0) for n in sizes), refs[0].dtype, extents)


def _bad_chunks(file: RegularFile, name: str) -> SnapshotCorruptError:
    return SnapshotCorruptError(
        f"the chunks of array {name!r} do not make up its shape",
        subject=file.path,
        remedy="Copy the checkpoint again, or leave it out.",
    )
