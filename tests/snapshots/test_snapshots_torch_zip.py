"""torch.save's files, tensor by tensor against torch.load as oracle."""

from __future__ import annotations

import argparse
import collections
import io
import pathlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from snapshots_helpers import read_tensor, same, save_run, small_net, train

from smdlens.errors import SnapshotUnsupportedError
from smdlens.snapshots import open_snapshot
from smdlens.snapshots.readers import read_checkpoint
from smdlens.snapshots.resolve import is_tensor, tensor_ref

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
    torch.float8_e5m2, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
    torch.uint16, torch.uint32, torch.complex64, torch.complex128,
]  # fmt: skip


def _values(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    base = torch.randn(*shape) * 3
    return base.to(dtype) if dtype != torch.bool else base > 0


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_and_view_reads_as_torch_reads_it(
    tmp_path: Path, dtype: torch.dtype, legacy: bool
) -> None:
    torch.manual_seed(3)
    big = _values(dtype, 8, 6, 5, 4)
    tensors = {
        "whole": big,
        "row": big[2],
        "tail": big[3:],
        "stepped": big[::2, :, 1:3],
        "transposed": big.permute(3, 1, 2, 0),
        "channels_last": big.clone().to(memory_format=torch.channels_last),
        "scalar": big[0, 0, 0, 0],
        "empty": big[:0],
        "vector": big[0, 0, 0],
        "tied": big,
    }
    path = tmp_path / "a.pt"
    torch.save(tensors, path, _use_new_zipfile_serialization=not legacy)
    # torch cannot load its own legacy files of fp8 or uint16 tensors: there, what was saved.
    oracle = tensors if legacy else torch.load(path, weights_only=True)
    raw = read_checkpoint(path)
    assert raw.format == ("torch-legacy" if legacy else "torch-zip")
    for name, value in oracle.items():
        assert same(tensor_ref(name, raw.root[name]), value), name
    refs = {name: tensor_ref(name, raw.root[name]) for name in tensors}
    assert refs["whole"].extents == refs["tied"].extents
    assert refs["whole"].strides is None and refs["tail"].strides is None
    assert refs["channels_last"].strides == oracle["channels_last"].stride()
    row = refs["row"].extents[0]
    assert row.nbytes == refs["row"].nbytes, "a view reads its own span, not its storage"


def _kinds(net: torch.nn.Module) -> dict[str, torch.optim.Optimizer]:
    p = list(net.parameters())
    return {
        "sgd": torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4),
        "adamw": torch.optim.AdamW(p, lr=torch.tensor(1e-3), weight_decay=0.1),
        "adam": torch.optim.Adam(p, lr=1e-3, amsgrad=True, betas=(0.8, 0.99)),
    }


@pytest.mark.parametrize("kind", ["sgd", "adamw", "adam"])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_whole_optimizer_states(tmp_path: Path, kind: str, legacy: bool) -> None:
    net = small_net().to(memory_format=torch.channels_last)
    optimizer = _kinds(net)[kind]
    train(net, optimizer, 7)
    path = tmp_path / "a.pt"
    content = {"net": net.state_dict(), "opt": optimizer.state_dict(), "epoch": 2}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    snapshot = open_snapshot(path)
    assert snapshot.tree_key == "net" and snapshot.optimizer is not None
    for name, value in net.state_dict().items():
        assert same(snapshot.tensors[name], value)
    slot_names = {
        "momentum": "momentum_buffer",
        "first_moment": "exp_avg",
        "second_moment": "exp_avg_sq",
        "max_second_moment": "max_exp_avg_sq",
    }
    assert list(snapshot.optimizer.slots) == [n for n, _ in net.named_parameters()]
    for name, parameter in net.named_parameters():
        state = optimizer.state[parameter]
        slots = snapshot.optimizer.slots[name]
        assert {slot_names[s] for s in slots} == set(state) - {"step"}
        for slot, ref in slots.items():
            assert same(ref, state[slot_names[slot]])
    group = snapshot.optimizer.groups[0]
    ours = optimizer.state_dict()["param_groups"][0]
    for key, value in ours.items():
        if key != "params":
            assert group.values[key] == pytest.approx(value), key
    assert isinstance(group.values["lr"], float)
    if kind == "sgd":
        assert snapshot.step is None and snapshot.optimizer.updates == {}
    else:
        assert set(snapshot.optimizer.updates.values()) == {7}
        assert (snapshot.step, snapshot.step_source) == (7, "optimizer state 'step'")
    assert snapshot.epoch == 2


def test_wrapper_prefixes_are_stripped(tmp_path: Path) -> None:
    net = small_net()
    for number, wrapped in enumerate(
        [
            torch.nn.DataParallel(net),
            torch.compile(net),
            torch.nn.DataParallel(torch.compile(net)),
        ]
    ):
        path = tmp_path / f"{number}.pt"
        torch.save({"model": wrapped.state_dict()}, path)
        snapshot = open_snapshot(path)
        assert list(snapshot.tensors) == list(net.state_dict())
        assert snapshot.tensors["0.weight"].name in wrapped.state_dict()
        for name, value in net.state_dict().items():
            assert same(snapshot.tensors[name], value)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_pickled_module_is_read_without_its_class(tmp_path: Path, legacy: bool) -> None:
    net = small_net()
    path = tmp_path / "whole.pt"
    torch.save(net, path, _use_new_zipfile_serialization=not legacy)
    snapshot = open_snapshot(path)
    for name, value in net.state_dict().items():
        assert same(snapshot.tensors[name], value)


def test_torchscript_weights(tmp_path: Path) -> None:
    net = small_net().eval()
    path = tmp_path / "script.pt"
    with pytest.warns(DeprecationWarning):
        torch.jit.save(torch.jit.script(net), str(path))
    snapshot = open_snapshot(path)
    for name, value in net.state_dict().items():
        assert same(snapshot.tensors[name], value)


def test_what_weights_only_loading_refuses_is_still_read(tmp_path: Path) -> None:
    net = small_net()
    content = {
        "model": net.state_dict(),
        "args": argparse.Namespace(lr=0.1, out=pathlib.PosixPath("/a/b"), names=["x"]),
        "acc": np.float32(0.5),
        "best": np.int64(3),
        "curve": np.arange(4, dtype=np.float64),
        "history": collections.defaultdict(list, a=[1, 2]),
        "count": collections.Counter("aab"),
        "device": torch.device("cuda", 1),
        "dtype": torch.float16,
        "big": torch.randn(100),
        "zero_d": torch.tensor(2.5),
        "step": torch.tensor(12),
        "tags": {"a"},
    }
    path = tmp_path / "a.pt"
    torch.save(content, path)
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(path, weights_only=True)
    snapshot = open_snapshot(path)
    assert snapshot.step == 12
    scalars = snapshot.scalars
    assert scalars["args"] == {"lr": 0.1, "out": "/a/b", "names": ["x"]}
    assert (scalars["acc"], scalars["best"], scalars["zero_d"]) == (0.5, 3, 2.5)
    assert scalars["curve"] == [0.0, 1.0, 2.0, 3.0]
    assert scalars["history"] == {"a": [1, 2]} and scalars["count"] == {"a": 2, "b": 1}
    assert scalars["device"] == "cuda:1" and scalars["dtype"] == "torch.float16"
    assert scalars["tags"] == ["a"] and "big" not in scalars


def test_pickle_protocols_of_torch_save(tmp_path: Path) -> None:
    net = small_net()
    for protocol in (2, 3, 4, 5):
        path = tmp_path / f"{protocol}.pt"
        torch.save({"model": net.state_dict(), "step": 3}, path, pickle_protocol=protocol)
        snapshot = open_snapshot(path)
        assert all(same(snapshot.tensors[n], v) for n, v in net.state_dict().items())
        assert snapshot.step == 3


def test_only_headers_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    path = tmp_path / "large.pt"
    torch.save({f"w{i}": torch.zeros(1 << 20) for i in range(10)}, path)
    read = 0
    pread = os.pread

    def counting(fd: int, n: int, offset: int) -> bytes:
        nonlocal read
        data = pread(fd, n, offset)
        read += len(data)
        return data

    monkeypatch.setattr(os, "pread", counting)
    open_snapshot(path)
    assert 0 < read < 0.001 * path.stat().st_size


def test_a_sparse_file_larger_than_memory_opens(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    numel = 5 * (1 << 30)
    header = f'{{"w":{{"dtype":"F32","shape":[{numel}],"data_offsets":[0,{4 * numel}]}}}}'.encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 4 * numel)
    snapshot = open_snapshot(path)
    assert snapshot.tensors["w"].nbytes == 4 * numel


def test_big_endian_archives_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(3)}, buffer)
    path = tmp_path / "big.pt"
    with (
        zipfile.ZipFile(io.BytesIO(buffer.getvalue())) as old,
        zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, b"big" if name.endswith("/byteorder") else old.read(name))
    with pytest.raises(SnapshotUnsupportedError, match="big-endian"):
        open_snapshot(path)


def test_random_states_and_other_tensors_are_not_weights(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    net = save_run(tmp_path, (2,), "a.pt", rng_state=torch.get_rng_state(), loss=0.25)
    snapshot = open_snapshot(path)
    assert snapshot.tree_key == "model" and snapshot.trees == (("model", 15, False),)
    assert set(snapshot.tensors) == set(net.state_dict())
    assert snapshot.scalars == {"loss": 0.25, "step": 2}


def test_tensor_views_are_really_views(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    base = torch.arange(24.0)
    torch.save({"w": base[4:16].view(3, 4).t(), "v": base[20:]}, path)
    raw = read_checkpoint(path).root
    assert all(is_tensor(v) for v in raw.values())
    ref = tensor_ref("w", raw["w"])
    assert ref.strides == (1, 4) and ref.extents[0].nbytes == 48
    assert torch.equal(read_tensor(ref), base[4:16].view(3, 4).t())


def test_stamps_name_the_files_that_hold_bytes(tmp_path: Path) -> None:
    path = tmp_path / "ckpt_1.pt"
    save_run(tmp_path, (1,))
    snapshot = open_snapshot(path)
    (stamp,) = snapshot.stamps.values()
    status = path.stat()
    assert set(snapshot.stamps) == {str(path)}
    assert (stamp.size, stamp.mtime_ns) == (status.st_size, status.st_mtime_ns)
