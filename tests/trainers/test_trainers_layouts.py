"""Folders in the layout of timm, torchvision's references and mmengine.

Written here by loops that follow the layout of each (names, keys, when the scheduler steps), not by
those libraries, two of which do not import beside a CPU build of torch. What is compared is what
the loop used.
"""

import argparse
import math

import numpy as np
import pytest
import torch
from trainers_helpers import check_rates, check_slots, check_weights, small_net

from smdlens.hyper.resolve import resolve_hyper_parameters
from smdlens.hyper.settings import read_settings
from smdlens.snapshots import open_series
from smdlens.vocabulary import OptimizerKind

BATCHES = 5


def epoch_of_updates(net, optimizer, rates):
    for _ in range(BATCHES):
        rates.append([group["lr"] for group in optimizer.param_groups])
        for p in net.parameters():
            p.grad = torch.randn_like(p)
        optimizer.step()


# timm ------------------------------------------------------------------------------------------

TIMM = {
    "model": "resnet18", "opt": "sgd", "lr": 0.4, "weight_decay": 2e-3, "momentum": 0.9,
    "sched": "cosine", "epochs": 12, "warmup_epochs": 3, "warmup_lr": 1e-3, "min_lr": 1e-4,
    "warmup_prefix": False, "decay_epochs": 4, "decay_milestones": [5, 9], "decay_rate": 0.1,
    "sched_on_updates": False, "lr_cycle_limit": 1, "lr_k_decay": 1.0, "opt_betas": None,
}  # fmt: skip


def timm_schedule(args, time, base):
    if time < args.warmup_epochs:
        return args.warmup_lr + time * (base - args.warmup_lr) / args.warmup_epochs
    if args.warmup_prefix:
        time -= args.warmup_epochs
    if args.sched == "step":
        return base * args.decay_rate ** (time // args.decay_epochs)
    if args.sched == "multistep":
        return base * args.decay_rate ** sum(m <= time + 1 for m in args.decay_milestones)
    share = time / args.epochs
    return args.min_lr + 0.5 * (base - args.min_lr) * (1 + math.cos(math.pi * share))


def timm_run(folder, *, layer_decay=None, with_args=True, **changes):
    args = argparse.Namespace(**{**TIMM, **changes})
    net = small_net()
    groups = [{"params": [p], "weight_decay": args.weight_decay * (p.ndim > 1)}
              for p in net.parameters()]  # fmt: skip
    if layer_decay is None:
        groups = [
            {"params": [p for p in net.parameters() if p.ndim < 2], "weight_decay": 0.0},
            {"params": [p for p in net.parameters() if p.ndim > 1],
             "weight_decay": args.weight_decay},
        ]  # fmt: skip
    else:
        for depth, group in enumerate(groups):
            group["lr_scale"] = layer_decay ** (len(groups) - depth)
    optimizer = torch.optim.SGD(groups, args.lr, momentum=0.9, nesterov=True)
    names = {id(p): n for n, p in net.named_parameters()}
    order = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]

    def set_rates(time):
        for group in optimizer.param_groups:
            base = timm_schedule(args, time, group["initial_lr"])
            group["lr"] = base * group.get("lr_scale", 1.0)

    rates = []
    set_rates(0)
    for epoch in range(args.epochs):
        epoch_of_updates(net, optimizer, rates)
        content = {
            "epoch": epoch, "arch": args.model, "state_dict": net.state_dict(),
            "optimizer": optimizer.state_dict(), "version": 2, "metric": 50.0 + epoch,
        }  # fmt: skip
        if with_args:
            content["args"] = args
        if epoch % 2:
            torch.save(content, folder / f"checkpoint-{epoch}.pth.tar")
        torch.save(content, folder / "last.pth.tar")
        set_rates(epoch + 1)
    lines = [f"{k}: {'null' if v is None else str(v).lower() if isinstance(v, bool) else v}"
             for k, v in TIMM.items() if not isinstance(v, list)]  # fmt: skip
    (folder / "args.yaml").write_text("\n".join([*lines, "aug_splits:", "- 0"]) + "\n")
    (folder / "summary.csv").write_text("epoch,train_loss\n0,1.0\n")
    return rates, order


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"warmup_prefix": True},
        {"sched": "step"},
        {"sched": "multistep", "warmup_epochs": 0},
        {"with_args": False},
    ],
    ids=["cosine", "prefix", "step", "multistep", "args.yaml alone"],
)
def test_timm_knows_epochs_only_until_told_the_iterations(tmp_path, changes):
    rates, order = timm_run(tmp_path, **changes)
    series = open_series(tmp_path)
    assert series.axis == "epochs" and series.steps == (1, 3, 5, 7, 9, 11)
    assert {s.file: s.reason.value for s in series.skipped} == {"last.pth.tar": "best_or_last_copy"}
    hyper = resolve_hyper_parameters(series)
    assert hyper.schedule == () and "SMD013" in {note[0] for note in hyper.notes}
    assert "--steps-per-epoch" in next(n[2] for n in hyper.notes if n[0] == "SMD013")

    series = open_series(tmp_path, steps_per_epoch=BATCHES)
    assert series.steps == tuple(BATCHES * done for done in (2, 4, 6, 8, 10, 12))
    for snapshot in series.snapshots:
        saved = torch.load(tmp_path / snapshot.files[0], weights_only=False)
        check_weights(snapshot, saved["state_dict"])
        check_slots(snapshot, saved["optimizer"], order)
    hyper = resolve_hyper_parameters(series)
    check_rates(hyper, rates, series.steps[0], series.steps[-1])
    where = "args.yaml" if changes.get("with_args") is False else "'args' in the checkpoints"
    assert {s.source for s in hyper.schedule} == {f"timm's {where}"}
    assert hyper.optimizer.kind is OptimizerKind.SGD and hyper.optimizer.nesterov
    # A list in args.yaml holds `- 0`; nothing else of it is passed over.
    assert [note[0] for note in hyper.notes] == []


def test_timm_layer_wise_decay_gives_each_group_its_own_rates(tmp_path):
    rates, _ = timm_run(tmp_path, layer_decay=0.7, sched="step", warmup_epochs=0)
    hyper = resolve_hyper_parameters(open_series(tmp_path, steps_per_epoch=BATCHES))
    assert len(hyper.groups) == np.array(rates).shape[1] == 9
    check_rates(hyper, rates, 2 * BATCHES, 12 * BATCHES)
    assert rates[0][0] == pytest.approx(0.7**8 * rates[0][8])
    # The cuts are shared by all groups.
    assert [cut.step for cut in hyper.cuts] == [4 * BATCHES, 8 * BATCHES]


def test_timm_without_its_options_has_the_rate_of_the_epoch_before(tmp_path):
    """timm saves before its scheduler steps: the saved rate is the one that was used."""
    rates, _ = timm_run(tmp_path, with_args=False, sched="step", warmup_epochs=0)
    (tmp_path / "args.yaml").unlink()
    hyper = resolve_hyper_parameters(open_series(tmp_path, steps_per_epoch=BATCHES))
    check_rates(hyper, rates, 2 * BATCHES, 12 * BATCHES)
    assert {s.source for s in hyper.schedule} == {"parameter groups in the checkpoints"}


def test_timm_without_optimizer_says_what_it_knows_and_asks_for_the_rest(tmp_path):
    timm_run(tmp_path)
    for path in tmp_path.glob("*.tar"):
        content = torch.load(path, weights_only=False)
        del content["optimizer"]
        torch.save(content, path)
    series = open_series(tmp_path, steps_per_epoch=BATCHES)
    hyper = resolve_hyper_parameters(series)
    assert hyper.schedule == ()
    assert (hyper.optimizer.kind, hyper.optimizer.momentum) == (OptimizerKind.SGD, 0.9)
    assert hyper.optimizer.source == "'args' in the checkpoints: sgd"
    assert hyper.groups[0].weight_decay == 2e-3
    (note,) = [n for n in hyper.notes if n[0] == "SMD016"]
    assert "says lr 0.4 under the schedule 'cosine'" in note[1] and "--schedule FILE" in note[2]


# torchvision's references ----------------------------------------------------------------------


def torchvision_run(folder):
    """reference/classification: warm-up and step decay per epoch, stepped before saving."""
    net = torch.nn.parallel.DataParallel(small_net()).module
    args = argparse.Namespace(
        opt="sgd", lr=0.5, momentum=0.9, weight_decay=2e-5, norm_weight_decay=0.0, epochs=8,
        lr_scheduler="steplr", lr_step_size=3, lr_gamma=0.1, lr_warmup_epochs=2,
        lr_warmup_method="linear", lr_warmup_decay=0.01, model="resnet50",
    )  # fmt: skip
    groups = [
        {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": 2e-5},
        {"params": [p for p in net.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, args.lr, momentum=0.9)
    schedulers = torch.optim.lr_scheduler
    main = schedulers.StepLR(optimizer, args.lr_step_size, args.lr_gamma)
    warm = schedulers.LinearLR(optimizer, args.lr_warmup_decay, total_iters=2)
    scheduler = schedulers.SequentialLR(optimizer, [warm, main], milestones=[2])
    rates = []
    for epoch in range(args.epochs):
        epoch_of_updates(net, optimizer, rates)
        scheduler.step()
        content = {
            "model": net.state_dict(), "optimizer": optimizer.state_dict(),
            "lr_scheduler": scheduler.state_dict(), "epoch": epoch, "args": args,
        }  # fmt: skip
        torch.save(content, folder / f"model_{epoch}.pth")
        torch.save(content, folder / "checkpoint.pth")
    return rates


@pytest.mark.filterwarnings("ignore:The epoch parameter in:UserWarning")
def test_torchvision_references(tmp_path):
    rates = torchvision_run(tmp_path)
    assert open_series(tmp_path).axis == "epochs"
    series = open_series(tmp_path, steps_per_epoch=BATCHES)
    assert series.steps == tuple(BATCHES * (epoch + 1) for epoch in range(8))
    hyper = resolve_hyper_parameters(series)
    check_rates(hyper, rates, BATCHES, 8 * BATCHES)
    assert {s.source for s in hyper.schedule} == {"learning-rate scheduler in the checkpoints"}
    (settings,) = read_settings(series)
    assert (settings.optimizer, settings.lr, settings.momentum) == ("sgd", 0.5, 0.9)
    assert hyper.notes == ()


# mmengine --------------------------------------------------------------------------------------

CONFIG = """
model = dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=18))
optim_wrapper = dict(
    optimizer=dict(betas=(0.9, 0.999), lr=0.01, type='{name}', weight_decay=0.02),
    type='OptimWrapper')
param_scheduler = dict(by_epoch=True, gamma=0.1, milestones=[3, 5], type='MultiStepLR')
"""


def mmengine_run(folder, *, name="AdamW", old=True):
    """epoch_N.pth with meta (epoch, iter, configuration text), states of mmengine's schedulers."""
    net = small_net()
    optimizer = torch.optim.AdamW(net.parameters(), 0.01, weight_decay=0.02)
    rates = []
    for epoch in range(1, 8):
        for group in optimizer.param_groups:
            group["initial_lr"] = 0.01
            group["lr"] = 0.01 * 0.1 ** sum(epoch > mark for mark in (3, 5))
        epoch_of_updates(net, optimizer, rates)
        for group in optimizer.param_groups:  # its scheduler has stepped before it saves
            group["lr"] = 0.01 * 0.1 ** sum(epoch >= mark for mark in (3, 5))
        state = optimizer.state_dict()
        if old:
            for group in state["param_groups"]:
                del group["decoupled_weight_decay"]
        scheduler = {
            "param_name": "lr", "begin": 0, "end": 7, "by_epoch": True, "base_values": [0.01],
            "last_step": epoch, "_global_step": epoch + 1, "gamma": 0.1, "milestones": {3: 1, 5: 1},
        }  # fmt: skip
        content = {
            "meta": {"epoch": epoch, "iter": epoch * BATCHES, "cfg": CONFIG.format(name=name),
                     "mmengine_version": "0.10.4"},
            "state_dict": net.state_dict(), "message_hub": {"runtime_info": {"epoch": epoch - 1}},
            "optimizer": state, "param_schedulers": [scheduler],
        }  # fmt: skip
        torch.save(content, folder / f"epoch_{epoch}.pth")
    (folder / "last_checkpoint").write_text(str(folder / "epoch_7.pth"))
    return rates


@pytest.mark.parametrize(
    ("name", "kind"), [("AdamW", OptimizerKind.ADAMW), ("Adam", OptimizerKind.ADAM)]
)
def test_mmengine_decides_adam_by_its_configuration(tmp_path, name, kind):
    rates = mmengine_run(tmp_path, name=name)
    series = open_series(tmp_path)
    assert series.axis == "steps" and series.steps == tuple(BATCHES * e for e in range(1, 8))
    hyper = resolve_hyper_parameters(series)
    assert hyper.optimizer.kind is kind
    assert hyper.optimizer.source == (
        f"parameter groups in the checkpoints; the configuration in the checkpoints: {name}"
    )
    check_rates(hyper, rates, BATCHES, 7 * BATCHES)
    assert [cut.step for cut in hyper.cuts] == [3 * BATCHES, 5 * BATCHES]
    assert hyper.notes == ()


def test_mmengine_against_its_own_configuration(tmp_path):
    """The state is AdamW's by its flag; a configuration that says Adam is contradicted."""
    mmengine_run(tmp_path, name="Adam", old=False)
    hyper = resolve_hyper_parameters(open_series(tmp_path))
    assert hyper.optimizer.kind is OptimizerKind.ADAMW
    (note,) = hyper.notes
    assert note[0] == "SMD010" and "says optimizer Adam" in note[1] and "say adamw" in note[1]
