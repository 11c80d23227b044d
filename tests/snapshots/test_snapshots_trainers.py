"""Checkpoints in the shape that Lightning and timm give them."""

from __future__ import annotations

import argparse
import collections
from pathlib import Path

import torch
from snapshots_helpers import same, small_net, train

from smdlens.snapshots import open_series, open_snapshot


class AttributeDict(dict[str, object]):
    """Stands for Lightning's own dict, which is pickled by its class."""


def _lightning(folder: Path, steps: int) -> torch.nn.Module:
    module = torch.nn.ModuleDict({"model": small_net()})
    sgd = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(sgd, [5])
    train(module["model"], sgd, steps)
    content = {
        "epoch": steps // 4,
        "global_step": steps,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": module.state_dict(),
        "loops": {"fit_loop": {"epoch_progress": {"total": {"ready": 2}}}},
        "callbacks": {
            "EMA": {"ema_weights": module.state_dict()},
            "ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.5)},
        },
        "optimizer_states": [sgd.state_dict()],
        "lr_schedulers": [scheduler.state_dict()],
        "hparams_name": "kwargs",
        "hyper_parameters": AttributeDict(lr=0.1, opt=argparse.Namespace(name="sgd")),
    }
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(content, folder / f"epoch={steps // 4}-step={steps}.ckpt")
    return module


def test_a_lightning_run(tmp_path: Path) -> None:
    folder = tmp_path / "lightning_logs" / "version_0" / "checkpoints"
    modules = {steps: _lightning(folder, steps) for steps in (4, 12)}
    torch.save(
        torch.load(folder / "epoch=3-step=12.ckpt", weights_only=False), folder / "last.ckpt"
    )
    series = open_series(tmp_path)
    assert series.steps == (4, 12)
    assert [(s.file, s.reason.value) for s in series.skipped] == [
        ("lightning_logs/version_0/checkpoints/last.ckpt", "best_or_last_copy")
    ]
    last = series.snapshots[1]
    assert (last.tree_key, last.step_source, last.epoch) == ("state_dict", "key 'global_step'", 3)
    assert "callbacks.EMA.ema_weights" in last.tree_note
    for name, value in modules[12].state_dict().items():
        assert same(last.tensors[name], value)
    assert last.optimizer is not None and last.optimizer.note == "order and shape"
    assert set(last.optimizer.slots) == {n for n, _ in modules[12].named_parameters()}
    assert last.scalars["hyper_parameters"] == {"lr": 0.1, "opt": {"name": "sgd"}}
    (scheduler,) = last.scalars["lr_schedulers"]
    assert scheduler["milestones"] == {5: 1} and scheduler["base_lrs"] == [0.1]


def test_a_timm_checkpoint(tmp_path: Path) -> None:
    net = small_net()
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    train(net, sgd, 2)
    path = tmp_path / "checkpoint-12.pth.tar"
    content = {
        "epoch": 12,
        "arch": "resnet50",
        "state_dict": net.state_dict(),
        "optimizer": sgd.state_dict(),
        "version": 2,
        "args": argparse.Namespace(model="resnet50", lr=0.5, sched="cosine", milestones=[1, 2]),
        "amp_scaler": {"scale": 65536.0},
        "state_dict_ema": collections.OrderedDict(net.state_dict()),
        "metric": 71.25,
    }
    torch.save(content, path)
    snapshot = open_snapshot(path)
    assert (snapshot.step, snapshot.epoch, snapshot.step_source) == (None, 12, "key 'epoch'")
    assert snapshot.tree_key == "state_dict"
    assert snapshot.trees == (("state_dict", 15, False), ("state_dict_ema", 15, True))
    assert snapshot.scalars["args"]["milestones"] == [1, 2]
    assert snapshot.scalars["metric"] == 71.25 and "state_dict_ema" not in snapshot.scalars
    assert snapshot.optimizer is not None and len(snapshot.optimizer.slots) == 9
