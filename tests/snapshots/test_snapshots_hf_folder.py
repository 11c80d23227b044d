"""Checkpoint folders with fixed names: Trainer, accelerate, shards with an index."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from snapshots_helpers import same, small_net, train

from smdlens.errors import SnapshotCorruptError, SnapshotMissingError, SnapshotUnsafeError
from smdlens.snapshots import open_series, open_snapshot


def _trainer_folder(run: Path, steps: int, *, finished: bool = True) -> torch.nn.Module:
    folder = run / f"checkpoint-{steps}"
    folder.mkdir(parents=True)
    net = small_net()
    adam = torch.optim.AdamW(net.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.LinearLR(adam)
    train(net, adam, steps)
    save_file(net.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    torch.save(adam.state_dict(), folder / "optimizer.pt")
    torch.save(scheduler.state_dict(), folder / "scheduler.pt")
    torch.save(argparse.Namespace(learning_rate=1e-3), folder / "training_args.bin")
    torch.save({"cpu": torch.get_rng_state()}, folder / "rng_state.pth")
    (folder / "config.json").write_text("{}")
    if finished:
        state = {"global_step": steps, "epoch": 0.5, "log_history": [{"step": 1, "loss": 1.0}]}
        (folder / "trainer_state.json").write_text(json.dumps(state))
    return net


def test_a_trainer_run(tmp_path: Path) -> None:
    nets = {steps: _trainer_folder(tmp_path, steps) for steps in (3, 10)}
    _trainer_folder(tmp_path, 20, finished=False)
    # The run folder holds the final weights too, as Trainer.save_model leaves them.
    save_file(nets[10].state_dict(), tmp_path / "model.safetensors")
    series = open_series(tmp_path)
    assert series.steps == (3, 10)
    assert {s.file: s.reason.value for s in series.skipped} == {
        "checkpoint-20": "unfinished",
        tmp_path.name: "best_or_last_copy",
    }
    last = series.snapshots[1]
    assert last.format == "hf-folder" and last.tree_key == "model" and last.epoch == 0.5
    assert last.step_source == "key 'trainer_state.global_step'"
    assert "checkpoint-10/optimizer.pt" in last.files
    for name, value in nets[10].state_dict().items():
        assert same(last.tensors[name], value)
    assert last.scalars["trainer_state"]["log_history"] == [{"step": 1, "loss": 1.0}]
    assert last.scalars["training_args"] == {"learning_rate": 1e-3}
    assert "last_epoch" in last.scalars["lr_scheduler"]
    assert last.optimizer is not None and last.optimizer.groups[0].values["lr"] < 1e-3


def _sharded(folder: Path, kind: str) -> dict[str, torch.Tensor]:
    folder.mkdir(exist_ok=True)
    state = small_net().state_dict()
    names = sorted(state)
    weight_map = {}
    for number, part in enumerate((names[:7], names[7:]), start=1):
        shard = {n: state[n] for n in part}
        if kind == "safetensors":
            file = f"model-0000{number}-of-00002.safetensors"
            save_file(shard, folder / file)
        else:
            file = f"pytorch_model-0000{number}-of-00002.bin"
            torch.save(shard, folder / file, _use_new_zipfile_serialization=number == 1)
        weight_map |= dict.fromkeys(part, file)
    index = "model.safetensors" if kind == "safetensors" else "pytorch_model.bin"
    (folder / f"{index}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return state


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards(tmp_path: Path, kind: str) -> None:
    state = _sharded(tmp_path / "step7", kind)
    snapshot = open_snapshot(tmp_path / "step7")
    assert snapshot.step == 7 and len(snapshot.files) == 3
    for name, value in state.items():
        assert same(snapshot.tensors[name], value)


def _rewrite(folder: Path, name: str) -> None:
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["0.weight"] = name
    index.write_text(json.dumps(content))


def test_an_index_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    _sharded(folder, "safetensors")
    save_file({"0.weight": torch.ones(2)}, tmp_path / "outside.safetensors")
    (folder / "link.safetensors").symlink_to(tmp_path / "outside.safetensors")
    for name in (
        "../outside.safetensors",
        str(tmp_path / "outside.safetensors"),
        "link.safetensors",
    ):
        _rewrite(folder, name)
        with pytest.raises(SnapshotUnsafeError, match="outside its own folder"):
            open_snapshot(folder)
    _rewrite(folder, "absent.safetensors")
    with pytest.raises(SnapshotMissingError):
        open_snapshot(folder)
    _rewrite(folder, "model-00002-of-00002.safetensors")
    with pytest.raises(SnapshotCorruptError, match="not in the file"):
        open_snapshot(folder)


@pytest.mark.parametrize("text", ["[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}'])
def test_an_index_without_a_map(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(SnapshotCorruptError, match="weight_map"):
        open_snapshot(tmp_path)


def test_accelerate_folders(tmp_path: Path) -> None:
    for steps in (2, 4):
        folder = tmp_path / f"step_{steps}"
        folder.mkdir()
        net = small_net()
        sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        train(net, sgd, steps)
        torch.save(net.state_dict(), folder / "pytorch_model.bin")
        torch.save(sgd.state_dict(), folder / "optimizer.bin")
    series = open_series(tmp_path)
    assert series.steps == (2, 4)
    record = series.snapshots[1].optimizer
    assert record is not None and len(record.slots) == 9 and record.note == "order and shape"


def test_the_whole_state_of_fsdp(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-3"
    folder.mkdir()
    net = small_net()
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    train(net, sgd, 3)
    names = [name for name, _ in net.named_parameters()]
    state = {n: sgd.state[p] for n, p in net.named_parameters()}
    groups = [{**sgd.state_dict()["param_groups"][0], "params": names}]
    torch.save(net.state_dict(), folder / "pytorch_model_fsdp.bin")
    torch.save({"state": state, "param_groups": groups}, folder / "optimizer.bin")
    (folder / "trainer_state.json").write_text('{"global_step": 3}')
    snapshot = open_snapshot(folder)
    assert snapshot.step == 3 and snapshot.optimizer is not None
    for name, parameter in net.named_parameters():
        buffer = sgd.state[parameter]["momentum_buffer"]
        assert same(snapshot.optimizer.slots[name]["momentum"], buffer)
