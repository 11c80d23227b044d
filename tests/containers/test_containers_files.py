"""Opening and reading regular files."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from smdlens.containers.files import contained, open_regular, reading
from smdlens.errors import (
    SnapshotChangedError,
    SnapshotMissingError,
    SnapshotTruncatedError,
    SnapshotUnsafeError,
)


def test_reads_are_exact_and_inside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(range(100)))
    with reading(path) as file:
        assert file.read(10, 5) == bytes(range(10, 15)) and file.read(100, 0) == b""
        for offset, nbytes in ((99, 2), (101, 0), (-1, 1), (0, -1), (0, 10**18)):
            with pytest.raises(SnapshotTruncatedError, match="a file of 100 bytes"):
                file.read(offset, nbytes)


def test_only_regular_files_are_opened_and_nothing_waits(tmp_path: Path) -> None:
    fifo = tmp_path / "x.safetensors"
    os.mkfifo(fifo)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    try:
        for path in (fifo, tmp_path, "/dev/zero", tmp_path / "socket"):
            with pytest.raises(SnapshotUnsafeError, match="only regular files"):
                open_regular(path)
    finally:
        server.close()
    for path in (tmp_path / "absent", "with\0nul"):
        with pytest.raises(SnapshotMissingError):
            open_regular(path)


def test_a_change_while_reading_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 64)
    with pytest.raises(SnapshotChangedError, match="written to"), reading(path) as file:
        file.read(0, 8)
        with path.open("ab") as other:
            other.write(b"y")
    with pytest.raises(SnapshotChangedError, match="shorter"), reading(path) as file:
        os.truncate(path, 4)
        file.read(0, 8)


def test_a_closed_file_can_be_closed_again(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x")
    file = open_regular(path)
    file.close()
    file.close()
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    for _ in range(20):
        with pytest.raises(SnapshotUnsafeError):
            open_regular(tmp_path)
    assert len(list(descriptors.iterdir())) == before, "a refused file keeps no descriptor"


@pytest.mark.parametrize(
    "name",
    ["../b", "/etc/passwd", "a/../../b", "", "a\0b", "..", ".", "link/x", "out", "..\\b"],
)
def test_names_from_an_index_stay_inside(tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "b").write_bytes(b"secret")
    (run / "link").symlink_to(tmp_path)
    (run / "out").symlink_to(tmp_path / "b")
    with pytest.raises(SnapshotUnsafeError, match="outside its own folder"):
        contained(run, name, subject="index.json")


def test_names_inside_are_resolved(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "real").write_bytes(b"")
    (tmp_path / "alias").symlink_to(tmp_path / "sub" / "real")
    for name in ("sub/real", "alias", "sub/../alias", "absent"):
        assert contained(tmp_path, name, subject="i") == tmp_path / name
