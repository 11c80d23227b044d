"""DeepSpeed's pipelines and experts, built from the documented layout: one stage and two."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from deepspeed_files import save_partitioned
from snapshots_helpers import read_tensor, same, small_net, train

from smdlens.errors import SnapshotCorruptError, SnapshotTruncatedError, SnapshotUnsupportedError
from smdlens.motion.tensors import load
from smdlens.snapshots import open_series, open_snapshot

Sgd = torch.optim.SGD


def _net(steps: int = 2) -> tuple[torch.nn.Sequential, Sgd]:
    net = small_net()
    sgd = Sgd(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    train(net, sgd, steps)
    return net, sgd


def _layers(folder: Path, net: torch.nn.Sequential, dtype: torch.dtype) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, layer in enumerate(net):
        state = {
            n: t.to(dtype) if t.is_floating_point() else t for n, t in layer.state_dict().items()
        }
        torch.save(state, folder / f"layer_{number:02d}-model_states.pt")


def _stages(net: torch.nn.Sequential, count: int) -> list[list[str]]:
    names = [name for name, _ in net.named_parameters()]
    return [names] if count == 1 else [names[:3], names[3:]]


def _plain(folder: Path, net: torch.nn.Sequential, sgd: Sgd, stages: int, step: int = 2) -> None:
    _layers(folder, net, torch.float32)
    named = dict(net.named_parameters())
    for stage, names in enumerate(_stages(net, stages)):
        flat = [n for n in names if named[n].dim() == 1]
        order = [n for n in names if n not in flat] + flat
        groups = []
        for members, decay in (([n for n in names if n not in flat], 1e-3), (flat, 0.0)):
            numbers = [order.index(n) for n in members]
            groups.append({"lr": 0.1, "weight_decay": decay, "params": numbers})
        slots = {order.index(n): sgd.state[named[n]] for n in names}
        content = {
            "module": None,
            "optimizer": {"state": slots, "param_groups": groups},
            "global_steps": step,
        }
        torch.save(content, folder / f"mp_rank_{stage:02d}_model_states.pt")


@pytest.mark.parametrize("stages", [1, 2])
def test_a_pipeline_without_zero(tmp_path: Path, stages: int) -> None:
    for step in (2, 4):
        net, sgd = _net(step)
        _plain(tmp_path / f"global_step{step}", net, sgd, stages, step)
    series = open_series(tmp_path)
    assert series.steps == (2, 4)
    last = series.snapshots[-1]
    for name, value in net.state_dict().items():
        assert same(last.tensors[name], value), name
    assert last.optimizer is not None
    for name, parameter in net.named_parameters():
        momentum = load(last.optimizer.slots[name]["momentum"])
        assert torch.equal(momentum, sgd.state[parameter]["momentum_buffer"]), name
    decays = {g.values["weight_decay"]: set(g.names or ()) for g in last.optimizer.groups}
    vectors = {n for n, p in net.named_parameters() if p.dim() == 1}
    assert decays[0.0] == vectors and len(decays[1e-3]) == len(list(net.parameters())) - len(
        vectors
    )


@pytest.mark.parametrize(("stages", "ranks"), [(1, 2), (2, 1), (2, 2)])
def test_a_pipeline_with_zero_1(tmp_path: Path, stages: int, ranks: int) -> None:
    net, sgd = _net()
    folder = tmp_path / "global_step2"
    _layers(folder, net, torch.bfloat16)
    for stage, names in enumerate(_stages(net, stages)):
        part = tmp_path / f"stage{stage}"
        save_partitioned(part, net, sgd, [names], 2, ranks, settings=[{"lr": 0.1}])
        for file in part.iterdir():
            target = folder / file.name.replace("mp_rank_00", f"mp_rank_{stage:02d}")
            if "model_states" in file.name:
                content: dict[str, Any] = torch.load(file, weights_only=False)
                torch.save({**content, "module": None}, target)
            else:
                shutil.copy(file, target)
        shutil.rmtree(part)
    snapshot = open_snapshot(folder)
    assert snapshot.optimizer is not None
    for name, parameter in net.named_parameters():
        assert torch.equal(read_tensor(snapshot.tensors[name]), parameter.detach()), name
        momentum = load(snapshot.optimizer.slots[name]["momentum"])
        assert torch.equal(momentum, sgd.state[parameter]["momentum_buffer"])
    assert snapshot.tensors["1.running_mean"].dtype == "bfloat16"
    if stages == 2:
        for file in folder.glob("*mp_rank_00*"):
            file.unlink()
        with pytest.raises(SnapshotTruncatedError, match="expected stage 0"):
            open_snapshot(folder)


def test_layers_in_slices_are_refused(tmp_path: Path) -> None:
    net, sgd = _net()
    folder = tmp_path / "global_step2"
    _plain(folder, net, sgd, 2)
    shutil.copy(folder / "layer_00-model_states.pt", folder / "layer_00-model_00-model_states.pt")
    with pytest.raises(SnapshotCorruptError, match="two files of layer 0"):
        open_snapshot(folder)
    (folder / "layer_00-model_00-model_states.pt").rename(
        folder / "layer_00-model_01-model_states.pt"
    )
    with pytest.raises(SnapshotUnsupportedError, match="tensor-parallel slices"):
        open_snapshot(folder)


def test_experts(tmp_path: Path) -> None:
    folder = tmp_path / "global_step2"
    folder.mkdir()
    torch.manual_seed(0)
    dense = {"gate.weight": torch.randn(2, 4), "norm.weight": torch.randn(4)}
    prefix = "moe.deepspeed_moe.experts.deepspeed_experts"
    experts = {f"{prefix}.{e}.weight": torch.randn(4, 4) + e for e in (0, 1)}
    for number, (name, value) in enumerate(experts.items()):
        torch.save({name: value}, folder / f"layer_0_expert_{number}_mp_rank_00_model_states.pt")
    content = {"module": dense, "optimizer": None, "global_steps": 2}
    torch.save(content, folder / "mp_rank_00_model_states.pt")
    whole = [*dense.values(), *experts.values()]
    optimizer = {
        "state": {i: {"momentum_buffer": t * 2} for i, t in enumerate(whole)},
        "param_groups": [
            {"lr": 0.1, "params": [0, 1]},
            {"lr": 0.1, "moe": True, "params": [2, 3]},
        ],
    }
    torch.save({"optimizer": optimizer}, folder / "expp_rank_0_mp_rank_00_optim_states.pt")
    snapshot = open_snapshot(folder)
    for name, value in (dense | experts).items():
        assert same(snapshot.tensors[name], value), name
        assert snapshot.optimizer is not None
        assert torch.equal(load(snapshot.optimizer.slots[name]["momentum"]), value * 2), name
    (folder / "layer_0_expert_1_mp_rank_00_model_states.pt").write_bytes(
        (folder / "layer_0_expert_0_mp_rank_00_model_states.pt").read_bytes()
    )
    with pytest.raises(SnapshotCorruptError, match="two experts"):
        open_snapshot(folder)
