"""torch's other files: exported programs, whole modules, TorchScript, Megatron-LM's folders."""

from __future__ import annotations

import argparse
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from snapshots_helpers import same, small_net, train
from torch._export.serde.schema import ScalarType

from smdlens.errors import (
    SnapshotCorruptError,
    SnapshotError,
    SnapshotTruncatedError,
    SnapshotUnsupportedError,
)
from smdlens.snapshots import open_series, open_snapshot
from smdlens.snapshots import pt2 as reader
from smdlens.snapshots.readers import read_checkpoint
from smdlens.snapshots.resolve import tensor_ref

# torch's own exporter warns about weights that are stored channels last.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:No complete tensor:UserWarning"
)


class Buffers(torch.nn.Module):
    """A network with a temporary buffer, a shared weight and one stored channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, bias=False).to(memory_format=torch.channels_last)
        self.norm = torch.nn.BatchNorm2d(4)
        self.first = torch.nn.Linear(4, 4)
        self.second = torch.nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.low = torch.nn.Parameter(torch.randn(4).bfloat16())
        self.register_buffer("mask", torch.ones(3), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv(x)).mean((2, 3))
        return self.second(self.first(y)) * self.low.float() + self.mask.sum()


def _export(path: Path) -> torch.nn.Module:
    net = Buffers()
    torch.export.save(torch.export.export(net, (torch.randn(2, 3, 5, 5),)), path)
    return net


def test_weights_of_an_exported_program(tmp_path: Path) -> None:
    path = tmp_path / "step_4.pt2"
    net = _export(path)
    state = torch.export.load(path).state_dict
    snapshot = open_snapshot(path)
    assert snapshot.format == "torch-export" and snapshot.step == 4
    assert set(snapshot.tensors) == set(state) == set(net.state_dict())
    for name, value in state.items():
        assert same(snapshot.tensors[name], value), name
    assert snapshot.tensors["conv.weight"].strides is not None


def test_dtype_numbers_are_those_of_torch() -> None:
    theirs = {s.value: s.name for s in ScalarType}
    ours = {n: d.replace("_", "").upper() for n, d in reader._DTYPES.items()}
    names = {"FLOAT": "FLOAT32", "DOUBLE": "FLOAT64", "HALF": "FLOAT16", "LONG": "INT64",
             "INT": "INT32", "SHORT": "INT16", "CHAR": "INT8", "BYTE": "UINT8",
             "COMPLEXFLOAT": "COMPLEX64", "COMPLEXDOUBLE": "COMPLEX128"}  # fmt: skip
    for number, dtype in ours.items():
        assert names.get(theirs[number], theirs[number]) == dtype


def _repack(source: Path, target: Path, change: Any) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            if info.filename.endswith("model_weights_config.json"):
                content = json.loads(data)
                change(content["config"])
                data = json.dumps(content).encode()
            new.writestr(info.filename, data)


def test_claims_of_the_table_are_checked(tmp_path: Path) -> None:
    _export(tmp_path / "good.pt2")
    path = tmp_path / "bad.pt2"

    def meta(table: Any) -> Any:
        return table["first.bias"]["tensor_meta"]

    cases: list[Any] = [
        lambda t: meta(t).update(sizes=[{"as_int": 1 << 40}]),
        lambda t: meta(t).update(sizes=[{"as_int": -1}]),
        lambda t: meta(t).update(sizes=[{"as_expr": "s0"}]),
        lambda t: meta(t).update(strides=[{"as_int": 5}]),
        lambda t: meta(t).update(strides=[]),
        lambda t: meta(t).update(storage_offset={"as_int": 1}),
        lambda t: meta(t).update(dtype=9),
        lambda t: meta(t).update(dtype=8),
        lambda t: t["first.bias"].update(path_name="../../constants/x"),
        lambda t: t.update({"first.bias": 3}),
    ]
    for change in cases:
        _repack(tmp_path / "good.pt2", path, change)
        with pytest.raises(SnapshotError) as caught:
            open_snapshot(path)
        assert isinstance(caught.value, (SnapshotCorruptError, SnapshotUnsupportedError))
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("new", [True, False])
def test_whole_modules(tmp_path: Path, new: bool) -> None:
    net = Buffers()
    path = tmp_path / "model.pt"
    torch.save(net, path, _use_new_zipfile_serialization=new)
    snapshot = open_snapshot(path)
    assert set(snapshot.tensors) == set(net.state_dict()), "without the temporary buffer"
    for name, value in net.state_dict().items():
        assert same(snapshot.tensors[name], value), name


def test_torchscript(tmp_path: Path) -> None:
    net = small_net()
    torch.jit.trace(net.eval(), torch.randn(2, 3, 6, 6)).save(str(tmp_path / "traced.pt"))
    torch.jit.script(net).save(str(tmp_path / "scripted.pt"))
    for name in ("traced.pt", "scripted.pt"):
        snapshot = open_snapshot(tmp_path / name)
        for key, value in net.state_dict().items():
            assert same(snapshot.tensors[key], value), (name, key)


def _megatron(folder: Path, steps: int, *, nested: bool = True) -> torch.nn.Module:
    net = small_net()
    adam = torch.optim.AdamW(net.parameters(), lr=1e-3)
    train(net, adam, steps)
    state = net.state_dict()
    first = {n: t for n, t in state.items() if n.startswith("0")}
    others = {n: t for n, t in state.items() if n not in first}
    model = {"language_model": {"embedding": first, "encoder": others}} if nested else state
    content = {
        "args": argparse.Namespace(lr=1e-3, weight_decay=0.01),
        "checkpoint_version": 3.0,
        "iteration": steps,
        "model": model,
        "optimizer": {"optimizer": adam.state_dict()},
        "opt_param_scheduler": {"num_steps": steps * 8},
    }
    rank = folder / f"iter_{steps:07d}" / "mp_rank_00"
    rank.mkdir(parents=True)
    torch.save(content, rank / "model_optim_rng.pt")
    return net


def test_megatron(tmp_path: Path) -> None:
    for steps in (2, 10):
        net = _megatron(tmp_path, steps)
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("10")
    series = open_series(tmp_path)
    assert series.steps == (2, 10) and not series.skipped
    last = series.snapshots[1]
    assert last.format == "megatron" and last.step_source == "key 'iteration'"
    state = net.state_dict()
    for name, value in state.items():
        kind = "embedding" if name.startswith("0") else "encoder"
        assert same(last.tensors[f"language_model.{kind}.{name}"], value)
    assert last.optimizer is not None and len(last.optimizer.slots) == 9
    assert last.scalars["args"] == {"lr": 1e-3, "weight_decay": 0.01}


def test_megatron_slices_of_unknown_names_are_refused(tmp_path: Path) -> None:
    _megatron(tmp_path, 3, nested=False)
    folder = tmp_path / "iter_0000003"
    assert "3.weight" in open_snapshot(folder).tensors
    (folder / "mp_rank_01").mkdir()
    with pytest.raises(SnapshotTruncatedError, match="the file of a rank is missing"):
        read_checkpoint(folder)
    shutil.copy(folder / "mp_rank_00" / "model_optim_rng.pt", folder / "mp_rank_01")
    with pytest.raises(SnapshotUnsupportedError, match=r"how .* is cut is not known"):
        read_checkpoint(folder)


def test_a_pickled_weight_in_an_exported_program(tmp_path: Path) -> None:
    _export(tmp_path / "good.pt2")
    torch.save(torch.arange(4.0), tmp_path / "w.pt")
    inner = (tmp_path / "w.pt").read_bytes()
    path = tmp_path / "pickled.pt2"
    with zipfile.ZipFile(tmp_path / "good.pt2") as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            if info.filename.endswith("model_weights_config.json"):
                content = json.loads(data)
                entry = content["config"]["first.bias"]
                entry["use_pickle"] = True
                replaced, data = entry["path_name"], json.dumps(content).encode()
            new.writestr(info.filename, data)
            prefix = info.filename.partition("/")[0]
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "final.pt2", "w") as new:
        for info in old.infolist():
            same_one = info.filename == f"{prefix}/data/weights/{replaced}"
            new.writestr(info.filename, inner if same_one else old.read(info))
    raw = read_checkpoint(tmp_path / "final.pt2")
    assert same(tensor_ref("", raw.root[""]["first.bias"]), torch.arange(4.0))
