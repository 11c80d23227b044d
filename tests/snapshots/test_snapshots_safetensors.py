"""safetensors files, tensor by tensor against the safetensors library as oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from snapshots_helpers import same, small_net

from smdlens.errors import (
    SnapshotCorruptError,
    SnapshotError,
    SnapshotTruncatedError,
    SnapshotUnsafeError,
    SnapshotUnsupportedError,
)
from smdlens.snapshots import open_snapshot
from smdlens.snapshots.readers import read_checkpoint

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
    torch.float8_e5m2, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
    torch.uint16, torch.uint32, torch.uint64, torch.complex64,
]  # fmt: skip


def test_every_dtype_as_the_library_reads_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = {
        f"{dtype}.{shape}": (torch.randn(shape) * 3).abs().to(dtype)
        for dtype in DTYPES
        for shape in ((3, 4), (), (0, 2), (5,))
    }
    path = tmp_path / "a.safetensors"
    save_file(tensors, path)
    raw = read_checkpoint(path)
    assert raw.format == "safetensors" and not raw.ordered
    ours = raw.root[""]
    oracle = load_file(path)
    assert set(ours) == set(oracle)
    for name, value in oracle.items():
        assert same(ours[name], value), name


def test_metadata_carry_the_step(tmp_path: Path) -> None:
    path = tmp_path / "final.safetensors"
    save_file(small_net().state_dict(), path, metadata={"step": "1200", "format": "pt"})
    snapshot = open_snapshot(path)
    assert (snapshot.step, snapshot.step_source) == (1200, "key '__metadata__.step'")
    assert snapshot.scalars == {"__metadata__": {"step": "1200", "format": "pt"}}
    named = tmp_path / "model-step200.safetensors"
    save_file(small_net().state_dict(), named)
    assert open_snapshot(named).step == 200


def _file(header: Any, data: bytes = b"\0" * 8, *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def _tensor(**changes: Any) -> dict[str, Any]:
    return {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}


TWO = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (_file(_tensor(data_offsets=[0, 12], shape=[3])), SnapshotTruncatedError),
        (_file(_tensor(), b"\0" * 9), SnapshotCorruptError),
        (_file(_tensor(shape=[3])), SnapshotCorruptError),
        (_file(_tensor(shape=[-2])), SnapshotCorruptError),
        (_file(_tensor(shape=[2.0])), SnapshotCorruptError),
        (_file(_tensor(shape=[True, 2])), SnapshotCorruptError),
        (_file(_tensor(shape=[1 << 62, 1 << 62])), SnapshotCorruptError),
        (_file(_tensor(shape="2")), SnapshotCorruptError),
        (_file(_tensor(data_offsets=[8, 0])), SnapshotCorruptError),
        (_file(_tensor(data_offsets=[-8, 0])), SnapshotCorruptError),
        (_file(_tensor(data_offsets=[0])), SnapshotCorruptError),
        (_file(_tensor(dtype="F4")), SnapshotUnsupportedError),
        (_file(_tensor(dtype=["F32"])), SnapshotUnsupportedError),
        (_file({"w": [1]}), SnapshotCorruptError),
        (_file([1, 2]), SnapshotError),
        (_file(b'{"w":1,"w":2}'), SnapshotCorruptError),
        (_file({"__metadata__": {"a": 1}}, b""), SnapshotCorruptError),
        (_file({**TWO, "b": TWO["a"]}), SnapshotCorruptError),
        (
            _file({**TWO, "b": {"dtype": "F32", "shape": [1], "data_offsets": [8, 12]}}, b"0" * 12),
            SnapshotCorruptError,
        ),
        (_file(b"{" + b" " * 50, length=1 << 39), SnapshotUnsafeError),
        (_file(b"{" + b" " * 50, length=90_000_000), SnapshotTruncatedError),
    ],
)
def test_headers_that_contradict_themselves(
    tmp_path: Path, content: bytes, error: type[SnapshotError]
) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(error) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
