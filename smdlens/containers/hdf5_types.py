"""Messages of HDF5's object headers that describe values: datatype, dataspace, layout, filters.

Layouts from the HDF5 File Format Specification, version 3.0, section IV.A.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

UNDEFINED = (1 << 64) - 1
TEXT = "text"
_MOST_DIMENSIONS = 32
_FLOATS = {
    (2, 5, 10): "float16", (2, 8, 7): "bfloat16", (4, 8, 23): "float32",
    (8, 11, 52): "float64",
}  # fmt: skip
_FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32"}


class Hdf5FormatError(ValueError):
    """Bytes that are no message of the kind they claim to be; becomes a `SnapshotError`."""


class Cursor:
    """Little-endian numbers out of a byte string, from front to back."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    def take(self, count: int) -> bytes:
        """The next bytes."""
        end = self.at + count
        if count < 0 or end > len(self.data):
            raise Hdf5FormatError("a message ends early")
        part = self.data[self.at : end]
        self.at = end
        return part

    def number(self, width: int) -> int:
        """The next unsigned integer of `width` bytes."""
        return int.from_bytes(self.take(width), "little")

    def expect(self, signature: bytes, version: int | None = None) -> None:
        """The next bytes are a block's signature (and its version)."""
        if self.take(len(signature)) != signature:
            raise Hdf5FormatError(f"no block {signature!r} where one should lie")
        if version is not None and (found := self.number(1)) != version:
            raise Hdf5FormatError(f"a block {signature!r} of version {found}")


@dataclass(frozen=True, slots=True)
class Datatype:
    """Type of an element: `name` is ours for numbers, "string", "vlen string", else "".

    Attributes:
        name: See above; "" for what is read as no value (compounds, references, big-endian ...).
        size: Bytes of one element as stored.
    """

    name: str
    size: int


def parse_datatype(cursor: Cursor) -> Datatype:
    """A datatype message; types that are no plain numbers or text get the name ""."""
    head = cursor.number(1)
    bits = cursor.number(3)
    size = cursor.number(4)
    kind = head & 0x0F
    if head >> 4 not in (1, 2, 3, 4, 5):
        raise Hdf5FormatError(f"a datatype of version {head >> 4}")
    if kind == 0:
        offset, precision = cursor.number(2), cursor.number(2)
        whole = not bits & 1 and offset == 0 and precision == 8 * size and size in (1, 2, 4, 8)
        sign = "int" if bits & 8 else "uint"
        return Datatype(f"{sign}{8 * size}" if whole else "", size)
    if kind == 1:
        cursor.take(5)
        exponent = cursor.number(1)
        cursor.take(1)
        mantissa = cursor.number(1)
        plain = not bits & 0x41
        return Datatype(_FLOATS.get((size, exponent, mantissa), "") if plain else "", size)
    if kind == 3:
        return Datatype("string", size)
    if kind == 5 and size == 2:  # how h5py keeps the bfloat16 of ml_dtypes
        return Datatype("opaque16", size)
    if kind == 8 and size == 1:  # how h5py keeps booleans: an enumeration of one byte
        return Datatype("bool", size)
    if kind == 9:
        return Datatype("vlen string" if bits & 0x0F == 1 else "", size)
    return Datatype("", size)


def element_type(datatype: Datatype, said: object) -> str:
    """Our name of an element's type, `TEXT`, or ""; `said` is the dataset's attribute `dtype`."""
    if datatype.name == "opaque16":
        # Keras' .weights.h5 says which; its .h5 does not, but keeps no other type of this kind.
        return "bfloat16" if said in (None, "bfloat16") else ""
    return TEXT if "string" in datatype.name else datatype.name


def parse_dataspace(cursor: Cursor) -> tuple[int, ...] | None:
    """The shape; () for a scalar, None for a null dataspace."""
    version, rank = cursor.number(1), cursor.number(1)
    cursor.take(1)
    if version not in (1, 2) or rank > _MOST_DIMENSIONS:
        raise Hdf5FormatError(f"a dataspace of version {version} with {rank} dimensions")
    kind = cursor.number(5 if version == 1 else 1)
    if version == 2 and kind == 2:
        return None
    shape = tuple(cursor.number(8) for _ in range(rank))
    if any(n >= 1 << 62 for n in shape):
        raise Hdf5FormatError("an impossible shape")
    return shape


def parse_most(cursor: Cursor) -> tuple[int, ...]:
    """The largest shape a dataspace may grow to, `UNDEFINED` along an axis without a limit."""
    shape = parse_dataspace(Cursor(cursor.data, cursor.at)) or ()
    version, rank, flags = cursor.number(1), cursor.number(1), cursor.number(1)
    cursor.take((5 if version == 1 else 1) + 8 * rank)
    return tuple(cursor.number(8) for _ in range(rank)) if flags & 1 else shape


@dataclass(frozen=True, slots=True)
class ChunkIndex:
    """How chunks are found since HDF5 1.10.

    Attributes:
        kind: 1 single chunk, 2 implicit, 3 fixed array, 4 extensible array, 5 B-tree.
        most: The largest shape of the dataset.
        nbytes: Bytes of a single filtered chunk; 0 where it has no filter.
        skipped: Filters that were not applied to a single chunk.
        plain_edges: Whether filters leave out the chunks that reach beyond the shape.
        wide: Whether sizes of chunks take eight bytes (version 5).
    """

    kind: int
    most: tuple[int, ...]
    nbytes: int
    skipped: int
    plain_edges: bool
    wide: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a dataset's elements lie.

    Attributes:
        kind: "compact", "contiguous" or "chunked".
        address: Address of the bytes (contiguous), or of the tree of chunks.
        nbytes: Bytes (compact, contiguous).
        inline: The bytes themselves (compact).
        chunk: Shape of a chunk.
        index: How its chunks are found; None for a version 1 B-tree.
    """

    kind: str
    address: int
    nbytes: int
    inline: tuple[int, int] | None = None
    chunk: tuple[int, ...] = ()
    index: ChunkIndex | None = None


def parse_layout(cursor: Cursor, most: tuple[int, ...]) -> Layout | str:
    """A layout message, or a word for a layout that is not read; `most` is the largest shape."""
    version = cursor.number(1)
    if version not in (3, 4, 5):
        return f"a layout of version {version}"
    kind = cursor.number(1)
    if kind == 0:
        nbytes = cursor.number(2)
        return Layout("compact", 0, nbytes, inline=(cursor.at, nbytes))
    if kind == 1:
        return Layout("contiguous", cursor.number(8), cursor.number(8))
    if kind == 2 and version == 3:
        rank = cursor.number(1)
        if not 1 < rank <= _MOST_DIMENSIONS + 1:
            raise Hdf5FormatError(f"chunks of {rank} dimensions")
        address = cursor.number(8)
        sizes = tuple(cursor.number(4) for _ in range(rank))
        return Layout("chunked", address, 0, chunk=sizes[:-1])
    return _indexed(cursor, most, wide=version == 5) if kind == 2 else "a virtual dataset"


def _indexed(cursor: Cursor, most: tuple[int, ...], *, wide: bool) -> Layout:
    flags, rank, width = cursor.number(1), cursor.number(1), cursor.number(1)
    if not 1 < rank <= _MOST_DIMENSIONS + 1 or not 0 < width <= 8:
        raise Hdf5FormatError(f"chunks of {rank} dimensions")
    sizes = tuple(cursor.number(width) for _ in range(rank))
    kind = cursor.number(1)
    if not 1 <= kind <= 5:
        raise Hdf5FormatError(f"an index of chunks of kind {kind}")
    nbytes, skipped = (cursor.number(8), cursor.number(4)) if kind == 1 and flags & 2 else (0, 0)
    cursor.take({3: 1, 4: 5, 5: 6}.get(kind, 0))
    index = ChunkIndex(kind, most, nbytes, skipped, bool(flags & 1), wide)
    return Layout("chunked", cursor.number(8), 0, chunk=sizes[:-1], index=index)


def parse_filters(cursor: Cursor) -> tuple[str, ...]:
    """Names of the filters in the order of writing; an unknown one by its number."""
    version, count = cursor.number(1), cursor.number(1)
    if version not in (1, 2) or count > 32:
        raise Hdf5FormatError(f"{count} filters of version {version}")
    if version == 1:
        cursor.take(6)
    names = []
    for _ in range(count):
        number = cursor.number(2)
        length = cursor.number(2) if version == 1 or number >= 256 else 0
        cursor.take(2)
        values = cursor.number(2)
        cursor.take(length)
        client = [cursor.number(4) for _ in range(values)]
        if version == 1 and values % 2:
            cursor.take(4)
        name = _FILTERS.get(number, f"filter {number}")
        names.append(f"shuffle:{client[0]}" if name == "shuffle" and client else name)
    return tuple(names)


def is_grid(shape: tuple[int, ...], chunk: tuple[int, ...], corners: list[tuple[int, ...]]) -> bool:
    """Whether chunks at `corners` cover an array exactly once each."""
    wanted = 1
    for size, part in zip(shape, chunk, strict=True):
        if part <= 0:
            return False
        wanted *= -(-size // part)
    ordered = sorted(corners)
    return (
        len(ordered) == wanted
        and all(a != b for a, b in pairwise(ordered))
        and all(
            o % part == 0 and o < size
            for corner in ordered
            for o, part, size in zip(corner, chunk, shape, strict=True)
        )
    )
