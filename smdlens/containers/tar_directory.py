"""The members of an uncompressed tar archive (POSIX ustar headers of 512 bytes)."""

from __future__ import annotations

from smdlens.containers.files import RegularFile
from smdlens.errors import SnapshotCorruptError, SnapshotTruncatedError

_BLOCK = 512
_MOST_MEMBERS = 1_000
_REGULAR = (b"0", b"\0")


def read_tar_directory(file: RegularFile) -> dict[str, tuple[int, int]]:
    """Name -> (offset, bytes) of the regular members.

    Raises:
        SnapshotTruncatedError: The archive ends inside a member.
        SnapshotCorruptError: A header with an impossible checksum or size, or too many members.
    """
    members: dict[str, tuple[int, int]] = {}
    at = 0
    for _ in range(_MOST_MEMBERS):
        if at + _BLOCK > file.size:
            raise SnapshotTruncatedError(
                "the archive ends without its closing block",
                subject=file.path,
                found=f"a file of {file.size} bytes",
            )
        header = file.read(at, _BLOCK)
        if header == b"\0" * _BLOCK:
            return members
        size = _octal(file, header[124:136], at)
        expected = _octal(file, header[148:156], at)
        if sum(header[:148]) + 8 * 0x20 + sum(header[156:]) != expected:
            raise _corrupt(file, "a header with a wrong checksum", at)
        if at + _BLOCK + size > file.size:
            raise SnapshotTruncatedError(
                "the archive ends inside a member",
                subject=file.path,
                expected=f"{size} bytes at offset {at + _BLOCK}",
                found=f"a file of {file.size} bytes",
            )
        if header[156:157] in _REGULAR:
            name = header[:100].rstrip(b"\0").decode("utf-8", "replace").removeprefix("./")
            if name in members:
                raise _corrupt(file, f"the member {name!r} appears twice", at)
            members[name] = (at + _BLOCK, size)
        at += _BLOCK + -(-size // _BLOCK) * _BLOCK
    raise _corrupt(file, f"more than {_MOST_MEMBERS} members", at)


def _octal(file: RegularFile, field: bytes, at: int) -> int:
    if field[:1] == b"\x80":  # GNU's binary form, for members beyond 8 GiB
        return int.from_bytes(field[1:], "big")
    text = field.rstrip(b"\0 ").lstrip(b" ")
    try:
        size = int(text or b"0", 8)
    except ValueError as error:
        raise _corrupt(file, "a header with a malformed number", at) from error
    if size < 0:
        raise _corrupt(file, "a header with a negative number", at)
    return size


def _corrupt(file: RegularFile, message: str, offset: int) -> SnapshotCorruptError:
    return SnapshotCorruptError(message, subject=file.path, found=f"at offset {offset}")
