"""The zip directory against Python's zipfile, and archives that contradict themselves."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import pytest

from smdlens.containers.files import open_regular
from smdlens.containers.limits import Limits
from smdlens.containers.zip_directory import (
    ZipEntry,
    crc_mismatches,
    read_zip_directory,
    require_stored,
)
from smdlens.errors import (
    SnapshotCorruptError,
    SnapshotError,
    SnapshotTruncatedError,
    SnapshotUnsafeError,
    SnapshotUnsupportedError,
)

CONTENT = {"a/data.pkl": b"hello", "a/data/0": bytes(range(256)), "a/empty": b"", "a/ü": b"x"}


def _archive(**how: bool) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in CONTENT.items():
            with archive.open(name, "w", force_zip64=how.get("zip64", False)) as entry:
                entry.write(data)
    return buffer.getvalue()


def _directory(tmp_path: Path, data: bytes, limits: Limits | None = None) -> dict[str, ZipEntry]:
    path = tmp_path / "a.pt"
    path.write_bytes(data)
    with open_regular(path) as file:
        return read_zip_directory(file, limits or Limits())


@pytest.mark.parametrize("zip64", [False, True])
def test_entries_and_bytes_as_zipfile_finds_them(tmp_path: Path, zip64: bool) -> None:
    data = _archive(zip64=zip64)
    entries = _directory(tmp_path, data)
    oracle = zipfile.ZipFile(io.BytesIO(data))
    assert list(entries) == oracle.namelist()
    for name, entry in entries.items():
        assert data[entry.offset : entry.offset + entry.nbytes] == CONTENT[name]
        assert entry.crc32 == oracle.getinfo(name).CRC


def test_zip64_end_record(tmp_path: Path) -> None:
    data = _archive()
    at = data.rindex(b"PK\5\6")
    _, _, _, _, count, size, start, _ = struct.unpack("<4s4H2IH", data[at:])
    end64 = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, at, 1)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    wide = data[:at] + end64 + locator + end
    assert set(zipfile.ZipFile(io.BytesIO(wide)).namelist()) == set(CONTENT)
    assert set(_directory(tmp_path, wide)) == set(CONTENT)
    without = data[:at] + end
    with pytest.raises(SnapshotCorruptError, match="zip64"):
        _directory(tmp_path, without)


def test_an_archive_comment_is_allowed(tmp_path: Path) -> None:
    data = _archive()[:-2] + struct.pack("<H", 5) + b"hello"
    assert set(_directory(tmp_path, data)) == set(CONTENT)
    with pytest.raises(SnapshotCorruptError, match="bytes follow"):
        _directory(tmp_path, data + b"more")


def test_checksums_find_one_flipped_bit(tmp_path: Path) -> None:
    data = bytearray(_archive())
    path = tmp_path / "a.pt"
    path.write_bytes(data)
    with open_regular(path) as file:
        entries = read_zip_directory(file)
        assert crc_mismatches(file, entries) == []
    data[entries["a/data/0"].offset + 7] ^= 4
    path.write_bytes(data)
    with open_regular(path) as file:
        assert crc_mismatches(file, read_zip_directory(file)) == ["a/data/0"]


def test_compressed_entries_are_listed_but_not_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\0" * 100_000)
    path = tmp_path / "a.pt"
    path.write_bytes(buffer.getvalue())
    with open_regular(path) as file:
        entry = read_zip_directory(file)["a/data.pkl"]
        assert not entry.stored
        with pytest.raises(SnapshotUnsupportedError, match="compressed"):
            require_stored(file, entry)


def _patched(edit: str) -> bytes:
    """An archive with one contradiction."""
    data = bytearray(_archive())
    central = data.index(b"PK\1\2")
    second = data.index(b"PK\1\2", central + 4)
    end = data.rindex(b"PK\5\6")
    if edit == "encrypted":
        data[central + 8] |= 1
    elif edit == "name":
        data[data.index(b"a/data.pkl")] = ord("b")
    elif edit == "crc":
        data[14] ^= 1
    elif edit == "size":
        data[22] += 1
    elif edit == "overlap":
        data[second + 42 : second + 46] = data[central + 42 : central + 46]
    elif edit == "central mark":
        data[second] = 0
    elif edit == "local mark":
        data[0] = 0
    elif edit == "count":
        data[end + 8 : end + 12] = struct.pack("<2H", 9, 9)
    elif edit == "start":
        data[end + 16 : end + 20] = struct.pack("<I", len(data) + 10)
    elif edit == "volumes":
        data[end + 4] = 1
    elif edit == "declared":
        for where in (central + 20, central + 24):
            data[where : where + 4] = struct.pack("<I", 1 << 31)
    return bytes(data)


@pytest.mark.parametrize(
    ("edit", "error"),
    [
        ("encrypted", SnapshotUnsupportedError),
        ("name", SnapshotCorruptError),
        ("crc", SnapshotCorruptError),
        ("size", SnapshotCorruptError),
        ("overlap", SnapshotCorruptError),
        ("central mark", SnapshotCorruptError),
        ("local mark", SnapshotCorruptError),
        ("count", SnapshotCorruptError),
        ("start", SnapshotCorruptError),
        ("volumes", SnapshotUnsupportedError),
        ("declared", SnapshotCorruptError),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, edit: str, error: type[SnapshotError]) -> None:
    with pytest.raises(error, match=r"a\.pt"):
        _directory(tmp_path, _patched(edit))


def test_names_that_repeat_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with pytest.warns(UserWarning), zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", b"one")
        archive.writestr("a/data.pkl", b"two")
    with pytest.raises(SnapshotCorruptError, match="twice"):
        _directory(tmp_path, buffer.getvalue())


def test_a_cut_archive_and_too_many_entries(tmp_path: Path) -> None:
    with pytest.raises(SnapshotTruncatedError, match="cut short"):
        _directory(tmp_path, _archive()[:-30])
    with pytest.raises(SnapshotUnsafeError, match="too many"):
        _directory(tmp_path, _archive(), Limits(zip_entries=3))
