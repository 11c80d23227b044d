"""Reading by position: what is cut short, replaced, or no file at all ends in a clear error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from motion_helpers import Saved, groups_of, hyper_of, symmetry_of, write_series

from smdlens.errors import (
    SnapshotChangedError,
    SnapshotCorruptError,
    SnapshotMissingError,
    SnapshotTruncatedError,
    SnapshotUnsafeError,
    SnapshotUnsupportedError,
)
from smdlens.motion.engine import measure
from smdlens.motion.files import FilePool
from smdlens.motion.tensors import load
from smdlens.snapshots.records import DTYPE_BYTES, Extent, SnapshotSeries, TensorRef


def read(pool: FilePool, extents: list[Extent], low: int, high: int) -> bytes:
    target = bytearray(high - low)
    pool.read_into(extents, low, high, memoryview(target))
    return bytes(target)


def test_reads_any_range_across_extents_with_few_handles(tmp_path: Path) -> None:
    extents, whole = [], b""
    for i in range(20):
        path = tmp_path / f"part{i}"
        data = os.urandom(50 + i)
        path.write_bytes(b"head" + data + b"tail")
        extents.append(Extent(str(path), 4, len(data)))
        whole += data
    with FilePool(limit=3) as pool:
        for low, high in ((0, len(whole)), (17, 18), (49, 51), (0, 0), (300, 900)):
            assert read(pool, extents, low, high) == whole[low:high]
        assert len(pool._handles) <= 3
        assert pool.bytes_read == len(whole) + 1 + 2 + 600
        pool.verify()


def open_files() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


def test_idle_files_only_are_closed(tmp_path: Path) -> None:
    before = open_files()
    with FilePool(limit=1) as pool:
        for i in range(5):
            (tmp_path / str(i)).write_bytes(b"x" * 8)
            read(pool, [Extent(str(tmp_path / str(i)), 0, 8)], 0, 8)
        assert open_files() <= before + 1
    assert open_files() == before


def test_extents_with_too_few_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)
    ref = TensorRef("w", (4, 4), "float32", (Extent(str(tmp_path / "a"), 0, 60),))
    with pytest.raises(SnapshotCorruptError, match="expected 64 bytes, found 60 bytes"):
        load(ref)


def make_run(tmp_path: Path) -> SnapshotSeries:
    ws = [torch.randn(8, 9) for _ in range(3)]
    return write_series(tmp_path, [Saved(i * 10, {"w": w}) for i, w in enumerate(ws)])


def test_truncated_file_is_named(tmp_path: Path) -> None:
    series = make_run(tmp_path)
    victim = tmp_path / "step_10.bin"
    os.truncate(victim, victim.stat().st_size - 20)
    with pytest.raises(SnapshotTruncatedError) as caught:
        measure(series, groups_of(symmetry_of("w", (8, 9))), hyper_of(), device="cpu")
    assert caught.value.subject == str(victim)
    assert caught.value.exit_code == 3
    assert caught.value.remedy


@pytest.mark.parametrize("how", ["touched", "replaced", "grown", "removed"])
def test_change_during_the_measurement_is_an_error(tmp_path: Path, how: str) -> None:
    series = make_run(tmp_path)
    victim = tmp_path / "step_20.bin"
    data = victim.read_bytes()

    def spoil(done: int, total: int) -> None:
        if how == "touched":
            os.utime(victim, ns=(1, 1))
        elif how == "replaced":
            (tmp_path / "new").write_bytes(data)
            (tmp_path / "new").replace(victim)
        elif how == "grown":
            victim.write_bytes(data + b"x")
        elif victim.exists():
            victim.unlink()

    with pytest.raises(SnapshotChangedError) as caught:
        measure(
            series,
            groups_of(symmetry_of("w", (8, 9))),
            hyper_of(),
            device="cpu",
            progress=spoil,
        )
    assert caught.value.subject == str(victim)


def test_reopened_file_must_be_the_same(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one, two):
        path.write_bytes(b"x" * 8)
    with FilePool(limit=1) as pool:
        read(pool, [Extent(str(one), 0, 8)], 0, 8)
        read(pool, [Extent(str(two), 0, 8)], 0, 8)
        one.write_bytes(b"y" * 9)
        with pytest.raises(SnapshotChangedError):
            read(pool, [Extent(str(one), 0, 8)], 0, 8)


def test_missing_file_and_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with FilePool() as pool:
        with pytest.raises(SnapshotMissingError):
            read(pool, [Extent(str(tmp_path / "absent"), 0, 8)], 0, 8)
        with pytest.raises(SnapshotUnsafeError):
            read(pool, [Extent(str(tmp_path / "fifo"), 0, 8)], 0, 8)


@pytest.mark.parametrize("name", sorted(DTYPE_BYTES))
def test_load_gives_every_dtype_as_stored(tmp_path: Path, name: str) -> None:
    dtype = getattr(torch, name)
    raw = torch.randint(0, 2, (24 * DTYPE_BYTES[name],), dtype=torch.uint8)
    stored = raw.view(dtype).view(2, 3, 4)
    path = tmp_path / "t"
    path.write_bytes(b"123" + raw.numpy().tobytes())
    got = load(TensorRef("t", (2, 3, 4), name, (Extent(str(path), 3, raw.numel()),)))
    assert got.dtype == dtype
    assert torch.equal(got.view(torch.uint8), stored.view(torch.uint8))


def test_load_follows_strides_and_takes_scalars_and_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t"
    storage = torch.arange(40, dtype=torch.float32)
    path.write_bytes(storage.numpy().tobytes())
    extent = (Extent(str(path), 8, 4 * 30),)
    got = load(TensorRef("t", (3, 4), "float32", extent, (2, 7)))
    assert torch.equal(got, storage[2:].as_strided((3, 4), (2, 7)))
    assert got.is_contiguous()
    assert load(TensorRef("t", (), "float32", (Extent(str(path), 4, 4),))).item() == 1.0
    assert load(TensorRef("t", (0, 3), "float32", ())).shape == (0, 3)


def test_unknown_dtype() -> None:
    with pytest.raises(SnapshotUnsupportedError, match="load_state_dict"):
        load(TensorRef("t", (1,), "load_state_dict", ()))
