"""The directory of a zip archive; entries are read only where they are stored uncompressed.

Layout from the .ZIP File Format Specification (APPNOTE 6.3.9), sections 4.3.7 (local header),
4.3.12 (central directory header), 4.3.14 to 4.3.16 (end records, zip64 included) and 4.5.3 (zip64
extra field).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from smdlens.containers.files import RegularFile
from smdlens.containers.limits import DEFAULT_LIMITS, Limits
from smdlens.errors import (
    SnapshotCorruptError,
    SnapshotTruncatedError,
    SnapshotUnsafeError,
    SnapshotUnsupportedError,
)

_END = struct.Struct("<4s4H2IH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_LONGEST_COMMENT = 0xFFFF
_U16, _U32 = 0xFFFF, 0xFFFFFFFF
_ENCRYPTED, _SIZES_FOLLOW, _STRONG, _UTF8, _MASKED = 0x1, 0x8, 0x40, 0x800, 0x2000
_CRC_BLOCK = 1 << 22


@dataclass(frozen=True, slots=True)
class ZipEntry:
    """An entry: where its bytes lie in the archive, and their declared CRC-32.

    TorchScript archives compress their source code, which `inflated` unpacks: a compressed entry
    is listed with `stored` False, and `require_stored` refuses it.
    """

    name: str
    offset: int
    nbytes: int
    crc32: int
    stored: bool = True


@dataclass(frozen=True, slots=True)
class _Central:
    name: bytes
    crc32: int
    packed: int
    nbytes: int
    method: int
    header_offset: int


def read_zip_directory(file: RegularFile, limits: Limits = DEFAULT_LIMITS) -> dict[str, ZipEntry]:
    """Entry name -> entry, in the order of the central directory.

    Raises:
        SnapshotTruncatedError: No end-of-directory record, or ranges beyond the file.
        SnapshotCorruptError: Central and local headers disagree, entries overlap or repeat.
        SnapshotUnsupportedError: Encrypted entries, several volumes.
        SnapshotUnsafeError: More entries than `limits` allows.
    """
    count, size, start, end = _find_directory(file)
    if count > limits.zip_entries:
        raise SnapshotUnsafeError(
            "the archive has too many entries",
            subject=file.path,
            expected=f"at most {limits.zip_entries}",
            found=str(count),
        )
    if start + size > end or count * _CENTRAL.size > size:
        raise _corrupt(file, "the directory does not fit where the archive says it is", start)
    centrals = list(_central_headers(file, file.read(start, size), count, start))
    entries: dict[str, ZipEntry] = {}
    taken: list[tuple[int, int]] = []
    for central in centrals:
        entry = _check_local(file, central)
        if entry.name in entries:
            raise _corrupt(file, f"the entry {entry.name!r} appears twice", central.header_offset)
        entries[entry.name] = entry
        taken.append((central.header_offset, entry.offset + entry.nbytes))
    _check_disjoint(file, taken, start)
    return entries


def require_stored(file: RegularFile, entry: ZipEntry) -> ZipEntry:
    """The entry, if its bytes lie in the archive as they are.

    Raises:
        SnapshotUnsupportedError: It is compressed.
    """
    if not entry.stored:
        raise _unsupported(file, entry.name.encode(), "a compressed entry")
    return entry


def inflated(file: RegularFile, entry: ZipEntry, most: int) -> bytes:
    """The bytes of an entry, stored or deflated.

    Raises:
        SnapshotUnsafeError: More than `most` bytes.
        SnapshotCorruptError: Bytes that are not deflated.
    """
    data = file.read(entry.offset, min(entry.nbytes, most + 1))
    try:
        if not entry.stored:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, most + 1)
    except zlib.error as error:
        raise _corrupt(
            file, f"the entry {entry.name!r} cannot be unpacked", entry.offset
        ) from error
    if len(data) > most:
        raise SnapshotUnsafeError(
            f"the entry {entry.name!r} is too long",
            subject=file.path,
            expected=f"at most {most} bytes",
        )
    return data


def crc_mismatches(file: RegularFile, entries: Mapping[str, ZipEntry]) -> list[str]:
    """Names of the stored entries whose bytes have another CRC-32. Reads every byte."""
    return [e.name for e in entries.values() if e.stored and _crc32(file, e) != e.crc32]


def _crc32(file: RegularFile, entry: ZipEntry) -> int:
    crc = 0
    for done in range(0, entry.nbytes, _CRC_BLOCK):
        crc = zlib.crc32(file.read(entry.offset + done, min(_CRC_BLOCK, entry.nbytes - done)), crc)
    return crc


def _find_directory(file: RegularFile) -> tuple[int, int, int, int]:
    """(entries, bytes, offset) of the central directory, and the offset of its end record."""
    tail_size = min(file.size, _END.size + _LONGEST_COMMENT)
    tail_start = file.size - tail_size
    # Almost every archive ends without a comment: look at the last bytes before the long tail.
    short = file.read(file.size - _END.size, _END.size) if file.size >= _END.size else b""
    if short[:4] == b"PK\5\6" and short[-2:] == b"\0\0":
        at = file.size - _END.size
        record = short
    else:
        tail = file.read(tail_start, tail_size)
        found = tail.rfind(b"PK\5\6")
        if found < 0 or tail_size - found < _END.size:
            raise SnapshotTruncatedError(
                "the archive has no end-of-directory record: it was cut short",
                subject=file.path,
                expected="a record PK\\5\\6 at the end",
                found=f"none in the last {tail_size} of {file.size} bytes",
                remedy="Wait for the trainer to finish, or copy the file again.",
            )
        at = tail_start + found
        record = tail[found : found + _END.size]
        if at + _END.size + int.from_bytes(record[-2:], "little") != file.size:
            raise _corrupt(file, "bytes follow the end of the archive", at)
    _, disk, first_disk, here, count, size, start, _ = _END.unpack(record)
    if at >= _END64_LOCATOR.size:
        locator = file.read(at - _END64_LOCATOR.size, _END64_LOCATOR.size)
        if locator[:4] == b"PK\6\7":
            return _find_directory64(file, locator, at - _END64_LOCATOR.size)
    if disk or first_disk or here != count:
        raise SnapshotUnsupportedError("a zip archive in several volumes", subject=file.path)
    if count == _U16 or size == _U32 or start == _U32:
        raise _corrupt(file, "a zip64 archive without its zip64 record", at)
    return count, size, start, at


def _find_directory64(
    file: RegularFile, locator: bytes, locator_at: int
) -> tuple[int, int, int, int]:
    _, _, at, _ = _END64_LOCATOR.unpack(locator)
    if at + _END64.size > locator_at:
        raise _corrupt(file, "the zip64 end record lies outside the archive", locator_at)
    mark, _, _, _, disk, first_disk, here, count, size, start = _END64.unpack(
        file.read(at, _END64.size)
    )
    if mark != b"PK\6\6":
        raise _corrupt(file, "the zip64 end record is missing", at)
    if disk or first_disk or here != count:
        raise SnapshotUnsupportedError("a zip archive in several volumes", subject=file.path)
    return count, size, start, at


def _central_headers(file: RegularFile, data: bytes, count: int, start: int) -> list[_Central]:
    headers = []
    at = 0
    for _ in range(count):
        if at + _CENTRAL.size > len(data):
            raise _corrupt(file, "the directory is shorter than its count of entries", start + at)
        (mark, _, _, flags, method, _, _, crc32, packed, nbytes, name_len, extra_len,
         comment_len, disk, _, _, header_offset) = _CENTRAL.unpack_from(data, at)  # fmt: skip
        body = at + _CENTRAL.size
        following = body + name_len + extra_len + comment_len
        if mark != b"PK\1\2" or following > len(data):
            raise _corrupt(file, "a broken directory entry", start + at)
        name = data[body : body + name_len]
        if packed == _U32 or nbytes == _U32 or header_offset == _U32:
            extra = data[body + name_len : body + name_len + extra_len]
            nbytes, packed, header_offset = _zip64_sizes(
                file, extra, nbytes, packed, header_offset, start + at
            )
        if flags & (_ENCRYPTED | _STRONG | _MASKED):
            raise _unsupported(file, name, "an encrypted entry")
        if (method == 0 and packed != nbytes) or disk not in (0, _U16):
            raise _corrupt(file, f"the entry {name!r} has two different sizes", start + at)
        headers.append(_Central(name, crc32, packed, nbytes, method, header_offset))
        at = following
    return headers


def _zip64_sizes(
    file: RegularFile, extra: bytes, nbytes: int, packed: int, header_offset: int, where: int
) -> tuple[int, int, int]:
    values = [nbytes, packed, header_offset]
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            field = extra[at + 4 : at + 4 + length]
            for i, value in enumerate(values):
                if value == _U32:
                    if len(field) < 8:
                        raise _corrupt(file, "a zip64 field that is too short", where)
                    values[i] = int.from_bytes(field[:8], "little")
                    field = field[8:]
            return values[0], values[1], values[2]
        at += 4 + length
    raise _corrupt(file, "a zip64 entry without its zip64 field", where)


def _check_local(file: RegularFile, central: _Central) -> ZipEntry:
    """Read an entry's local header and hold it against the central one."""
    at = central.header_offset
    raw = file.read(at, _LOCAL.size + len(central.name))
    (mark, _, flags, method, _, _, crc32, packed, nbytes, name_len, extra_len) = _LOCAL.unpack_from(
        raw
    )
    name = raw[_LOCAL.size :]
    if (
        mark != b"PK\3\4"
        or method != central.method
        or name_len != len(central.name)
        or name != central.name
    ):
        raise _corrupt(file, f"the local header of {central.name!r} contradicts the directory", at)
    later = flags & _SIZES_FOLLOW and not (crc32 or packed or nbytes)
    large = packed == _U32 or nbytes == _U32
    if not later and (
        crc32 != central.crc32
        or (not large and (packed, nbytes) != (central.packed, central.nbytes))
    ):
        raise _corrupt(file, f"the local header of {central.name!r} contradicts the directory", at)
    offset = at + _LOCAL.size + name_len + extra_len
    if offset + central.packed > file.size:
        raise SnapshotTruncatedError(
            f"the entry {central.name!r} reaches beyond the file",
            subject=file.path,
            expected=f"{central.packed} bytes at offset {offset}",
            found=f"a file of {file.size} bytes",
        )
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        text = name.decode("cp437")
    return ZipEntry(text, offset, central.packed, central.crc32, central.method == 0)


def _check_disjoint(file: RegularFile, taken: list[tuple[int, int]], directory: int) -> None:
    limit = 0
    for start, end in sorted(taken):
        if start < limit:
            raise _corrupt(file, "two entries of the archive overlap", start)
        limit = end
    if limit > directory:
        raise _corrupt(file, "an entry overlaps the archive's directory", directory)


def _corrupt(file: RegularFile, message: str, offset: int) -> SnapshotCorruptError:
    return SnapshotCorruptError(
        message,
        subject=file.path,
        found=f"the contradiction at offset {offset}",
        remedy="Copy the checkpoint again, or leave it out.",
    )


def _unsupported(file: RegularFile, name: bytes, what: str) -> SnapshotUnsupportedError:
    return SnapshotUnsupportedError(
        f"{what}: {name!r}",
        subject=file.path,
        expected="stored entries, as torch.save writes them",
        remedy="Save the checkpoint again with torch.save, without recompressing it.",
    )
