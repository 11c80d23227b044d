"""HDF5 files read by position: groups, attributes and where the bytes of each dataset lie.

An own reader, since the common C library has crashed and hung on damaged files in our tests, and
follows links and external storage out of the file. Nothing here opens another file: soft and
external links are refused, so are external storage, virtual datasets and committed types. Layouts
from the HDF5 File Format Specification, version 3.0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from smdlens.containers.files import RegularFile
from smdlens.containers.hdf5_attributes import AttributeReader, Value
from smdlens.containers.hdf5_chunk_index import stored_chunks
from smdlens.containers.hdf5_chunks import StoredChunk
from smdlens.containers.hdf5_headers import Message, ObjectHeaders
from smdlens.containers.hdf5_links import FractalHeap, Link, OldGroup, RecordTree, parse_link
from smdlens.containers.hdf5_types import (
    TEXT,
    UNDEFINED,
    Cursor,
    Hdf5FormatError,
    Layout,
    element_type,
    parse_dataspace,
    parse_datatype,
    parse_filters,
    parse_layout,
    parse_most,
)
from smdlens.containers.limits import DEFAULT_LIMITS, Limits
from smdlens.errors import (
    SnapshotCorruptError,
    SnapshotTruncatedError,
    SnapshotUnsafeError,
    SnapshotUnsupportedError,
)

MAGIC = b"\x89HDF\r\n\x1a\n"
_DEEPEST = 32
_SPACE, _LINK_INFO, _TYPE, _LINK, _EXTERNAL, _LAYOUT = 0x01, 0x02, 0x03, 0x06, 0x07, 0x08
_FILTERS, _SYMBOLS = 0x0B, 0x11
_KNOWN_FILTERS = ("deflate", "shuffle", "fletcher32")


@dataclass(frozen=True, slots=True)
class Hdf5Dataset:
    """An array.

    Attributes:
        shape: Its shape.
        dtype: Our name of the number type; `TEXT`, or "" for elements that are neither.
        attributes: Values by name.
        chunks: Where the bytes lie: boxes that cover it, one box where it lies in one piece.
        chunk_shape: Shape of a box; boxes at the edges are padded to it.
        filters: Names of the filters that every box went through when written, in order.
    """

    shape: tuple[int, ...]
    dtype: str
    attributes: Mapping[str, Value]
    chunks: tuple[StoredChunk, ...]
    chunk_shape: tuple[int, ...]
    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hdf5Group:
    """A group: its members by name, and its attributes."""

    members: Mapping[str, Hdf5Group | Hdf5Dataset]
    attributes: Mapping[str, Value]


def read_hdf5(file: RegularFile, limits: Limits = DEFAULT_LIMITS) -> Hdf5Group:
    """The root group of an HDF5 file (or of a window on one), everything below it included.

    Raises:
        SnapshotTruncatedError: The file ends before its own headers say.
        SnapshotCorruptError: It contradicts the format.
        SnapshotUnsafeError: Links out of the file, external storage, too large or deep a tree.
        SnapshotUnsupportedError: Layouts, filters or types that are not read.
    """
    try:
        return _Reader(file, limits).root()
    except Hdf5FormatError as error:
        raise SnapshotCorruptError(
            "the HDF5 file contradicts its format",
            subject=file.path,
            found=str(error),
            remedy="Copy the file again, or leave it out.",
        ) from error


class _Reader:
    """One walk over a file, within budgets of objects and of bytes of metadata."""

    def __init__(self, file: RegularFile, limits: Limits) -> None:
        self._file = file
        self._limits = limits
        self._objects = limits.plain_values
        self._bytes = limits.pickle_bytes
        self._open: set[int] = set()
        self._headers = ObjectHeaders(self._read, self._charge)
        self._attributes = AttributeReader(self._read, self._charge, limits.json_bytes)

    def root(self) -> Hdf5Group:
        """The root group, by way of the superblock."""
        start = Cursor(self._file.read(0, min(96, self._file.size)))
        start.expect(MAGIC)
        version = start.number(1)
        if version in (0, 1):
            start.take(4)
            sizes = start.number(1), start.number(1)
            start.take(1 + 8 + (4 if version == 1 else 0))
            base = start.number(8)
            start.take(8)
            end = start.number(8)
            start.take(8 + 8)
            root = start.number(8)
        elif version in (2, 3):
            sizes = start.number(1), start.number(1)
            start.take(1)
            base = start.number(8)
            start.take(8)
            end, root = start.number(8), start.number(8)
        else:
            raise self._unsupported(f"a superblock of version {version}")
        if sizes != (8, 8) or base:
            raise self._unsupported(f"addresses of {sizes[0]} bytes from {base}")
        if end > self._file.size:
            raise SnapshotTruncatedError(
                "the HDF5 file was cut short",
                subject=self._file.path,
                expected=f"{end} bytes",
                found=f"{self._file.size} bytes",
                remedy="Wait for the trainer to finish, or copy the file again.",
            )
        found = self._object(root, "/", 0)
        if isinstance(found, Hdf5Dataset):
            raise Hdf5FormatError("the root is no group")
        return found

    def _object(self, address: int, path: str, depth: int) -> Hdf5Group | Hdf5Dataset:
        self._charge()
        if depth > _DEEPEST or address in self._open:
            raise Hdf5FormatError(f"groups inside each other without end at {path[:200]!r}")
        self._open.add(address)
        messages = self._headers.messages(address)
        attributes = self._attributes.read(messages)
        kinds = {message.kind for message in messages}
        found: Hdf5Group | Hdf5Dataset
        if _LAYOUT in kinds or _SPACE in kinds:
            found = self._dataset(messages, attributes, path)
        else:
            members: dict[str, Hdf5Group | Hdf5Dataset] = {}
            for link in self._links(messages):
                inside = f"{path.rstrip('/')}/{link.name}"
                if link.address is None:
                    raise SnapshotUnsafeError(
                        "a soft or external link, which may lead anywhere",
                        subject=self._file.path,
                        found=repr(inside[:200]),
                        remedy="Save the weights themselves; do not trust this file otherwise.",
                    )
                if link.name in members:
                    raise Hdf5FormatError(f"the name {inside[:200]!r} is given twice")
                members[link.name] = self._object(link.address, inside, depth + 1)
            found = Hdf5Group(members, attributes)
        self._open.discard(address)
        return found

    def _links(self, messages: list[Message]) -> list[Link]:
        links: list[Link] = []
        for message in messages:
            cursor = Cursor(message.body)
            if message.kind == _SYMBOLS:
                tree, heap = cursor.number(8), cursor.number(8)
                links += OldGroup(self._read, self._charge).links(tree, heap)
            elif message.kind == _LINK:
                links.append(parse_link(cursor))
            elif message.kind == _LINK_INFO:
                cursor.take(1)
                cursor.take(8 if cursor.number(1) & 1 else 0)
                heap, names = cursor.number(8), cursor.number(8)
                if heap != UNDEFINED and names != UNDEFINED:
                    found = FractalHeap(self._read, heap)
                    for record in RecordTree(self._read, self._charge).records(names):
                        links.append(parse_link(Cursor(found.object(record[4:]))))
        return links

    def _dataset(
        self, messages: list[Message], attributes: Mapping[str, Value], path: str
    ) -> Hdf5Dataset:
        by_kind = {message.kind: message for message in messages}
        if _EXTERNAL in by_kind:
            raise SnapshotUnsafeError(
                "a dataset whose bytes lie in another file",
                subject=self._file.path,
                found=repr(path[:200]),
                remedy="Save the weights inside the file; do not trust it otherwise.",
            )
        if any(by_kind[k].shared for k in (_SPACE, _TYPE, _LAYOUT, _FILTERS) if k in by_kind):
            raise self._unsupported(f"a committed datatype at {path[:200]!r}")
        if not {_SPACE, _TYPE, _LAYOUT} <= by_kind.keys():
            raise Hdf5FormatError(f"the dataset {path[:200]!r} lacks its shape, type or place")
        space = by_kind[_SPACE].body
        shape, most = parse_dataspace(Cursor(space)), parse_most(Cursor(space))
        datatype = parse_datatype(Cursor(by_kind[_TYPE].body))
        layout = parse_layout(Cursor(by_kind[_LAYOUT].body), most)
        if isinstance(layout, str):
            kind = SnapshotUnsafeError if "virtual" in layout else SnapshotUnsupportedError
            raise kind(
                f"{layout}, which is not read",
                subject=self._file.path,
                found=repr(path[:200]),
                remedy="Save the weights as plain datasets.",
            )
        filters = parse_filters(Cursor(by_kind[_FILTERS].body)) if _FILTERS in by_kind else ()
        unknown = [f for f in filters if f.partition(":")[0] not in _KNOWN_FILTERS]
        if unknown:
            raise self._unsupported(f"{unknown[0]} at {path[:200]!r}")
        dtype = element_type(datatype, attributes.get("dtype"))
        if shape is None or dtype in ("", TEXT):
            return Hdf5Dataset(shape or (), dtype, attributes, (), (), ())
        width = datatype.size
        chunks = self._place(layout, by_kind[_LAYOUT], shape, width, path, bool(filters))
        boxes = layout.chunk if layout.kind == "chunked" else shape
        return Hdf5Dataset(shape, dtype, attributes, chunks, boxes, filters)

    def _place(
        self,
        layout: Layout,
        message: Message,
        shape: tuple[int, ...],
        width: int,
        path: str,
        filtered: bool,
    ) -> tuple[StoredChunk, ...]:
        """The boxes of an array, held against the size of the file."""
        nbytes = math.prod(shape) * width
        origin = (0,) * len(shape)
        if nbytes == 0:
            return ()
        if layout.kind == "chunked":
            if layout.address == UNDEFINED or len(layout.chunk) != len(shape):
                raise Hdf5FormatError(f"the dataset {path[:200]!r} has no chunks of its shape")
            chunks = stored_chunks(self._read, self._charge, layout, shape, width)
            if not filtered and {c.nbytes for c in chunks} != {math.prod(layout.chunk) * width}:
                raise Hdf5FormatError(f"a chunk of another size than its shape at {path[:200]!r}")
        elif layout.inline is not None:
            at, found = layout.inline
            chunks = (StoredChunk(origin, message.offset + at, found, 0),)
        else:
            if layout.address == UNDEFINED:
                raise Hdf5FormatError(f"the dataset {path[:200]!r} was never written")
            chunks = (StoredChunk(origin, layout.address, layout.nbytes, 0),)
        if layout.kind != "chunked" and (chunks[0].nbytes != nbytes or filtered):
            raise Hdf5FormatError(
                f"the dataset {path[:200]!r} has {chunks[0].nbytes} bytes, its shape {nbytes}"
            )
        if any(chunk.address + chunk.nbytes > self._file.size for chunk in chunks):
            raise SnapshotTruncatedError(
                f"the file ends inside {path[:200]!r}",
                subject=self._file.path,
                found=f"a file of {self._file.size} bytes",
                remedy="Wait for the trainer to finish, or copy the file again.",
            )
        return chunks

    def _read(self, address: int, nbytes: int) -> bytes:
        if nbytes > self._bytes:
            raise SnapshotUnsafeError(
                "the headers of the HDF5 file are too long",
                subject=self._file.path,
                expected=f"at most {self._limits.pickle_bytes} bytes",
            )
        self._bytes -= nbytes
        return self._file.read(address, nbytes)

    def _charge(self) -> None:
        self._objects -= 1
        if self._objects < 0:
            raise SnapshotUnsafeError(
                "the HDF5 file has too many objects",
                subject=self._file.path,
                expected=f"at most {self._limits.plain_values}",
            )

    def _unsupported(self, found: str) -> SnapshotUnsupportedError:
        return SnapshotUnsupportedError(
            "an HDF5 file of a kind that is not read",
            subject=self._file.path,
            found=found,
            remedy="Save the weights with Keras itself, without compression plug-ins.",
        )
