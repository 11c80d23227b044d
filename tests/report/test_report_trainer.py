import dataclasses

import pytest
import report_helpers as h

from smdlens.hyper.records import ParamGroup
from smdlens.report.trainer import trainer_facts
from smdlens.vocabulary import OptimizerKind


def facts(*, groups=None, schedule=None, **optimizer):
    diagnosis = h.resnet_diagnosis()
    hyper = diagnosis.hyper
    changed = dataclasses.replace(
        hyper,
        optimizer=dataclasses.replace(hyper.optimizer, **optimizer),
        groups=hyper.groups if groups is None else groups,
        schedule=hyper.schedule if schedule is None else schedule,
    )
    report = h.resnet_report(dataclasses.replace(diagnosis, hyper=changed))
    return " · ".join(trainer_facts(report))


def group(index, tensors, decay, source="optimizer state"):
    return ParamGroup(index, f"group {index}", tensors, decay, 0.9, None, source)


@pytest.mark.parametrize(
    ("optimizer", "text"),
    [
        ({}, "SGD momentum 0.9"),
        ({"nesterov": True}, "SGD Nesterov momentum 0.9"),
        ({"dampening": 0.1}, "SGD momentum 0.9 dampening 0.1"),
        ({"decoupled": True}, "SGDW momentum 0.9"),
        ({"kind": OptimizerKind.ADAMW, "betas": (0.9, 0.999)}, "AdamW betas 0.9/0.999"),
        ({"kind": OptimizerKind.UNKNOWN, "momentum": None}, "optimizer unknown"),
    ],
)
def test_optimizer(optimizer, text):
    assert facts(**optimizer).startswith(f"{text}, weight decay 1e-4")


def test_one_source_is_said_once_and_two_are_told_apart():
    assert facts().count("optimizer state") == 1
    assert facts(source="option --optimizer").startswith(
        "SGD momentum 0.9 (option --optimizer) · weight decay 1e-4, lr 0.1 to 1e-4 (optimizer"
    )


def test_decay_of_the_invariant_tensors_comes_first():
    groups = (
        group(0, ("fc.bias", "bn1.weight"), 0.0, "file"),
        group(1, ("conv1.weight",), 1e-4),
    )
    assert "weight decay 1e-4, 0 elsewhere" in facts(groups=groups)


def test_what_nobody_says_is_unknown():
    text = facts(groups=(), schedule=())
    assert "weight decay unknown" in text and "lr unknown" in text
