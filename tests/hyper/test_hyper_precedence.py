"""Who is believed: options, then configuration, then the files; and who is told."""

from pathlib import Path

import numpy as np
import pytest
from hyper_helpers import SGD, found_rates, saved_run, series, snapshot, train_and_save

from smdlens.hyper.options import DeclaredHyperParameters
from smdlens.hyper.resolve import main_group_of, resolve_hyper_parameters
from smdlens.options import gather_options


def run(**values):
    return series([snapshot(s, [({**SGD, **values}, ("w",))]) for s in (0, 100, 200)])


def notes_of(hyper, rule):
    return [text for found, text, _ in hyper.notes if found == rule]


def test_files_alone_are_believed_without_a_note():
    hyper = resolve_hyper_parameters(run())
    assert hyper.notes == ()
    assert hyper.groups[0].weight_decay == 5e-4 and hyper.groups[0].momentum == 0.9
    assert hyper.groups[0].source == hyper.optimizer.source == hyper.schedule[0].source


@pytest.mark.parametrize(
    ("declared", "shown"),
    [
        ({"weight_decay": 1e-3}, ("0.001", "0.0005")),
        ({"lr": 0.2}, ("0.2", "0.1")),
        ({"momentum": 0.8}, ("0.8", "0.9")),
        ({"dampening": 0.5}, ("0.5", "0")),
        ({"optimizer": "adamw"}, ("adamw", "sgd")),
    ],
)
def test_a_declared_value_wins_and_its_contradiction_is_told(declared, shown):
    hyper = resolve_hyper_parameters(run(), DeclaredHyperParameters(**declared))
    (text,) = notes_of(hyper, "SMD010")
    assert f"option --{next(iter(declared)).replace('_', '-')}" in text
    assert all(value in text for value in shown)
    lr, decay = hyper.rates(0, 0, 200)
    assert (decay == declared.get("weight_decay", 5e-4)).all()
    assert (lr == declared.get("lr", 0.1)).all()
    if "momentum" in declared:
        assert hyper.optimizer.momentum == 0.8 and hyper.groups[0].momentum == 0.8


@pytest.mark.parametrize("declared", [{"weight_decay": 5e-4}, {"lr": 0.1}, {"momentum": 0.9},
                                      {"optimizer": "sgd"}])  # fmt: skip
def test_a_declared_value_that_agrees_needs_no_note(declared):
    hyper = resolve_hyper_parameters(run(), DeclaredHyperParameters(**declared))
    assert notes_of(hyper, "SMD010") == []


@pytest.mark.parametrize("next_rate", [False, True])
def test_a_declared_schedule_that_ran_does_not_contradict_either_reading(tmp_path, next_rate):
    """A scheduler that stepped before saving has written the next rate: ten times off at a cut."""
    path = tmp_path / "schedule.csv"
    path.write_text("step,lr\n0,0.1\n2000,0.01\n")
    shots = saved_run(lambda t: 0.1 if t < 2000 else 0.01, range(0, 4001, 500), next_rate=next_rate)
    hyper = resolve_hyper_parameters(shots, DeclaredHyperParameters(schedule=path))
    assert notes_of(hyper, "SMD010") == []
    assert [c.step for c in hyper.cuts] == [2000]


def test_a_declared_schedule_that_did_not_run_is_told(tmp_path):
    path = tmp_path / "schedule.csv"
    path.write_text("step,lr\n0,0.1\n1000,0.01\n")
    shots = saved_run(lambda t: 0.1 if t < 2000 else 0.01, range(0, 4001, 500))
    hyper = resolve_hyper_parameters(shots, DeclaredHyperParameters(schedule=path))
    (text,) = notes_of(hyper, "SMD010")
    assert "at step 1500" in text
    assert found_rates(hyper, 1500, 1501)[0] == 0.01


def test_options_come_before_the_configuration_and_the_source_says_which(tmp_path):
    config = tmp_path / "smdlens.toml"
    config.write_text("lr = 0.3\nweight_decay = 2e-3\n")
    declared = gather_options(config, lr=0.4).declared
    hyper = resolve_hyper_parameters(run(), declared)
    assert hyper.schedule[0].source == "option --lr"
    assert hyper.groups[0].source == str(config)
    lr, decay = hyper.rates(0, 0, 1)
    assert (lr[0], decay[0]) == (0.4, 2e-3)


def test_a_group_without_decay_stays_without_under_a_declared_decay():
    groups = [({**SGD}, ("w",)), ({**SGD, "weight_decay": 0.0}, ("b",))]
    shots = series([snapshot(s, groups, tensors=("w", "b")) for s in (0, 100)])
    hyper = resolve_hyper_parameters(shots, DeclaredHyperParameters(weight_decay=1e-3))
    assert [g.weight_decay for g in hyper.groups] == [1e-3, 0.0]
    assert hyper.groups[1].name == "group 1 (no decay)"
    assert (hyper.rates(1, 0, 100)[1] == 0.0).all()
    assert len(notes_of(hyper, "SMD010")) == 1


def test_the_decayed_group_with_most_elements_sets_the_cuts():
    groups = [({**SGD, "weight_decay": 0.0}, ("a", "b", "c")), ({**SGD}, ("w",))]
    shots = series([snapshot(s, groups, tensors=("a", "b", "c", "w")) for s in (0, 100)])
    hyper = resolve_hyper_parameters(shots)
    assert main_group_of(hyper, {"a": 9, "b": 9, "c": 9, "w": 1}) == 1


def test_tensors_of_an_unmapped_group_belong_to_no_group_and_it_is_told():
    groups = [(SGD, None), ({**SGD, "weight_decay": 0.0}, None)]
    shots = series([snapshot(s, groups) for s in (0, 100)])
    hyper = resolve_hyper_parameters(shots)
    assert hyper.group_of("w") is None
    assert notes_of(hyper, "SMD018")


def test_one_unmapped_group_is_everything():
    shots = series([snapshot(s, [(SGD, None)], tensors=("w", "bn.running_mean")) for s in (0, 100)])
    hyper = resolve_hyper_parameters(shots)
    assert hyper.groups[0].tensors == ("w",)


def test_epochs_without_iterations_have_no_rates_and_name_the_option():
    shots = series([snapshot(None, [(SGD, ("w",))], epoch=e) for e in (0, 1, 2)], axis="epochs")
    hyper = resolve_hyper_parameters(shots)
    assert hyper.schedule == () and hyper.cuts == ()
    assert any("--steps-per-epoch" in remedy for _, _, remedy in hyper.notes)
    # The rates of a schedule by epochs are no rates of updates.
    assert "SMD016" not in {rule for rule, _, _ in hyper.notes}


def test_real_groups_are_mapped_to_names(tmp_path):
    import torch

    def optimizer_of(net):
        groups = [
            {"params": [net[0].weight, net[2].weight]},
            {"params": [net[1].weight, net[1].bias, net[2].bias], "weight_decay": 0.0},
        ]
        return torch.optim.SGD(groups, 0.1, momentum=0.9, weight_decay=1e-3)

    _, shots = train_and_save(tmp_path, optimizer_of, updates=20, every=10)
    hyper = resolve_hyper_parameters(shots)
    assert hyper.groups[0].tensors == ("0.weight", "2.weight")
    assert set(hyper.groups[1].tensors) == {"1.weight", "1.bias", "2.bias"}
    assert hyper.group_of("2.weight").weight_decay == 1e-3


def test_the_source_of_epsilon():
    hyper = resolve_hyper_parameters(run())
    assert hyper.epsilon == 1e-5 and "assumed" in hyper.epsilon_source
    hyper = resolve_hyper_parameters(run(), DeclaredHyperParameters(epsilon=1e-3))
    assert hyper.epsilon == 1e-3 and "--epsilon" in hyper.epsilon_source


def test_unknown_rates_are_nan_never_zero():
    hyper = resolve_hyper_parameters(series([snapshot(0), snapshot(100)]))
    lr, decay = hyper.rates(0, 0, 100)
    assert np.isnan(lr).all() and np.isnan(decay).all()


def test_a_schedule_path_is_kept_as_given():
    options = gather_options(None, schedule="lr.csv")
    assert options.declared.schedule == Path("lr.csv")
