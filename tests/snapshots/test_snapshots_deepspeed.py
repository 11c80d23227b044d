"""DeepSpeed folders in the documented layout: every weight and slot is the trained one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from deepspeed_files import Groups, save_partitioned, save_spread
from snapshots_helpers import same, small_net, train

from smdlens.errors import (
    SnapshotCorruptError,
    SnapshotError,
    SnapshotTruncatedError,
    SnapshotUnsupportedError,
)
from smdlens.motion.tensors import load
from smdlens.snapshots import open_series, open_snapshot
from smdlens.snapshots.records import Snapshot


def _trained(kind: str, steps: int = 3) -> tuple[torch.nn.Module, torch.optim.Optimizer, Groups]:
    net = small_net()
    decay = [n for n, p in net.named_parameters() if p.dim() > 1]
    groups = [decay, [n for n, p in net.named_parameters() if p.dim() == 1]]
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    if kind == "sgd":
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    train(net, optimizer, steps)
    return net, optimizer, groups


def _check(
    snapshot: Snapshot, net: torch.nn.Module, optimizer: torch.optim.Optimizer, groups: Groups
) -> None:
    assert snapshot.format == "deepspeed" and snapshot.tree_key == "module"
    assert list(snapshot.tensors) == list(net.state_dict())
    for name, value in net.state_dict().items():
        assert same(snapshot.tensors[name], value), name
        assert torch.equal(load(snapshot.tensors[name]), value)
    record = snapshot.optimizer
    assert record is not None and record.note == "param_names"
    assert [list(g.names or ()) for g in record.groups] == groups
    adam = isinstance(optimizer, torch.optim.AdamW)
    theirs = {"first_moment": "exp_avg", "second_moment": "exp_avg_sq"}
    theirs = theirs if adam else {"momentum": "momentum_buffer"}
    for name, parameter in net.named_parameters():
        assert set(record.slots[name]) == set(theirs)
        for slot, key in theirs.items():
            assert same(record.slots[name][slot], optimizer.state[parameter][key]), (name, slot)
    assert set(record.updates.values()) == ({3} if adam else set())


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("stage", ["partitioned", "old", "spread"])
def test_zero(tmp_path: Path, kind: str, ranks: int, stage: str) -> None:
    net, optimizer, groups = _trained(kind)
    folder = tmp_path / "global_step3"
    if stage == "spread":
        save_spread(folder, net, optimizer, groups, 3, ranks)
    else:
        save_partitioned(folder, net, optimizer, groups, 3, ranks, old=stage == "old")
    snapshot = open_snapshot(folder)
    assert snapshot.step == 3 and snapshot.step_source == "key 'global_steps'"
    _check(snapshot, net, optimizer, groups)
    assert snapshot.optimizer is not None
    if stage != "old":
        assert [g.values["weight_decay"] for g in snapshot.optimizer.groups] == [0.05, 0.0]
    assert "float32" in snapshot.scalars["weights_source"]
    assert snapshot.scalars["args_of_the_caller"] == {"seed": 1}
    assert len(snapshot.files) == (2 * ranks if stage == "spread" else ranks + 1)


def test_frozen_parameters_of_stage_3(tmp_path: Path) -> None:
    net, optimizer, groups = _trained("sgd")
    frozen = {"embedding.weight": torch.randn(5, 3)}
    save_spread(tmp_path / "global_step3", net, optimizer, groups, 3, 2, frozen)
    ref = open_snapshot(tmp_path / "global_step3").tensors["embedding.weight"]
    assert same(ref, frozen["embedding.weight"])


def test_without_zero_the_model_file_holds_all(tmp_path: Path) -> None:
    net, optimizer, _ = _trained("sgd")
    folder = tmp_path / "global_step3"
    folder.mkdir()
    content = {"module": net.state_dict(), "optimizer": optimizer.state_dict(), "global_steps": 3}
    torch.save(content, folder / "mp_rank_00_model_states.pt")
    snapshot = open_snapshot(folder)
    assert snapshot.step == 3 and snapshot.optimizer is not None
    assert len(snapshot.optimizer.slots) == 9


def test_a_run_and_its_unfinished_folders(tmp_path: Path) -> None:
    for step in (2, 10, 20, 30):
        net, optimizer, groups = _trained("adamw", step)
        save_partitioned(tmp_path / f"global_step{step}", net, optimizer, groups, step, 2)
    (tmp_path / "latest").write_text("global_step10")
    (tmp_path / "global_step20" / "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()
    (tmp_path / "global_step30" / "mp_rank_00_model_states.pt").unlink()
    series = open_series(tmp_path)
    assert series.steps == (2, 10)
    reasons = {s.file: s for s in series.skipped}
    assert "2 ranks, found 1 ranks" in reasons["global_step20"].detail
    assert {s.reason.value for s in series.skipped} == {"unfinished"}


def test_inside_a_folder_of_the_trainer(tmp_path: Path) -> None:
    for step in (2, 3):
        net, optimizer, groups = _trained("adamw", step)
        folder = tmp_path / f"checkpoint-{step}"
        save_spread(folder / f"global_step{step}", net, optimizer, groups, step, 2)
        (folder / "latest").write_text(f"global_step{step}\n")
        torch.save(dict(net.state_dict()), folder / "pytorch_model.bin")
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    series = open_series(tmp_path)
    assert series.steps == (2, 3)
    _check(series.snapshots[1], net, optimizer, groups)
    # A name in `latest` that leads elsewhere is not followed.
    (tmp_path / "checkpoint-3" / "latest").write_text("../checkpoint-2/global_step2")
    assert open_snapshot(tmp_path / "checkpoint-3").format == "hf-folder"


def _resave(path: Path, change: Any) -> None:
    content = torch.load(path, weights_only=False)
    change(content["optimizer_state_dict"])
    torch.save(content, path)


def test_contradictions_are_named(tmp_path: Path) -> None:
    net, optimizer, groups = _trained("adamw")
    save_partitioned(tmp_path / "two", net, optimizer, groups, 3, 2)
    save_spread(tmp_path / "three", net, optimizer, groups, 3, 2)
    weights, rank1 = "single_partition_of_fp32_groups", "bf16_zero_pp_rank_1_mp_rank_00"

    def wider(state: Any) -> None:
        state[weights][0] = state[weights][0].double()

    def no_state(state: Any) -> None:
        state["base_optimizer_state"]["state"].clear()

    cases: list[tuple[str, Any, type[SnapshotError], str]] = [
        ("two", lambda s: s[weights].pop(), SnapshotCorruptError, "number of groups"),
        ("two", wider, SnapshotCorruptError, "one dtype"),
        ("two", lambda s: s.update({weights: 3}), SnapshotCorruptError, "no flat buffers"),
        (
            "two",
            lambda s: s[weights].__setitem__(0, s[weights][0][:3].clone()),
            SnapshotCorruptError,
            "buffers end before",
        ),
        ("two", no_state, SnapshotCorruptError, "exp_avg"),
        ("three", lambda s: s["fp32_flat_groups"].pop(), SnapshotCorruptError, "buffers end"),
    ]
    for number, (source, change, error, text) in enumerate(cases):
        folder = tmp_path / f"case{number}"
        shutil.copytree(tmp_path / source, folder)
        _resave(folder / f"{rank1}_optim_states.pt", change)
        with pytest.raises(error, match=text):
            open_snapshot(folder)


def test_slices_and_missing_ranks(tmp_path: Path) -> None:
    net, optimizer, groups = _trained("adamw")
    folder = tmp_path / "global_step3"
    save_partitioned(folder, net, optimizer, groups, 3, 3)
    middle = folder / "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt"
    data = middle.read_bytes()
    middle.unlink()
    with pytest.raises(SnapshotTruncatedError, match="rank 1"):
        open_snapshot(folder)
    middle.write_bytes(data)
    (folder / "bf16_zero_pp_rank_0_mp_rank_01_optim_states.pt").write_bytes(data)
    with pytest.raises(SnapshotUnsupportedError, match="tensor-parallel"):
        open_snapshot(folder)
