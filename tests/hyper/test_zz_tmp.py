"""Options that trainers write down: their names, their files, and hostile ones."""

import math

import numpy as np
import pytest
import torch
from hyper_helpers import SGD, found_rates, saved_run, series, snapshot, train_and_save
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torch_schedulers

from smdlens.containers.flat_yaml import parse_flat_yaml
from smdlens.errors import SmdlensError
from smdlens.hyper.options import DeclaredHyperParameters
from smdlens.hyper.resolve import resolve_hyper_parameters
from smdlens.hyper.settings import read_settings, rule_of, settings_of
from smdlens.vocabulary import OptimizerKind as Kind

ADAM = {"lr": 1e-3, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1, "amsgrad": False}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("adamw_torch", (Kind.ADAMW, True)),
        ("adamw_torch_fused", (Kind.ADAMW, True)),
        ("paged_adamw_8bit", (Kind.ADAMW, True)),
        ("adamw_bnb_8bit", (Kind.ADAMW, True)),
        ("OptimizerNames.ADAMW_HF", (Kind.ADAMW, True)),
        ("torch.optim.AdamW", (Kind.ADAMW, True)),
        ("Adam", (Kind.ADAM, False)),
        ("fusedadam", (Kind.ADAM, False)),
        ("sgd", (Kind.SGD, False)),
        ("sgd_nesterov", (Kind.SGD, False)),
        ("sgdw", (Kind.SGD, True)),
        ("lion_32bit", (Kind.LION, True)),
        ("adafactor", (Kind.OTHER, None)),
        ("lamb", (Kind.OTHER, None)),
        ("nadamw", (Kind.OTHER, None)),
        ("stable_adamw", (Kind.OTHER, None)),
        ("rmsproptf", (Kind.OTHER, None)),
        ("auto", None),
        ("", None),
    ],
)
def test_names_of_optimizers(name, expected):
    assert rule_of(name) == expected


def test_an_optimizer_nested_in_the_options():
    for inner in (
        {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.1, "weight_decay": 0.2}},
        {"_target_": "torch.optim.AdamW", "lr": 0.1, "weight_decay": 0.2},
        {"name": "adamw", "params": {"lr": 0.1, "weight_decay": 0.2}},
    ):
        found = settings_of("x", {"optimizer": inner, "lr": 5.0})
        assert (found.optimizer or "").lower().endswith("adamw")
        assert (found.lr, found.weight_decay) == (0.1, 0.2)


def test_options_decide_between_adam_and_adamw_and_say_so():
    shots = [snapshot(s, [(ADAM, ("w",))], {"args": {"opt": "adamw"}}) for s in (10, 20)]
    rule = resolve_hyper_parameters(series(shots)).optimizer
    assert (rule.kind, rule.decoupled) == (Kind.ADAMW, True)
    assert rule.source == "parameter groups in the checkpoints; 'args' in the checkpoints: adamw"
    shots = [snapshot(s, [(ADAM, ("w",))], {"args": {"opt": "sgd"}}) for s in (10, 20)]
    hyper = resolve_hyper_parameters(series(shots))
    assert hyper.optimizer.kind is Kind.UNKNOWN  # a state with betas is not SGD's
    assert "SMD011" in {note[0] for note in hyper.notes}
    declared = DeclaredHyperParameters(optimizer="adam")
    shots = [snapshot(s, [(ADAM, ("w",))], {"args": {"opt": "adamw"}}) for s in (10, 20)]
    hyper = resolve_hyper_parameters(series(shots), declared)
    assert hyper.optimizer.kind is Kind.ADAM
    assert any("option --optimizer says adam" in note[1] for note in hyper.notes)


def test_an_optimizer_without_formula_keeps_its_name():
    values = {"lr": 0.1, "weight_decay": 0.1, "eps": 1e-8, "alpha": 0.9}
    shots = [snapshot(s, [(values, ("w",))], {"args": {"opt": "rmsproptf"}}) for s in (1, 2)]
    rule = resolve_hyper_parameters(series(shots)).optimizer
    assert (rule.kind, rule.name) == (Kind.OTHER, "rmsproptf")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"opt": "sgd", "weight_decay": 1e-4}, "weight decay 0.0001"),
        ({"opt": "sgd", "momentum": 0.95}, "momentum 0.95"),
        ({"opt": "adamw"}, "optimizer adamw"),
        ({"opt": "sgd", "lr": 0.3}, "lr 0.3"),
    ],
)
def test_contradictions_become_notes_and_the_state_wins(options, says):
    values = {**SGD, "initial_lr": 0.1}
    shots = [snapshot(s, [(values, ("w",))], {"args": options}) for s in (10, 20)]
    hyper = resolve_hyper_parameters(series(shots))
    (note,) = hyper.notes
    assert note[0] == "SMD010" and says in note[1] and "the latter is used" in note[1]
    assert hyper.optimizer.kind is Kind.SGD and hyper.groups[0].weight_decay == 5e-4
    agreeing = {"opt": "sgd", "weight_decay": 5e-4, "momentum": 0.9, "lr": 0.1}
    shots = [snapshot(s, [(values, ("w",))], {"args": agreeing}) for s in (10, 20)]
    assert resolve_hyper_parameters(series(shots)).notes == ()


def test_a_cycled_momentum_is_said(tmp_path):
    _, run = train_and_save(
        tmp_path,
        lambda net: torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=1e-3),
        lambda o: torch_schedulers.OneCycleLR(o, 0.2, total_steps=65),
        updates=60, every=10,
    )  # fmt: skip
    (note,) = [n for n in resolve_hyper_parameters(run).notes if n[0] == "SMD019"]
    assert "0.85" in note[1] or "0.86" in note[1]


def test_a_plateau_that_stepped_before_saving_gives_the_next_rate():
    """ReduceLROnPlateau leaves no initial_lr; its state beside tells that a scheduler stepped."""

    def rate(t):
        return 0.1 if t < 200 else 0.01

    run = saved_run(rate, range(0, 401, 100), next_rate=True)
    plain = []
    for shot in run.snapshots:
        values = dict(shot.optimizer.groups[0].values)
        del values["initial_lr"]
        state = {"patience": 3, "best": 0.5, "last_epoch": shot.step // 100}
        plain.append(snapshot(shot.step, [(values, ("w",))], {"lr_scheduler": state}))
    hyper = resolve_hyper_parameters(series(plain))
    np.testing.assert_array_equal(found_rates(hyper, 0, 400), [rate(t) for t in range(400)])
    assert {s.source for s in hyper.schedule} == {"parameter groups in the checkpoints"}


# Flat YAML -------------------------------------------------------------------------------------


def test_flat_yaml_reads_scalars_and_nothing_else():
    text = """# options
lr: 0.1
weight_decay: 1.0e-04
epochs: 300
opt: 'sgd'
name: "a: b"   # comment
sched: cosine # why not
amp: false
drop: null
size: [3, 224, 224]
none: ~
milestones:
- 30
- 60
model: !!python/object:os.system
  args: [rm]
anchor: &a 5
text: |
  lr: 9.0
nested:
  lr: 7.0
"""
    found = parse_flat_yaml(text)
    assert found.values == {
        "lr": 0.1, "weight_decay": 1e-4, "epochs": 300, "opt": "sgd", "name": "a: b",
        "sched": "cosine", "amp": False, "drop": None, "size": [3, 224, 224], "none": None,
        "milestones": [30, 60],
    }  # fmt: skip
    assert found.ignored == 6


@given(st.text(max_size=300))
def test_flat_yaml_never_raises(text):
    parse_flat_yaml(text)


def test_files_beside_the_checkpoints_are_read_and_their_nesting_is_said(tmp_path):
    import dataclasses

    (tmp_path / "hparams.yaml").write_text("lr: 0.1\noptimizer: adamw\nmodel:\n  depth: 3\n")
    run = dataclasses.replace(
        series([snapshot(s, [(ADAM, ("w",))]) for s in (1, 2)]), path=str(tmp_path)
    )
    (found,) = read_settings(run)
    assert (found.source, found.lr, found.optimizer) == ("hparams.yaml", 0.1, "adamw")
    assert "1 lines of hparams.yaml are nested" in found.note
    (tmp_path / "hparams.yaml").unlink()
    (tmp_path / "hparams.yaml").symlink_to("/dev/zero")
    assert read_settings(run) == ()


# Hostile content -------------------------------------------------------------------------------

numbers = st.one_of(
    st.integers(), st.floats(), st.booleans(), st.just(10**400), st.just(-1), st.just(0)
)
plain = st.recursive(
    st.one_of(st.none(), numbers, st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = [
    "optim", "opt", "optimizer", "lr", "learning_rate", "weight_decay", "momentum", "nesterov",
    "betas", "adam_beta1", "eps", "sched", "epochs", "warmup_lr", "warmup_epochs", "warmup_steps",
    "warmup_ratio", "lr_scheduler_type", "lr_scheduler_kwargs", "decay_epochs",
    "decay_milestones", "decay_rate", "min_lr", "lr_k_decay", "sched_on_updates", "initial_lr",
    "lr_scale", "max_steps", "global_step", "log_history", "last_epoch", "base_lrs", "gamma",
    "milestones", "T_max", "eta_min", "step_size", "_schedule_phases", "_anneal_func_type",
    "_schedulers", "_milestones", "T_0", "T_mult", "cfg", "amsgrad", "dampening",
]  # fmt: skip
likely = st.one_of(
    plain, st.sampled_from(["cosine", "linear", "sgd", "adamw", "step", "none", "multistep"])
)
options = st.dictionaries(st.sampled_from(KEYS), likely, max_size=8)
entries = st.lists(
    st.dictionaries(st.sampled_from(["step", "learning_rate"]), plain, max_size=2), max_size=4
)
PLACES = ("args", "training_args", "trainer_state", "lr_scheduler", "hyper_parameters", "meta")


@settings(max_examples=6000, deadline=None)
@given(
    st.lists(st.dictionaries(st.sampled_from(PLACES), options, max_size=4), min_size=2, max_size=2),
    st.lists(options, min_size=2, max_size=2),
    entries,
    st.one_of(st.none(), st.floats()),
)
def test_hostile_content_is_data_or_a_clear_error(scalars, groups, log, epoch):
    shots = []
    for step, held, values in zip((10, 30), scalars, groups, strict=True):
        if "trainer_state" in held:
            held["trainer_state"]["log_history"] = log
        values = {**values, "params": 1}
        shots.append(snapshot(step, [(values, ("w",)), (dict(values), ())], held, epoch=epoch))
    try:
        hyper = resolve_hyper_parameters(series(shots))
    except SmdlensError:
        return
    for group in (0, 1):
        lr, decay = hyper.rates(group, 10, 30)
        assert not np.isinf(lr).any() and not np.isinf(decay).any()
    for value in (hyper.optimizer.momentum, hyper.optimizer.eps, hyper.groups[0].weight_decay):
        assert value is None or math.isfinite(value)
