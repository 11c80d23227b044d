"""Update rules recognised from the state of real torch optimizers."""

import pytest
import torch
from hyper_helpers import SGD, series, snapshot, train_and_save

from smdlens.errors import InputError
from smdlens.hyper.optimizer import resolve_optimizer
from smdlens.hyper.options import DeclaredHyperParameters
from smdlens.hyper.resolve import resolve_hyper_parameters
from smdlens.vocabulary import OptimizerKind as Kind

OPTIMIZERS = {
    "sgd": (lambda p: torch.optim.SGD(p, 0.1, weight_decay=1e-3), Kind.SGD, False),
    "momentum": (lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), Kind.SGD, False),
    "adam": (lambda p: torch.optim.Adam(p, weight_decay=1e-3), Kind.ADAM, False),
    "adamw": (lambda p: torch.optim.AdamW(p), Kind.ADAMW, True),
    "amsgrad": (lambda p: torch.optim.AdamW(p, amsgrad=True), Kind.ADAMW, True),
    "rmsprop": (lambda p: torch.optim.RMSprop(p, momentum=0.9), Kind.OTHER, None),
    "adagrad": (lambda p: torch.optim.Adagrad(p), Kind.OTHER, None),
    "adadelta": (lambda p: torch.optim.Adadelta(p), Kind.OTHER, None),
    "nadam": (lambda p: torch.optim.NAdam(p), Kind.OTHER, None),
    "radam": (lambda p: torch.optim.RAdam(p), Kind.OTHER, None),
    "radam decoupled": (
        lambda p: torch.optim.RAdam(p, decoupled_weight_decay=True), Kind.OTHER, None,
    ),
    "adamax": (lambda p: torch.optim.Adamax(p), Kind.OTHER, None),
    "asgd": (lambda p: torch.optim.ASGD(p), Kind.OTHER, None),
    "rprop": (lambda p: torch.optim.Rprop(p), Kind.OTHER, None),
}  # fmt: skip


def optimizer_of(folder, make):
    _, shots = train_and_save(folder, lambda net: make(net.parameters()), updates=20, every=10)
    return resolve_hyper_parameters(shots)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_kind_of_a_torch_optimizer(tmp_path, name):
    make, kind, decoupled = OPTIMIZERS[name]
    hyper = optimizer_of(tmp_path, make)
    assert (hyper.optimizer.kind, hyper.optimizer.decoupled) == (kind, decoupled)
    rules = {rule for rule, _, _ in hyper.notes}
    assert ("SMD015" in rules) is (kind is Kind.OTHER)


def test_what_sgd_saves_is_read(tmp_path):
    hyper = optimizer_of(
        tmp_path,
        lambda p: torch.optim.SGD(p, 0.3, momentum=0.8, dampening=0.1, weight_decay=2e-3),
    )
    rule = hyper.optimizer
    assert (rule.momentum, rule.dampening, rule.nesterov, rule.betas) == (0.8, 0.1, False, None)
    assert hyper.groups[0].weight_decay == 2e-3
    assert hyper.rates(0, 10, 11)[0][0] == 0.3


def test_nesterov_is_read(tmp_path):
    hyper = optimizer_of(
        tmp_path, lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    )
    assert hyper.optimizer.nesterov is True


def test_what_adamw_saves_is_read(tmp_path):
    hyper = optimizer_of(
        tmp_path, lambda p: torch.optim.AdamW(p, betas=(0.8, 0.95), eps=1e-6, amsgrad=True)
    )
    rule = hyper.optimizer
    assert (rule.betas, rule.eps, rule.amsgrad, rule.momentum) == ((0.8, 0.95), 1e-6, True, None)


def test_an_old_adam_could_be_either_and_says_so():
    values = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1, "amsgrad": False}
    shots = series([snapshot(step, [(values, ("w",))]) for step in (100, 200)])
    hyper = resolve_hyper_parameters(shots)
    assert hyper.optimizer.kind is Kind.UNKNOWN
    (note,) = [n for n in hyper.notes if n[0] == "SMD011"]
    assert "--optimizer adamw" in note[2]
    for name, kind in (("adam", Kind.ADAM), ("adamw", Kind.ADAMW)):
        declared = resolve_hyper_parameters(shots, DeclaredHyperParameters(optimizer=name))
        assert declared.optimizer.kind is kind and declared.optimizer.betas == (0.9, 0.999)
        assert "SMD011" not in {rule for rule, _, _ in declared.notes}


def test_lion_has_betas_and_one_moment_only():
    values = {"lr": 1e-4, "betas": (0.9, 0.99), "weight_decay": 0.1}
    slots = {"w": {"first_moment": None}}
    shots = series([snapshot(step, [(values, ("w",))], slots=slots) for step in (100, 200)])
    assert resolve_hyper_parameters(shots).optimizer.kind is Kind.LION


def test_a_class_name_in_the_file_decides():
    values = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}
    shots = series([snapshot(step, [(values, ("w",))], name="AdamW") for step in (100, 200)])
    assert resolve_hyper_parameters(shots).optimizer.kind is Kind.ADAMW


def test_without_any_state_the_optimizer_is_unknown_and_the_remedy_is_an_option():
    hyper = resolve_hyper_parameters(series([snapshot(0), snapshot(100)]))
    assert hyper.optimizer.kind is Kind.UNKNOWN
    remedies = {rule: remedy for rule, _, remedy in hyper.notes}
    assert "--optimizer" in remedies["SMD014"]
    assert "--lr" in remedies["SMD016"] and "--weight-decay" in remedies["SMD017"]


def test_a_rate_and_a_decay_alone_could_be_any_optimizers():
    shots = series([snapshot(0), snapshot(100)])
    hyper = resolve_hyper_parameters(shots, DeclaredHyperParameters(lr=0.1, weight_decay=1e-4))
    assert hyper.optimizer.kind is Kind.UNKNOWN
    assert "--optimizer" in {rule: remedy for rule, _, remedy in hyper.notes}["SMD014"]


def test_a_declared_momentum_reads_like_sgd_and_says_so():
    shots = series([snapshot(0), snapshot(100)])
    declared = DeclaredHyperParameters(lr=0.1, weight_decay=1e-4, momentum=0.9)
    hyper = resolve_hyper_parameters(shots, declared)
    assert hyper.optimizer.kind is Kind.SGD and hyper.optimizer.momentum == 0.9
    assert "assumed" in hyper.optimizer.source


def test_sgd_named_without_a_momentum_is_asked_for_it():
    shots = series([snapshot(0), snapshot(100)])
    declared = DeclaredHyperParameters(optimizer="sgd", lr=0.1, weight_decay=1e-4)
    hyper = resolve_hyper_parameters(shots, declared)
    assert hyper.optimizer.kind is Kind.SGD and hyper.optimizer.momentum is None
    assert "--momentum" in {rule: remedy for rule, _, remedy in hyper.notes}["SMD012"]


def test_declared_betas_are_not_read_as_sgd():
    shots = series([snapshot(0), snapshot(100)])
    declared = DeclaredHyperParameters(lr=0.1, betas=(0.9, 0.999))
    assert resolve_hyper_parameters(shots, declared).optimizer.kind is Kind.UNKNOWN


@pytest.mark.parametrize("name", ["sgdw", "adamw", "lion"])
def test_declared_decoupled_rules(name):
    shots = series([snapshot(0), snapshot(100)])
    rule, _ = resolve_optimizer(shots, DeclaredHyperParameters(optimizer=name, lr=0.1))
    assert rule.decoupled is True
    assert rule.kind is {"sgdw": Kind.SGD, "adamw": Kind.ADAMW, "lion": Kind.LION}[name]


def test_nesterov_without_momentum_is_refused():
    shots = series([snapshot(0), snapshot(100)])
    with pytest.raises(InputError, match="momentum above 0"):
        resolve_hyper_parameters(shots, DeclaredHyperParameters(lr=0.1, nesterov=True))


@pytest.mark.parametrize(
    "declared",
    [
        {"optimizer": "sdg"},
        {"lr": 0.0},
        {"lr": float("inf")},
        {"weight_decay": -1e-4},
        {"weight_decay": float("nan")},
        {"momentum": 1.0},
        {"betas": (0.9, 1.0)},
    ],
)
def test_declared_values_out_of_range_are_refused(declared):
    with pytest.raises(InputError) as caught:
        DeclaredHyperParameters(**declared)
    assert caught.value.exit_code == 2 and "--" in str(caught.value.subject)


@pytest.mark.parametrize(
    "values",
    [
        {"lr": "fast", "weight_decay": "much", "momentum": None, "dampening": 0, "nesterov": 1},
        {**SGD, "lr": float("nan"), "weight_decay": float("inf")},
        {"betas": "ab", "amsgrad": 3, "lr": 1e-3},
        {"betas": (None, None), "eps": 1e-8},
        {"betas": [0.9], "lr": 1e-3},
        {},
    ],
)
def test_nonsense_in_a_group_is_not_believed_and_never_raises(values):
    shots = series([snapshot(step, [(values, ("w",))]) for step in (100, 200)])
    hyper = resolve_hyper_parameters(shots)
    lr, decay = hyper.rates(0, 100, 200)
    assert hyper.optimizer.betas is None
    for known in (lr, decay):
        assert not (known != known).any() or (known != known).all()
