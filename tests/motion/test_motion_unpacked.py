"""Compressed chunks and scaled buffers on their way to the kernels."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from smdlens.containers.files import open_regular
from smdlens.errors import SnapshotCorruptError, SnapshotTruncatedError
from smdlens.motion.files import FilePool
from smdlens.motion.layout import Block
from smdlens.motion.tensors import load
from smdlens.motion.unpacked import UnpackedChunks
from smdlens.motion.workspace import Workspace
from smdlens.snapshots.records import Extent, Packed, TensorRef


def _chunks(path: Path, arrays: list[bytes]) -> list[Extent]:
    extents, data = [], b"head"
    for raw in arrays:
        stored = zlib.compress(raw)
        packed = Packed(len(stored), ("deflate",), len(raw))
        extents.append(Extent(str(path), len(data), len(raw), packed))
        data += stored
    path.write_bytes(data)
    return extents


def _arrays(count: int, size: int = 1000) -> list[bytes]:
    draw = np.random.default_rng(0)
    return [draw.normal(size=size).astype(np.float32).tobytes() for _ in range(count)]


def test_packed_extents_join_with_plain_ones(tmp_path: Path) -> None:
    first, second = _arrays(2)
    packed = _chunks(tmp_path / "a", [first, second])
    plain = tmp_path / "b"
    plain.write_bytes(b"xx" + first)
    extents = (packed[0].part(400, 2400), Extent(str(plain), 2, 4000), packed[1])
    ref = TensorRef("w", (2500,), "float32", extents)
    assert load(ref).numpy().tobytes() == first[400:2400] + first + second
    with FilePool() as pool:
        target = bytearray(1000)
        pool.read_into(extents, 1500, 2500, memoryview(target))
        assert bytes(target) == (first[400:2400] + first)[1500:2500]


@pytest.mark.parametrize(("memory", "scratch"), [(0, 1 << 20), (5000, 1 << 20), (0, 9000), (0, 0)])
def test_chunks_come_back_whatever_is_kept(tmp_path: Path, memory: int, scratch: int) -> None:
    arrays = _arrays(5)
    extents = _chunks(tmp_path / "a", arrays)
    store = UnpackedChunks(memory, scratch)
    cost = []
    with open_regular(tmp_path / "a") as file:
        for _ in range(3):
            for extent, raw in zip(extents, arrays, strict=True):
                target = bytearray(600)
                cost.append(store.read_into(extent, 200, 800, memoryview(target), file))
                assert bytes(target) == raw[200:800]
    store.close()
    again = sum(1 for nbytes in cost[5:] if nbytes)
    assert all(cost[:5]) and (again == 0) == (scratch == 1 << 20)


def test_a_damaged_chunk_is_a_clear_error(tmp_path: Path) -> None:
    (extent,) = _chunks(tmp_path / "a", _arrays(1))
    data = bytearray((tmp_path / "a").read_bytes())
    data[50] ^= 255
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(SnapshotCorruptError, match="unpack"):
        load(TensorRef("w", (1000,), "float32", (extent,)))
    (tmp_path / "a").write_bytes(data[:-10])
    with pytest.raises(SnapshotTruncatedError):
        load(TensorRef("w", (1000,), "float32", (extent,)))


def test_buffers_of_another_convention_are_scaled(tmp_path: Path) -> None:
    values = torch.arange(6.0)
    path = tmp_path / "a"
    path.write_bytes(values.numpy().tobytes())
    extents = (Extent(str(path), 0, 24),)
    assert torch.equal(load(TensorRef("v", (6,), "float32", extents, scale=-10.0)), values * -10)
    with FilePool() as pool:
        space = Workspace(pool, torch.device("cpu"))
        got = torch.empty(6, dtype=torch.float64)
        space.load(TensorRef("w", (6,), "float32", extents, scale=-10.0), Block(0, 6, ()), got)
        assert torch.equal(got, values.double() * -10)
