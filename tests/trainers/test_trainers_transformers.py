"""Folders that Hugging Face Trainer itself writes here, on random data."""

import itertools
import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from trainers_helpers import check_rates, check_slots, check_weights

from smdlens.hyper.resolve import resolve_hyper_parameters
from smdlens.snapshots import open_series
from smdlens.vocabulary import OptimizerKind

UPDATES, EVERY = 24, 4


class Config(transformers.PretrainedConfig):
    model_type = "small_conv"


class Network(transformers.PreTrainedModel):
    config_class = Config

    def __init__(self, config):
        super().__init__(config)
        self.conv1 = torch.nn.Conv2d(3, 8, 3, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(8)
        self.conv2 = torch.nn.Conv2d(8, 6, 3)
        self.norm = torch.nn.LayerNorm(6)
        self.head = torch.nn.Linear(6, 5)
        self.post_init()

    def _init_weights(self, module):
        pass

    def forward(self, pixel_values, labels=None):
        x = torch.relu(self.bn1(self.conv1(pixel_values)))
        logits = self.head(self.norm(self.conv2(x).mean((2, 3))))
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return {"pixel_values": torch.randn(3, 8, 8, generator=generator), "labels": index % 5}


def train(folder, **options):
    """Trains; returns rates [updates][groups] as used, and names in the optimizer's order."""
    rates = []

    class Watch(transformers.TrainerCallback):
        def on_optimizer_step(self, *args, optimizer=None, **kwargs):
            rates.append([group["lr"] for group in optimizer.param_groups])

    arguments = transformers.TrainingArguments(
        str(folder), max_steps=UPDATES, save_steps=EVERY, logging_steps=1, use_cpu=True,
        per_device_train_batch_size=4, report_to=[], disable_tqdm=True, seed=0,
        **{"learning_rate": 3e-3, "weight_decay": 0.05, "warmup_steps": 5, **options},
    )  # fmt: skip
    torch.manual_seed(0)
    model = Network(Config())
    trainer = transformers.Trainer(model, arguments, train_dataset=Images(), callbacks=[Watch()])
    trainer.train()
    names = {id(p): n for n, p in model.named_parameters()}
    held = trainer.optimizer.param_groups
    return rates, [names[id(p)] for group in held for p in group["params"]]


@pytest.fixture(scope="module")
def cosine_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cosine")
    return folder, *train(folder, lr_scheduler_type="cosine", optim="adamw_torch")


def test_bits_steps_and_slots_are_those_of_torch(cosine_run):
    folder, _, order = cosine_run
    series = open_series(folder)
    assert series.steps == tuple(range(EVERY, UPDATES + 1, EVERY)) and series.skipped == ()
    for snapshot in series.snapshots:
        inner = folder / f"checkpoint-{snapshot.step}"
        check_weights(snapshot, load_file(inner / "model.safetensors"))
        saved = torch.load(inner / "optimizer.pt", weights_only=True)
        # safetensors keep no order: buffers of equal shape in one group stay unmapped, and said.
        check_slots(snapshot, saved, order, complete=False)
        assert {"conv1.weight", "conv2.weight", "head.weight", "bn1.weight", "bn1.bias"} <= set(
            snapshot.optimizer.slots
        )
        assert snapshot.optimizer.note.startswith("unmapped: 3 of 9")
        assert snapshot.optimizer.updates["conv1.weight"] == snapshot.step


def test_the_rate_of_every_update_is_evaluated_again(cosine_run):
    folder, rates, _ = cosine_run
    hyper = resolve_hyper_parameters(open_series(folder))
    check_rates(hyper, rates, EVERY, UPDATES)
    assert {s.source for s in hyper.schedule} == {"training_args.bin and trainer_state.json"}
    assert (hyper.optimizer.kind, hyper.optimizer.decoupled) == (OptimizerKind.ADAMW, True)
    assert [group.weight_decay for group in hyper.groups] == [0.05, 0.0]
    assert hyper.notes == () and hyper.cuts == ()


@pytest.mark.parametrize(
    "options",
    [
        {"lr_scheduler_type": "linear", "optim": "sgd"},
        {"lr_scheduler_type": "constant", "warmup_steps": 0},
        {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 0.3},
        {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 2}},
        {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": 2.0}},
        {"lr_scheduler_type": "inverse_sqrt"},
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 3e-4}},
    ],
    ids=lambda options: options["lr_scheduler_type"],
)
def test_every_schedule_of_the_trainer(tmp_path, options):
    rates, _ = train(tmp_path, **options)
    hyper = resolve_hyper_parameters(open_series(tmp_path))
    check_rates(hyper, rates, EVERY, UPDATES)
    assert {s.source for s in hyper.schedule} == {"training_args.bin and trainer_state.json"}
    if options.get("optim") == "sgd":
        assert (hyper.optimizer.kind, hyper.optimizer.momentum) == (OptimizerKind.SGD, 0.0)
        assert "conv1.weight" in hyper.groups[0].tensors
        assert "bn1.weight" in hyper.groups[0].tensors and "norm.weight" in hyper.groups[1].tensors


def test_a_schedule_without_formula_follows_the_log(tmp_path):
    kwargs = {"num_decay_steps": 8, "decay_type": "linear"}
    rates, _ = train(tmp_path, lr_scheduler_type="warmup_stable_decay", lr_scheduler_kwargs=kwargs)
    hyper = resolve_hyper_parameters(open_series(tmp_path))
    assert {s.source for s in hyper.schedule} == {"learning-rate log in trainer_state.json"}
    check_rates(hyper, rates, EVERY, UPDATES, rtol=1e-6)


def shift_log(folder):
    """Rewrites the logs as Trainer before 4.5x did: the rate after the step."""
    for path in folder.glob("checkpoint-*/trainer_state.json"):
        state = json.loads(path.read_text())
        entries = [e for e in state["log_history"] if "learning_rate" in e]
        for entry, following in itertools.pairwise(entries):
            entry["learning_rate"] = following["learning_rate"]
        saved = torch.load(path.parent / "optimizer.pt", weights_only=True)
        entries[-1]["learning_rate"] = saved["param_groups"][0]["lr"]
        path.write_text(json.dumps(state))


@pytest.mark.parametrize("old_log", [False, True], ids=["rate used", "rate after the step"])
def test_the_log_alone_and_which_step_its_rates_belong_to(tmp_path, old_log):
    """Without options the log is followed; the saved rates tell which update it speaks of."""
    rates, _ = train(tmp_path, lr_scheduler_type="cosine")
    if old_log:
        shift_log(tmp_path)
    for path in tmp_path.glob("checkpoint-*/training_args.bin"):
        path.unlink()
    hyper = resolve_hyper_parameters(open_series(tmp_path))
    assert {s.source for s in hyper.schedule} == {"learning-rate log in trainer_state.json"}
    check_rates(hyper, rates, EVERY, UPDATES, rtol=1e-6)


def test_weights_only_folders_take_rate_and_optimizer_from_the_options(tmp_path):
    """save_only_model: no optimizer.pt, no scheduler.pt; options and log still say everything."""
    rates, _ = train(tmp_path, lr_scheduler_type="linear", save_only_model=True)
    series = open_series(tmp_path)
    assert all(s.optimizer is None for s in series.snapshots)
    hyper = resolve_hyper_parameters(series)
    check_rates(hyper, np.array(rates)[:, :1], EVERY, UPDATES)
    assert hyper.optimizer.kind is OptimizerKind.ADAMW and hyper.optimizer.betas == (0.9, 0.999)
    assert hyper.optimizer.source == "training_args.bin: adamw_torch_fused"
    assert (hyper.groups[0].weight_decay, hyper.groups[0].source) == (0.05, "training_args.bin")


def test_options_that_the_rates_contradict_are_not_followed(cosine_run, tmp_path):
    """A run resumed under other options: the saved and logged rates win, and it is said."""
    import shutil

    folder, rates, _ = cosine_run
    run = tmp_path / "run"
    shutil.copytree(folder, run)
    for path in run.glob("checkpoint-*/trainer_state.json"):
        state = json.loads(path.read_text())
        state["max_steps"] = 99
        path.write_text(json.dumps(state))
    hyper = resolve_hyper_parameters(open_series(run))
    assert {s.source for s in hyper.schedule} == {"learning-rate log in trainer_state.json"}
    check_rates(hyper, rates, EVERY, UPDATES, rtol=1e-6)
    assert [note[0] for note in hyper.notes] == ["SMD010"]
    assert "training_args.bin and trainer_state.json" in hyper.notes[0][1]
