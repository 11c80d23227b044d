"""Runs that consist of headers alone: what a trainer with a known schedule would have saved."""

from __future__ import annotations

import math

import numpy as np
import torch

from smdlens.hyper.records import HyperParameters
from smdlens.snapshots.records import (
    Extent,
    GroupRecord,
    OptimizerRecord,
    Snapshot,
    SnapshotSeries,
    TensorRef,
)
from smdlens.snapshots.series import open_series

SGD = {"lr": 0.1, "momentum": 0.9, "dampening": 0.0, "weight_decay": 5e-4, "nesterov": False}


def ref(name, shape=(8, 4)):
    return TensorRef(name, shape, "float32", (Extent("x", 0, 4 * math.prod(shape)),))


def snapshot(step, groups=(), scalars=None, tensors=("w",), name=None, epoch=None, slots=None):
    """One snapshot; `groups` are (values, names) pairs."""
    records = tuple(
        GroupRecord(at, values, names, 1 if names is None else len(names))
        for at, (values, names) in enumerate(groups)
    )
    optimizer = OptimizerRecord("optimizer", records, slots or {}, name=name) if records else None
    return Snapshot(
        step=step,
        epoch=epoch,
        step_source="test",
        files=(f"{step}.pt",),
        format="torch-zip",
        tensors={n: ref(n) for n in tensors},
        tree_key="model",
        tree_note="",
        trees=(),
        optimizer=optimizer,
        scalars=scalars or {},
    )


def series(snapshots, axis="steps"):
    return SnapshotSeries("run", tuple(snapshots), (), axis)


def saved_run(rate, steps, *, next_rate=False, values=SGD, names=("w",)):
    """Snapshots of a run whose update t used rate(t), 0 <= t < steps[-1].

    With `next_rate` a scheduler stepped before saving and left its `initial_lr`.
    """
    shots = []
    for step in steps:
        lr = rate(step) if next_rate else rate(max(step - 1, 0))
        extra = {"initial_lr": rate(0)} if next_rate else {}
        shots.append(snapshot(step, [({**values, "lr": lr, **extra}, names)], tensors=names))
    return series(shots)


def true_rates(rate, start, stop):
    return np.array([rate(t) for t in range(start, stop)])


def found_rates(hyper: HyperParameters, start, stop, group=0):
    return hyper.rates(group, start, stop)[0]


def small_net(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, bias=False), torch.nn.BatchNorm2d(8), torch.nn.Conv2d(8, 4, 3)
    )


def train_and_save(folder, optimizer_of, scheduler_of=None, *, updates, every, per_epoch=1,
                   before=False):  # fmt: skip
    """A real torch run on random gradients; returns the rate that each update used.

    The scheduler steps once per `per_epoch` updates; checkpoints are written just `before` it does
    or just after.
    """
    net = small_net()
    optimizer = optimizer_of(net)
    scheduler = None if scheduler_of is None else scheduler_of(optimizer)
    rates = []

    def save(step):
        content = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
        if scheduler is not None:
            content["lr_scheduler"] = scheduler.state_dict()
        torch.save(content, folder / f"ckpt_{step}.pt")

    for step in range(1, updates + 1):
        rates.append([float(group["lr"]) for group in optimizer.param_groups])
        for p in net.parameters():
            p.grad = torch.randn_like(p)
        optimizer.step()
        due = step % every == 0
        if due and before:
            save(step)
        if scheduler is not None and step % per_epoch == 0:
            scheduler.step()
        if due and not before:
            save(step)
    return np.array(rates), open_series(folder)
