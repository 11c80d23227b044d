"""torch's first format, written by hand and read by torch.load as oracle."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from snapshots_helpers import same, save_run

from smdlens.errors import SnapshotCorruptError, SnapshotError, SnapshotUnsupportedError
from smdlens.snapshots import open_series, open_snapshot
from smdlens.snapshots.readers import read_checkpoint
from smdlens.snapshots.resolve import tensor_ref


class _Reference:
    def __init__(self, key: int) -> None:
        self.key = key


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.key if isinstance(obj, _Reference) else None


def _write(path: Path, content: dict[str, Any], tensors: dict[int, torch.Tensor]) -> None:
    """Two storages (float and double), tensors as views of them."""
    storages = io.BytesIO()
    pickle.dump(2, storages, protocol=2)
    kinds: dict[int, Any] = {7: torch.FloatStorage, 8: torch.DoubleStorage}
    for key, base in ((7, torch.arange(24.0)), (8, torch.arange(6.0, dtype=torch.float64))):
        # The storage classes pickle by name, as the first torch wrote them.
        pickle.dump((key, "cpu", kinds[key]), storages, protocol=2)
        storages.write(struct.pack("<q", base.numel()) + base.numpy().tobytes())
    pickle.dump([(9, 7, 4, 8)], storages, protocol=2)
    parts = io.BytesIO()
    pickle.dump(len(tensors), parts, protocol=2)
    for key, tensor in tensors.items():
        storage = {torch.float64: 8}.get(tensor.dtype, 9 if key == 3 else 7)
        pickle.dump((key, storage, torch.FloatTensor), parts, protocol=2)
        n = tensor.dim()
        offset = tensor.storage_offset() - (4 if storage == 9 else 0)
        parts.write(struct.pack("<ii", n, 0))
        parts.write(struct.pack(f"<{2 * n + 1}q", *tensor.shape, *tensor.stride(), offset))
    body = io.BytesIO()
    _Pickler(body, protocol=2).dump(content)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in (("storages", storages), ("tensors", parts), ("pickle", body)):
            info = tarfile.TarInfo(name)
            info.size = len(data.getvalue())
            archive.addfile(info, io.BytesIO(data.getvalue()))


def _example(path: Path) -> None:
    base, double = torch.arange(24.0), torch.arange(6.0, dtype=torch.float64)
    tensors = {1: base.view(4, 6), 2: base.view(4, 6).t(), 3: base[6:10], 4: double}
    state = {f"t{key}": _Reference(key) for key in tensors}
    _write(path, {"state_dict": state, "epoch": 3}, tensors)


def test_views_as_torch_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    _example(path)
    oracle = torch.load(path, weights_only=False)
    raw = read_checkpoint(path)
    assert raw.format == "torch-tar" and raw.root["epoch"] == 3
    for name, value in oracle["state_dict"].items():
        assert same(tensor_ref(name, raw.root["state_dict"][name]), value), name
    assert open_snapshot(path).epoch == 3


def test_a_suffix_tar_says_nothing(tmp_path: Path) -> None:
    save_run(tmp_path, (1, 2), "checkpoint-{step}.pth.tar")
    assert [s.format for s in open_series(tmp_path).snapshots] == ["torch-zip"] * 2


def test_other_archives_and_cuts(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "test.py")
    with pytest.raises(SnapshotUnsupportedError, match="not written by torch"):
        read_checkpoint(path)
    _example(path)
    data = path.read_bytes()
    end = data.index(b"\0" * 1024, len(data) // 4)
    for cut in range(0, end, 7):
        path.write_bytes(data[:cut])
        with pytest.raises(SnapshotError):
            read_checkpoint(path)
    broken = bytearray(data)
    broken[3] ^= 1
    path.write_bytes(broken)
    with pytest.raises(SnapshotCorruptError, match="checksum"):
        read_checkpoint(path)
