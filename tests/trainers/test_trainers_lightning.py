"""Checkpoints that lightning 2.6.6 itself wrote (tests/golden/make_lightning.py)."""

from pathlib import Path

import pytest
import torch
from trainers_helpers import check_rates, check_slots, check_weights, load_rates

from smdlens.hyper.resolve import resolve_hyper_parameters
from smdlens.hyper.settings import read_settings
from smdlens.snapshots import open_series
from smdlens.vocabulary import OptimizerKind

GOLDEN = Path(__file__).parents[1] / "golden" / "lightning"
MATRICES = ["net.0.weight", "net.4.weight"]
VECTORS = ["net.1.weight", "net.1.bias", "net.4.bias"]


def load(path):
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize(
    ("name", "steps"), [("steps", (4, 8, 12, 16, 20, 24)), ("epochs", (6, 12, 18, 24))]
)
def test_bits_steps_and_slots_are_those_of_torch(name, steps):
    series = open_series(GOLDEN / name)
    assert series.steps == steps and series.axis == "steps" and series.notes == ()
    assert [(s.file.rpartition("/")[2], s.reason.value) for s in series.skipped] == [
        ("last.ckpt", "best_or_last_copy")
    ]
    for snapshot in series.snapshots:
        saved = load(GOLDEN / name / snapshot.files[0])
        assert snapshot.step == saved["global_step"] and snapshot.epoch == saved["epoch"]
        assert snapshot.step_source == "key 'global_step'"
        check_weights(snapshot, saved["state_dict"])
        check_slots(snapshot, saved["optimizer_states"][0], MATRICES + VECTORS)


@pytest.mark.parametrize("name", ["steps", "epochs"])
def test_the_rate_of_every_update(name):
    """OneCycleLR per update, MultiStepLR per epoch; two groups with rates of their own."""
    series = open_series(GOLDEN / name)
    hyper = resolve_hyper_parameters(series)
    check_rates(hyper, load_rates(GOLDEN / name), series.steps[0], 24)
    assert {s.source for s in hyper.schedule} == {"learning-rate scheduler in the checkpoints"}
    assert [group.tensors for group in hyper.groups] == [tuple(MATRICES), tuple(VECTORS)]
    assert [cut.step for cut in hyper.cuts] == ([] if name == "steps" else [12, 18])
    assert hyper.notes == ()


def test_optimizer_and_its_settings():
    series = open_series(GOLDEN / "steps")
    hyper = resolve_hyper_parameters(series)
    assert (hyper.optimizer.kind, hyper.optimizer.betas) == (OptimizerKind.ADAMW, (0.9, 0.98))
    assert hyper.groups[0].weight_decay == 0.05 and hyper.groups[1].weight_decay == 0.0
    inside, beside = read_settings(series)
    assert inside.source == "'hyper_parameters' in the checkpoints"
    assert beside.source == "hparams.yaml"
    for one in (inside, beside):
        assert (one.optimizer, one.lr, one.weight_decay) == ("adamw", 2e-3, 0.05)
    sgd = resolve_hyper_parameters(open_series(GOLDEN / "epochs")).optimizer
    assert (sgd.kind, sgd.momentum, sgd.nesterov) == (OptimizerKind.SGD, 0.9, True)


def test_without_the_scheduler_the_saved_rates_speak(tmp_path):
    """The same files with their scheduler taken out: steps between snapshots stay bounded."""
    for path in sorted((GOLDEN / "epochs").rglob("epoch=*.ckpt")):
        content = load(path)
        del content["lr_schedulers"]
        torch.save(content, tmp_path / path.name)
    hyper = resolve_hyper_parameters(open_series(tmp_path))
    check_rates(hyper, load_rates(GOLDEN / "epochs"), 6, 24)
    assert {s.source for s in hyper.schedule} == {"parameter groups in the checkpoints"}
    assert [(c.step_low, c.step_high) for c in hyper.cuts] == [(6, 12), (12, 18)]
