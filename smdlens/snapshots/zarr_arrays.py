"""Arrays of zarr, versions 2 and 3, as tensors: byte ranges of their chunks, still compressed.

Layouts from the Zarr storage specifications 2 and 3.0, and ZEP 2 for the chunks inside a shard.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from smdlens.errors import SnapshotCorruptError, SnapshotUnsupportedError
from smdlens.snapshots.chunks import Chunk, PieceBudget, join_chunks
from smdlens.snapshots.records import DTYPE_BYTES, Extent, TensorRef

_V2_DTYPES = {
    "f8": "float64", "f4": "float32", "f2": "float16", "c8": "complex64", "c16": "complex128",
    "i8": "int64", "i4": "int32", "i2": "int16", "i1": "int8", "u8": "uint64", "u4": "uint32",
    "u2": "uint16", "u1": "uint8", "b1": "bool",
}  # fmt: skip
_COMPRESSORS = {"zstd": "zstd", "zlib": "deflate", "gzip": "gzip", "blosc": "blosc"}
_INDEX_ENTRY, _CHECKSUM = 16, 4
_MOST_CHUNKS = 1_000_000
_EMPTY = (1 << 64) - 1

Locate = Callable[[str], Extent | None]
Fetch = Callable[[Extent], bytes]


@dataclass(frozen=True, slots=True)
class ZarrArray:
    """What an array's metadata say.

    Attributes:
        shape: Its shape.
        dtype: Our name of it.
        chunk: Shape of a stored object.
        separator: Between the numbers in a chunk's key.
        prefix: Before them ("c/" in version 3).
        filters: What every (inner) chunk went through when written.
        inner: Shape of the chunks inside a stored object that is a shard; else None.
        index: Filters of a shard's index.
        index_first: Whether the index lies at the start of a shard.
    """

    shape: tuple[int, ...]
    dtype: str
    chunk: tuple[int, ...]
    separator: str
    prefix: str
    filters: tuple[str, ...]
    inner: tuple[int, ...] | None = None
    index: tuple[str, ...] = ()
    index_first: bool = False

    def key(self, place: tuple[int, ...]) -> str:
        """Key of the stored object at a place of the grid."""
        if not place:
            return "0" if not self.prefix else "c"
        joined = self.separator.join(map(str, place))
        return f"{self.prefix}{self.separator}{joined}" if self.prefix else joined


def zarr_array(metadata: Any, name: str, subject: str) -> ZarrArray | None:
    """Interpret `.zarray` or `zarr.json`; None for an array of text or other objects.

    Raises:
        SnapshotCorruptError: Not metadata of an array.
        SnapshotUnsupportedError: An order, data type or codec that is not read.
    """
    if not isinstance(metadata, Mapping):
        raise _corrupt(name, subject, "no metadata")
    shape = _sizes(metadata.get("shape"), name, subject)
    if metadata.get("zarr_format") == 2:
        return _second(metadata, shape, name, subject)
    if metadata.get("zarr_format") == 3 and metadata.get("node_type") == "array":
        return _third(metadata, shape, name, subject)
    raise _corrupt(name, subject, "metadata of no array")


def _second(
    metadata: Mapping[str, Any], shape: tuple[int, ...], name: str, subject: str
) -> ZarrArray | None:
    chunk = _sizes(metadata.get("chunks"), name, subject)
    text = metadata.get("dtype")
    if not isinstance(text, str) or text[:2] == "|O" or text[1:2] in "SUV":
        return None
    dtype = text if text in DTYPE_BYTES else _V2_DTYPES.get(text[1:], "")
    swapped = text.startswith(">") and dtype and DTYPE_BYTES[dtype] > 1
    if not dtype or metadata.get("order") != "C" or metadata.get("filters"):
        raise _unsupported(name, subject, f"dtype {text}, order {metadata.get('order')}")
    filters = (f"big-endian:{DTYPE_BYTES[dtype]}",) if swapped else ()
    compressor = metadata.get("compressor")
    if compressor is not None:
        kind = compressor.get("id") if isinstance(compressor, Mapping) else None
        if not isinstance(kind, str) or kind not in _COMPRESSORS:
            raise _unsupported(name, subject, f"compressor {kind}")
        filters = (*filters, _COMPRESSORS[kind])
    separator = metadata.get("dimension_separator", ".")
    if separator not in (".", "/"):
        raise _corrupt(name, subject, "an impossible separator")
    _check_grid(shape, chunk, name, subject)
    return ZarrArray(shape, dtype, chunk, separator, "", filters)


def _third(
    metadata: Mapping[str, Any], shape: tuple[int, ...], name: str, subject: str
) -> ZarrArray | None:
    dtype = metadata.get("data_type")
    if dtype == "string":
        return None
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise _unsupported(name, subject, f"data type {str(dtype)[:50]}")
    grid, keys = metadata.get("chunk_grid"), metadata.get("chunk_key_encoding")
    chunk = _sizes(_configuration(grid).get("chunk_shape"), name, subject)
    if not isinstance(grid, Mapping) or grid.get("name") != "regular":
        raise _unsupported(name, subject, "an irregular grid of chunks")
    encoding = keys.get("name") if isinstance(keys, Mapping) else "default"
    separator = _configuration(keys).get("separator", "/" if encoding == "default" else ".")
    if encoding not in ("default", "v2") or separator not in (".", "/"):
        raise _unsupported(name, subject, f"keys of kind {str(encoding)[:50]}")
    prefix = "c" if encoding == "default" else ""
    _check_grid(shape, chunk, name, subject)
    codecs = metadata.get("codecs")
    first = codecs[0] if isinstance(codecs, list) and len(codecs) == 1 else None
    if not isinstance(first, Mapping) or first.get("name") != "sharding_indexed":
        filters = _codecs(codecs, dtype, name, subject)
        return ZarrArray(shape, dtype, chunk, separator, prefix, filters)
    shard = _configuration(first)
    inner = _sizes(shard.get("chunk_shape"), name, subject)
    _check_grid(chunk, inner, name, subject)
    if any(whole % part for whole, part in zip(chunk, inner, strict=True)):
        raise _corrupt(name, subject, "chunks that do not fill their shard")
    index = _codecs(shard.get("index_codecs"), "uint64", name, subject)
    if any(f != "crc32c" for f in index):
        raise _unsupported(name, subject, "a compressed index of a shard")
    filters = _codecs(shard.get("codecs"), dtype, name, subject)
    ahead = shard.get("index_location") == "start"
    return ZarrArray(shape, dtype, chunk, separator, prefix, filters, inner, index, ahead)


def _codecs(codecs: Any, dtype: str, name: str, subject: str) -> tuple[str, ...]:
    filters: list[str] = []
    for codec in codecs if isinstance(codecs, list) else []:
        kind = codec.get("name") if isinstance(codec, Mapping) else codec
        if kind == "bytes":
            if _configuration(codec).get("endian") == "big" and DTYPE_BYTES[dtype] > 1:
                filters.append(f"big-endian:{DTYPE_BYTES[dtype]}")
        elif kind in ("zstd", "gzip", "crc32c", "blosc"):
            filters.append(kind)
        else:
            raise _unsupported(name, subject, f"codec {str(kind)[:50]}")
    return tuple(filters)


def zarr_tensor(
    name: str, array: ZarrArray, locate: Locate, fetch: Fetch, budget: PieceBudget
) -> TensorRef:
    """The array as a tensor.

    Args:
        name: Its name.
        array: Its metadata.
        locate: The place of the stored object under a key of the array; None where there is none.
        fetch: Bytes of an extent, for the indices of shards.
        budget: Pays for stored objects and byte ranges.

    Raises:
        SnapshotCorruptError: A chunk is missing or has an impossible place.
        SnapshotUnsafeError: Too many chunks.
    """
    if math.prod(array.shape) == 0:
        return TensorRef(name, array.shape, array.dtype, ())
    boxes = list(_boxes(name, array, locate, fetch, budget))
    if len(boxes) == 1 and boxes[0].tensor.strides is None:
        return boxes[0].tensor
    return join_chunks(name, array.shape, array.dtype, boxes, budget)


def _boxes(
    name: str, array: ZarrArray, locate: Locate, fetch: Fetch, budget: PieceBudget
) -> Iterator[Chunk]:
    counts = [-(-n // part) for n, part in zip(array.shape, array.chunk, strict=True)]
    if math.prod(counts) > _MOST_CHUNKS:  # before a list of them is made
        raise _corrupt(name, budget.subject, f"{math.prod(counts)} chunks")
    for place in product(*map(range, counts)):
        budget.charge(name)
        key = array.key(place)
        extent = locate(key)
        if extent is None:
            raise _corrupt(name, budget.subject, f"no chunk {key!r}")
        corner = tuple(i * part for i, part in zip(place, array.chunk, strict=True))
        if array.inner is None:
            yield _box(name, array, array.chunk, corner, extent, budget)
            continue
        for inside, part in _shard(name, array, array.inner, extent, fetch, budget):
            at = tuple(c + i for c, i in zip(corner, inside, strict=True))
            if all(i < n for i, n in zip(at, array.shape, strict=True)):
                yield _box(name, array, array.inner, at, part, budget)


def _shard(
    name: str,
    array: ZarrArray,
    inner: tuple[int, ...],
    extent: Extent,
    fetch: Fetch,
    budget: PieceBudget,
) -> Iterator[tuple[tuple[int, ...], Extent]]:
    """First index and place of every chunk inside a shard."""
    counts = [whole // part for whole, part in zip(array.chunk, inner, strict=True)]
    nbytes = math.prod(counts) * _INDEX_ENTRY + _CHECKSUM * len(array.index)
    if nbytes > extent.nbytes:
        raise _corrupt(name, budget.subject, "a shard shorter than its index")
    start = 0 if array.index_first else extent.nbytes - nbytes
    index = fetch(extent.part(start, start + nbytes))
    for number, place in enumerate(product(*map(range, counts))):
        budget.charge(name)
        entry = index[_INDEX_ENTRY * number : _INDEX_ENTRY * (number + 1)]
        offset, size = (int.from_bytes(entry[k : k + 8], "little") for k in (0, 8))
        corner = tuple(i * part for i, part in zip(place, inner, strict=True))
        if offset == _EMPTY and size == _EMPTY:
            continue  # beyond the edge of the array; a hole inside it does not join
        if offset + size > extent.nbytes:
            raise _corrupt(name, budget.subject, "a chunk outside its shard")
        yield corner, extent.part(offset, offset + size)


def _box(
    name: str,
    array: ZarrArray,
    chunk: tuple[int, ...],
    corner: tuple[int, ...],
    extent: Extent,
    budget: PieceBudget,
) -> Chunk:
    width = DTYPE_BYTES[array.dtype]
    size = math.prod(chunk) * width
    if not array.filters and extent.nbytes != size:
        raise _corrupt(name, budget.subject, f"a chunk of {extent.nbytes} bytes, not {size}")
    place = extent.holding(array.filters, size)
    shape = tuple(
        min(part, whole - first)
        for part, whole, first in zip(chunk, array.shape, corner, strict=True)
    )
    strides = tuple(math.prod(chunk[d + 1 :]) for d in range(len(chunk)))
    ref = TensorRef(name, shape, array.dtype, (place,), None if shape == chunk else strides)
    return Chunk(corner, ref)


def _configuration(value: Any) -> Mapping[str, Any]:
    held = value.get("configuration") if isinstance(value, Mapping) else None
    return held if isinstance(held, Mapping) else {}


def _sizes(value: Any, name: str, subject: str) -> tuple[int, ...]:
    good = isinstance(value, Sequence) and not isinstance(value, str) and len(value) <= 64
    if not good or not all(type(n) is int and 0 <= n < 1 << 62 for n in value):
        raise _corrupt(name, subject, "an impossible shape")
    return tuple(value)


def _check_grid(shape: tuple[int, ...], chunk: tuple[int, ...], name: str, subject: str) -> None:
    if len(shape) != len(chunk) or not all(chunk):
        raise _corrupt(name, subject, "chunks of another rank, or empty")
    if math.prod(chunk) > 1 << 40:
        raise _corrupt(name, subject, "an impossible size of chunks")


def _corrupt(name: str, subject: str, found: str) -> SnapshotCorruptError:
    return SnapshotCorruptError(
        f"array {name[:200]!r} contradicts its format",
        subject=subject,
        found=found,
        remedy="Copy the whole checkpoint folder again, or leave it out.",
    )


def _unsupported(name: str, subject: str, found: str) -> SnapshotUnsupportedError:
    return SnapshotUnsupportedError(
        f"array {name[:200]!r} is stored in a way that is not read",
        subject=subject,
        found=found,
        remedy="Save it with Orbax's defaults.",
    )
