"""Comparisons of an opened run with what torch.load finds in the same files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "snapshots"))

from snapshots_helpers import read_tensor, small_net

__all__ = ["check_rates", "check_slots", "check_weights", "load_rates", "small_net"]

SLOTS = {
    "momentum": "momentum_buffer",
    "first_moment": "exp_avg",
    "second_moment": "exp_avg_sq",
}


def equal_bits(ref, tensor):
    ours, theirs = read_tensor(ref).contiguous(), tensor.detach().contiguous()
    return (
        ours.shape == theirs.shape
        and ours.dtype == theirs.dtype
        and torch.equal(ours.reshape(-1).view(torch.uint8), theirs.reshape(-1).view(torch.uint8))
    )


def check_weights(snapshot, state, prefix=""):
    """Every tensor of a state dict, bit for bit, and no other."""
    assert {prefix + name for name in snapshot.tensors} == set(state)
    for name, ref in snapshot.tensors.items():
        assert equal_bits(ref, state[prefix + name]), name


def check_slots(snapshot, optimizer_state, order, *, complete=True):
    """Every buffer that was mapped is that of its parameter.

    Args:
        snapshot: The snapshot.
        optimizer_state: What torch loads.
        order: Parameter names in the order of the optimizer's indices.
        complete: Every parameter must have been mapped.
    """
    slots = snapshot.optimizer.slots
    assert slots
    for index, name in enumerate(order):
        if name not in slots:
            assert not complete, name
            continue
        held = optimizer_state["state"][index]
        for slot, ref in slots[name].items():
            assert equal_bits(ref, held[SLOTS[str(slot)]]), (name, slot)
    for group, saved in zip(
        snapshot.optimizer.groups, optimizer_state["param_groups"], strict=True
    ):
        for key in ("lr", "weight_decay", "momentum", "betas", "eps", "nesterov"):
            if key in saved:
                assert group.values[key] == saved[key]
        if group.names is not None:
            assert set(group.names) == {order[i] for i in saved["params"]}


def check_rates(hyper, rates, start, stop, *, rtol=1e-9):
    """The rate of every update of every group as it was used.

    Args:
        hyper: Resolved hyper-parameters.
        rates: Array or nested list [updates][groups].
        start: First update.
        stop: One past the last.
        rtol: Relative tolerance, of the largest rate.
    """
    used = np.array(rates)[start:stop]
    for at in range(used.shape[1]):
        found = hyper.rates(at, start, stop)[0]
        np.testing.assert_allclose(found, used[:, at], rtol=rtol, atol=rtol * used[:, at].max())


def load_rates(folder):
    return json.loads((folder / "rates.json").read_text())
