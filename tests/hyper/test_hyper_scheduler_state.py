"""Schedules re-evaluated from saved scheduler state, against torch's own schedulers run forward."""

import math

import numpy as np
import pytest
import torch
from hyper_helpers import found_rates, train_and_save
from torch.optim import lr_scheduler as torch_schedulers

from smdlens.hyper.resolve import resolve_hyper_parameters
from smdlens.hyper.scheduler_state import find_state, formula_of, updates_per_tick


def optimizer_of(net):
    return torch.optim.SGD(net.parameters(), 0.2, momentum=0.9, weight_decay=1e-3)


def warm_up_then_cosine(optimizer):
    warm = torch_schedulers.LinearLR(optimizer, 0.1, 1.0, total_iters=10)
    fall = torch_schedulers.CosineAnnealingLR(optimizer, T_max=50)
    return torch_schedulers.SequentialLR(optimizer, [warm, fall], milestones=[10])


def three_in_sequence(optimizer):
    parts = [
        torch_schedulers.ConstantLR(optimizer, 0.25, total_iters=7),
        torch_schedulers.ExponentialLR(optimizer, 0.97),
        torch_schedulers.StepLR(optimizer, 5, 0.5),
    ]
    return torch_schedulers.SequentialLR(optimizer, parts, milestones=[12, 36])


SCHEDULERS = {
    "MultiStepLR": lambda o: torch_schedulers.MultiStepLR(o, [20, 35, 35, 50], 0.3),
    "StepLR": lambda o: torch_schedulers.StepLR(o, 13, 0.5),
    "ExponentialLR": lambda o: torch_schedulers.ExponentialLR(o, 0.95),
    "CosineAnnealingLR": lambda o: torch_schedulers.CosineAnnealingLR(o, 60, eta_min=1e-3),
    "CosineAnnealingWarmRestarts": lambda o: torch_schedulers.CosineAnnealingWarmRestarts(
        o, 8, T_mult=2, eta_min=1e-4
    ),
    "LinearLR": lambda o: torch_schedulers.LinearLR(o, 0.2, 0.9, total_iters=25),
    "ConstantLR": lambda o: torch_schedulers.ConstantLR(o, 0.5, total_iters=22),
    "PolynomialLR": lambda o: torch_schedulers.PolynomialLR(o, total_iters=60, power=2.0),
    "OneCycleLR": lambda o: torch_schedulers.OneCycleLR(o, 0.2, total_steps=65),
    "OneCycleLR in three": lambda o: torch_schedulers.OneCycleLR(
        o, 0.2, total_steps=65, three_phase=True, anneal_strategy="linear"
    ),
    "warm-up, cosine": warm_up_then_cosine,
    "three in sequence": three_in_sequence,
}


# torch says so itself where SequentialLR steps its parts.
@pytest.mark.filterwarnings("ignore:The epoch parameter in:UserWarning")
@pytest.mark.parametrize("before", [False, True], ids=["saved after", "saved before"])
@pytest.mark.parametrize("per_epoch", [1, 12], ids=["per update", "per epoch"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_update_has_the_rate_that_torch_used(tmp_path, name, per_epoch, before):
    every, updates = (10, 60) if per_epoch == 1 else (48, 720)
    rates, series = train_and_save(
        tmp_path, optimizer_of, SCHEDULERS[name],
        updates=updates, every=every, per_epoch=per_epoch, before=before,
    )  # fmt: skip
    hyper = resolve_hyper_parameters(series)
    found = found_rates(hyper, every, updates)
    expected = rates[every:updates, 0]
    assert np.ptp(expected) > 0.0
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7 * expected.max())
    assert {s.source for s in hyper.schedule} == {"learning-rate scheduler in the checkpoints"}


def test_groups_have_their_own_base_rates(tmp_path):
    def two_groups(net):
        groups = [
            {"params": [net[0].weight, net[2].weight]},
            {"params": [net[1].weight, net[1].bias, net[2].bias], "lr": 0.05, "weight_decay": 0.0},
        ]
        return torch.optim.SGD(groups, 0.2, momentum=0.9, weight_decay=1e-3)

    rates, series = train_and_save(
        tmp_path, two_groups, SCHEDULERS["CosineAnnealingLR"], updates=60, every=10
    )
    hyper = resolve_hyper_parameters(series)
    for group in (0, 1):
        np.testing.assert_allclose(
            found_rates(hyper, 10, 60, group), rates[10:, group], rtol=1e-6, atol=1e-9
        )
    assert rates[30, 0] == pytest.approx(4 * rates[30, 1], rel=0.05)


def test_a_rate_set_by_hand_disproves_the_scheduler(tmp_path):
    """The saved rates contradict the formula: it is not used, the saved rates are."""

    class Meddled(torch_schedulers.MultiStepLR):
        def step(self, *args):
            super().step(*args)
            self.optimizer.param_groups[0]["lr"] = 0.07

    rates, series = train_and_save(
        tmp_path, optimizer_of, lambda o: Meddled(o, [20], 0.5), updates=60, every=10
    )
    hyper = resolve_hyper_parameters(series)
    assert "parameter groups" in hyper.schedule[0].source
    np.testing.assert_allclose(found_rates(hyper, 10, 60), rates[10:, 0])


@pytest.mark.parametrize(
    "make",
    [
        lambda o: torch_schedulers.LambdaLR(o, lambda t: 1 / (1 + t)),
        lambda o: torch_schedulers.ReduceLROnPlateau(o),
        lambda o: torch_schedulers.CyclicLR(o, 0.1, 0.2),
    ],
)
def test_a_scheduler_without_a_formula_is_left_alone(make):
    state = make(optimizer_of(torch.nn.Linear(2, 2))).state_dict()
    assert formula_of({k: v for k, v in state.items() if not callable(v)}) is None


def test_schedulers_are_found_where_trainers_keep_them():
    state = {"gamma": 0.5, "last_epoch": 3}
    for key in ("lr_scheduler", "scheduler", "sched"):
        assert find_state({key: state}) == state
    assert find_state({"lr_schedulers": [state]}) == state
    assert find_state({"lr_scheduler": {"scheduler": state}}) == state
    assert find_state({"lr_scheduler": {"gamma": 0.5}}) is None
    assert find_state({"lr_scheduler": "cosine", "other": state}) is None
    assert find_state({}) is None


@pytest.mark.parametrize(
    ("points", "size"),
    [
        ([(100, 100), (200, 200)], 1),
        ([(100, 99), (200, 199)], 1),
        ([(0, 0), (500, 1), (1000, 2)], 500),
        ([(500, 0), (1000, 1)], 500),
        ([(100, 1), (200, 3)], 50),
        ([(100, 1), (200, 2), (300, 4)], None),
        ([(100, 1), (150, 1)], None),
        ([(0, 0)], None),
    ],
)
def test_updates_per_tick(points, size):
    assert updates_per_tick(points) == size


def test_hostile_state_never_raises():
    hostile = [
        {"T_max": 0, "eta_min": 0.0},
        {"T_0": 0, "T_mult": 1, "eta_min": 0.0},
        {"T_0": 1, "T_mult": 0, "eta_min": 0.0},
        {"T_0": -5, "T_mult": 1, "eta_min": 0.0},
        {"step_size": 0, "gamma": 0.1},
        {"gamma": math.inf},
        {"gamma": 1e300},
        {"gamma": "x"},
        {"start_factor": 1, "end_factor": 1, "total_iters": 0},
        {"total_iters": 10, "power": 1e9},
        {"_schedulers": [], "_milestones": []},
        {"_schedulers": [{}], "_milestones": [10**9]},
        {"milestones": {"a": 1}, "gamma": 0.1},
    ]
    from hyper_helpers import SGD, series, snapshot

    for state in hostile:
        state = {**state, "last_epoch": 50, "base_lrs": [0.1]}
        shots = [
            snapshot(step, [(SGD, ("w",))], {"lr_scheduler": {**state, "last_epoch": step}})
            for step in (50, 100, 150)
        ]
        hyper = resolve_hyper_parameters(series(shots))
        np.testing.assert_array_equal(found_rates(hyper, 50, 150), 0.1)
