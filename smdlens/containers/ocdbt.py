"""TensorStore's OCDBT databases: every key of the latest version, and where its value lies.

Layout from the documentation of TensorStore's `ocdbt` key-value store driver, "Storage format":
a manifest names the root of a B+tree, whose leaves hold small values and point at larger ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from smdlens.containers.crc32c import crc32c
from smdlens.containers.files import FileStamp, RegularFile, contained, reading
from smdlens.containers.limits import Limits
from smdlens.containers.packed import unpack_zstd
from smdlens.errors import (
    SnapshotCorruptError,
    SnapshotTruncatedError,
    SnapshotUnsafeError,
    SnapshotUnsupportedError,
)

MANIFEST = "manifest.ocdbt"
_MANIFEST_MAGIC, _NODE_MAGIC = 0x0CDB3A2A, 0x0CDB20DE
_HEADER, _CHECKSUM = 12, 4
_NUMBERED = 1
_NUMBER = re.compile(r"manifest\.[0-9a-f]{16}")
_LARGEST_NODE = 1 << 28
_CHECKED = 1 << 20
_DEEPEST = 32


@dataclass(frozen=True, slots=True)
class OcdbtBlock:
    """The body of a node in its file: where it lies, whether compressed, how long unpacked."""

    path: str
    offset: int
    stored: int
    compressed: bool
    unpacked: int


@dataclass(frozen=True, slots=True)
class OcdbtValue:
    """A value: bytes [offset, offset + nbytes) of a file, or of the body of a node.

    Attributes:
        path: The file.
        offset: First byte, in the file or in the unpacked body.
        nbytes: How many.
        block: The body it lies in, where it is kept in a node.
        data: The bytes, where they are kept in a node.
    """

    path: str
    offset: int
    nbytes: int
    block: OcdbtBlock | None = None
    data: bytes | None = None


class _Bytes:
    """Numbers out of a node, front to back."""

    def __init__(self, data: bytes, path: str) -> None:
        self.data = data
        self.at = 0
        self.path = path

    def take(self, count: int) -> bytes:
        end = self.at + count
        if count < 0 or end > len(self.data):
            raise _corrupt(self.path, "a node ends early")
        part = self.data[self.at : end]
        self.at = end
        return part

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise _corrupt(self.path, "a number without end")

    def varints(self, count: int) -> list[int]:
        if count > len(self.data) - self.at:
            raise _corrupt(self.path, f"{count} numbers")
        return [self.varint() for _ in range(count)]


class OcdbtReader:
    """Reads one database within budgets of keys and of bytes.

    Args:
        root: Its folder.
        limits: Bounds.
    """

    def __init__(self, root: Path, limits: Limits) -> None:
        self.root = root
        self.stamps: dict[str, FileStamp] = {}
        self._limits = limits
        self._keys = limits.plain_values
        self._bytes = limits.pickle_bytes

    def values(self) -> dict[str, OcdbtValue]:
        """Every key of the latest version and its value.

        Raises:
            SnapshotTruncatedError: A file ends early.
            SnapshotCorruptError: A file contradicts the format, or its checksum.
            SnapshotUnsafeError: More than `limits` allows, or a file outside the folder.
            SnapshotUnsupportedError: A manifest of another kind, or a missing package.
        """
        node, kind = self._manifest(self.root / MANIFEST)
        if kind == _NUMBERED:
            node, kind = self._manifest(self._latest())
        path = node.path
        if kind not in (0, _NUMBERED):
            raise SnapshotUnsupportedError(
                "a database whose manifest is of another kind", subject=path, found=str(kind)
            )
        node.varints(2)
        node.take(1)
        if node.varint() != 0:
            node.take(4)
        files = self._files(node, "")
        count = node.varint()
        if count == 0:
            raise _corrupt(path, "no version")
        node.varints(count)
        heights = node.take(count)
        ids, offsets, lengths = (node.varints(count) for _ in range(3))
        found: dict[str, OcdbtValue] = {}
        name, base = self._at(files, ids[-1], path)
        tree = self._walk(name, base, offsets[-1], lengths[-1], b"", heights[-1])
        for key, value in tree:
            found[key.decode("utf-8", "replace")] = value
        return found

    def _manifest(self, path: Path) -> tuple[_Bytes, int]:
        """A manifest behind its first fields, and whether it is kept in one file or in several."""
        with reading(path) as file:
            self.stamps[file.path] = file.stamp
            body, _ = self._body(file, 0, file.size, _MANIFEST_MAGIC)
        node = _Bytes(body, str(path))
        node.take(16)
        return node, node.varint()

    def _latest(self) -> Path:
        """The numbered manifest with the largest number."""
        try:
            names = [e.name for e in self.root.iterdir() if _NUMBER.fullmatch(e.name)]
        except OSError as error:
            raise _corrupt(str(self.root), f"cannot be listed: {error.strerror}") from error
        if not names:
            raise SnapshotTruncatedError(
                "the numbered manifests of the database are missing",
                subject=str(self.root),
                expected="manifest.0000000000000001 or a later one",
                remedy="Copy the whole checkpoint folder again, or leave it out.",
            )
        return self.root / max(names)  # of one length, in hexadecimal

    def _walk(
        self, name: str, base: str, offset: int, length: int, prefix: bytes, height: int
    ) -> Iterator[tuple[bytes, OcdbtValue]]:
        if height > _DEEPEST:
            raise _corrupt(name, f"a tree of height {height}")
        with reading(contained(self.root, name, subject=str(self.root / MANIFEST))) as file:
            self.stamps[file.path] = file.stamp
            body, block = self._body(file, offset, length, _NODE_MAGIC)
        node = _Bytes(body, block.path)
        if node.take(1)[0] != height:
            raise _corrupt(block.path, "a node of another height than its parent says")
        files = self._files(node, base)
        count = node.varint()
        if count > len(body):
            raise _corrupt(block.path, f"a node of {count} entries")
        common = [0, *node.varints(max(count - 1, 0))]
        suffixes = node.varints(count)
        shared = node.varints(count) if height else []
        keys, last = [], b""
        for number in range(count):
            self._charge(block.path)
            if common[number] > len(last):
                raise _corrupt(block.path, "a key longer than the one before it allows")
            last = last[: common[number]] + node.take(suffixes[number])
            keys.append(last)
        if height:
            ids, offsets, lengths = (node.varints(count) for _ in range(3))
            for number in range(count):
                inner, inner_base = self._at(files, ids[number], block.path)
                below = prefix + keys[number][: shared[number]]
                yield from self._walk(
                    inner, inner_base, offsets[number], lengths[number], below, height - 1
                )
            return
        yield from self._leaf(node, block, files, [prefix + key for key in keys])

    def _leaf(
        self, node: _Bytes, block: OcdbtBlock, files: list[tuple[str, str]], keys: list[bytes]
    ) -> Iterator[tuple[bytes, OcdbtValue]]:
        lengths, kinds = node.varints(len(keys)), node.varints(len(keys))
        apart = sum(1 for kind in kinds if kind == 1)
        if any(kind not in (0, 1) for kind in kinds):
            raise _corrupt(block.path, "a value of an unknown kind")
        ids, offsets = node.varints(apart), node.varints(apart)
        places = iter(zip(ids, offsets, strict=True))
        for key, length, kind in zip(keys, lengths, kinds, strict=True):
            if kind == 0:
                at = node.at
                yield key, OcdbtValue(block.path, at, length, block, node.take(length))
            else:
                number, offset = next(places)
                name, _ = self._at(files, number, block.path)
                path = contained(self.root, name, subject=block.path)
                yield key, OcdbtValue(str(path), offset, length)

    def _body(
        self, file: RegularFile, offset: int, length: int, magic: int
    ) -> tuple[bytes, OcdbtBlock]:
        """The unpacked body of a node, and how it lies in its file."""
        if not _HEADER + 2 + _CHECKSUM <= length <= _LARGEST_NODE:
            raise _corrupt(file.path, f"a node of {length} bytes")
        data = file.read(offset, length)
        head = _Bytes(data, file.path)
        if int.from_bytes(head.take(4), "big") != magic:
            raise _corrupt(file.path, f"no node at offset {offset}")
        if int.from_bytes(head.take(8), "little") != length:
            raise _corrupt(file.path, f"a node of another length at offset {offset}")
        if head.varint() != 0 or (method := head.varint()) not in (0, 1):
            raise SnapshotUnsupportedError(
                "a database of a version that is not read", subject=file.path
            )
        checksum = int.from_bytes(data[-_CHECKSUM:], "little")
        if length <= _CHECKED and crc32c(data[:-_CHECKSUM]) != checksum:
            raise _corrupt(file.path, f"a wrong checksum of the node at offset {offset}")
        start, body = head.at, data[head.at : -_CHECKSUM]
        stored = len(body)
        if method == 1:
            body = unpack_zstd(body, self._bytes, file.path)
        self._bytes -= len(body)
        if self._bytes < 0:
            raise SnapshotUnsafeError(
                "the database has too many bytes of keys",
                subject=file.path,
                expected=f"at most {self._limits.pickle_bytes}",
            )
        return body, OcdbtBlock(file.path, offset + start, stored, method == 1, len(body))

    def _files(self, node: _Bytes, base: str) -> list[tuple[str, str]]:
        """Data files that a node names: (path, its part that goes before what those name)."""
        count = node.varint()
        if count > self._limits.index_files:
            raise _corrupt(node.path, f"{count} data files")
        common = [0, *node.varints(max(count - 1, 0))]
        suffixes, bases = node.varints(count), node.varints(count)
        found, last = [], b""
        for number in range(count):
            last = last[: common[number]] + node.take(suffixes[number])
            path = last.decode("utf-8", "replace")
            prefix = last[: bases[number]].decode("utf-8", "replace")
            found.append((base + path, base + prefix))
        return found

    def _at(self, files: list[tuple[str, str]], number: int, path: str) -> tuple[str, str]:
        if number >= len(files):
            raise _corrupt(path, "a data file that is not in its table")
        return files[number]

    def _charge(self, path: str) -> None:
        self._keys -= 1
        if self._keys < 0:
            raise SnapshotUnsafeError(
                "the database has too many keys",
                subject=path,
                expected=f"at most {self._limits.plain_values}",
            )


def _corrupt(path: str, found: str) -> SnapshotCorruptError:
    return SnapshotCorruptError(
        "the database of the checkpoint contradicts its format",
        subject=path,
        found=found,
        remedy="Copy the whole checkpoint folder again, or leave it out.",
    )
