"""OCDBT databases as TensorStore wrote them, and the checksum they carry."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from smdlens.containers.crc32c import crc32c
from smdlens.containers.limits import Limits
from smdlens.containers.ocdbt import OcdbtReader
from smdlens.errors import (
    SnapshotCorruptError,
    SnapshotError,
    SnapshotUnsafeError,
    SnapshotUnsupportedError,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "orbax" / "database"


def test_a_tree_of_several_levels() -> None:
    reader = OcdbtReader(GOLDEN, Limits())
    values = reader.values()
    expected = json.loads((GOLDEN / "expected.json").read_text())
    assert list(values) == sorted(expected) and len(values) == 150
    inline = 0
    for key, value in values.items():
        if value.data is None:
            with open(value.path, "rb") as file:
                file.seek(value.offset)
                assert file.read(value.nbytes).decode() == expected[key]
        else:
            inline += 1
            assert value.data.decode() == expected[key] and value.nbytes == len(expected[key])
    assert 0 < inline < 150, "values inside nodes and apart"
    assert len(reader.stamps) > 1


def test_limits_hold() -> None:
    with pytest.raises(SnapshotUnsafeError, match="too many keys"):
        OcdbtReader(GOLDEN, Limits(plain_values=50)).values()
    with pytest.raises(SnapshotError):
        OcdbtReader(GOLDEN, Limits(pickle_bytes=500)).values()


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN, tmp_path / "db")
    manifest = tmp_path / "db" / "manifest.ocdbt"
    data = bytearray(manifest.read_bytes())
    data[40] ^= 1
    manifest.write_bytes(data)
    with pytest.raises(SnapshotCorruptError, match="checksum"):
        OcdbtReader(tmp_path / "db", Limits()).values()


def _manifest(body: bytes) -> bytes:
    data = b"\x0c\xdb\x3a\x2a" + (len(body) + 18).to_bytes(8, "little") + b"\0\0" + body
    return data + crc32c(data).to_bytes(4, "little")


def test_a_data_file_outside_the_folder_is_refused(tmp_path: Path) -> None:
    name = b"../outside"
    table = bytes([1, len(name), 0]) + name
    body = bytes(16) + b"\0" + b"\0\0" + b"\4" + b"\0" + table
    body += bytes([1, 1, 0, 0, 0, 40, 1, 40, 0])
    (tmp_path / "manifest.ocdbt").write_bytes(_manifest(body))
    with pytest.raises(SnapshotUnsafeError, match="outside"):
        OcdbtReader(tmp_path, Limits()).values()
    (tmp_path / "manifest.ocdbt").write_bytes(_manifest(bytes(16) + b"\2" + bytes(30)))
    with pytest.raises(SnapshotUnsupportedError, match="another kind"):
        OcdbtReader(tmp_path, Limits()).values()


def test_checksum() -> None:
    # RFC 3720, appendix B.4.
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
