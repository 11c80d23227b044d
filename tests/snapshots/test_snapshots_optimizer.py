"""Optimizer buffers under the names of the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from snapshots_helpers import same, save_run, small_net, train

from smdlens.snapshots import open_series, open_snapshot


def _save(path: Path, net: torch.nn.Module, optimizer: torch.optim.Optimizer, **more: Any) -> None:
    torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict(), **more}, path)


def _check(path: Path, net: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Any:
    record = open_snapshot(path).optimizer
    assert record is not None
    for name, parameter in net.named_parameters():
        if parameter in optimizer.state:
            buffer = optimizer.state[parameter]["momentum_buffer"]
            assert same(record.slots[name]["momentum"], buffer), name
        else:
            assert name not in record.slots
    return record


def _decay_groups(net: torch.nn.Module) -> list[dict[str, Any]]:
    return [
        {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": 1e-2},
        {"params": [p for p in net.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]


def test_two_groups_by_order_and_shape(tmp_path: Path) -> None:
    net = small_net()
    sgd = torch.optim.SGD(_decay_groups(net), lr=0.1, momentum=0.9)
    train(net, sgd, 2)
    _save(tmp_path / "a.pt", net, sgd)
    record = _check(tmp_path / "a.pt", net, sgd)
    names = [n for n, p in net.named_parameters()]
    matrices = tuple(n for n, p in net.named_parameters() if p.ndim > 1)
    assert record.note == "order and shape"
    assert record.groups[0].names == matrices
    assert set(record.groups[1].names) == set(names) - set(matrices)
    assert [g.values["weight_decay"] for g in record.groups] == [1e-2, 0.0]


def test_frozen_parameters_leave_gaps(tmp_path: Path) -> None:
    net = small_net()
    net[0].weight.requires_grad_(False)
    net[4].bias.requires_grad_(False)
    trained = [p for p in net.parameters() if p.requires_grad]
    sgd = torch.optim.SGD(trained, lr=0.1, momentum=0.9)
    train(net, sgd, 2)
    _save(tmp_path / "a.pt", net, sgd)
    record = open_snapshot(tmp_path / "a.pt").optimizer
    assert record is not None
    # What is found is right; a gap next to an equal shape stays open rather than guessed.
    for name, slots in record.slots.items():
        parameter = dict(net.named_parameters())[name]
        assert same(slots["momentum"], sgd.state[parameter]["momentum_buffer"])
    assert {"3.weight", "6.weight", "6.bias"} <= set(record.slots)
    assert "0.weight" not in record.slots and "ambiguous" in record.note


def test_groups_in_another_order_than_the_model(tmp_path: Path) -> None:
    net = small_net()
    head = list(net[6].parameters())
    body = [p for m in net[:6] for p in m.parameters()]
    sgd = torch.optim.SGD([{"params": head, "lr": 1.0}, {"params": body}], lr=0.1, momentum=0.9)
    train(net, sgd, 2)
    _save(tmp_path / "a.pt", net, sgd)
    record = _check(tmp_path / "a.pt", net, sgd)
    assert record.groups[0].names == ("6.weight", "6.bias")
    assert record.groups[0].values["lr"] == 1.0


def test_param_names_win_over_order(tmp_path: Path) -> None:
    net = small_net()
    named = list(net.named_parameters())[::-1]
    sgd = torch.optim.SGD(named, lr=0.1, momentum=0.9)
    train(net, sgd, 2)
    _save(tmp_path / "a.pt", net, sgd)
    assert _check(tmp_path / "a.pt", net, sgd).note == "param_names"
    # Names of a wrapped model beside weights of the inner one, and the other way round.
    wrapped = torch.nn.ModuleDict({"model": net})
    sgd = torch.optim.SGD(wrapped.named_parameters(), lr=0.1, momentum=0.9)
    train(net, sgd, 1)
    _save(tmp_path / "b.pt", net, sgd)
    _check(tmp_path / "b.pt", net, sgd)
    sgd = torch.optim.SGD(net.named_parameters(), lr=0.1, momentum=0.9)
    train(net, sgd, 1)
    torch.save(
        {"state_dict": wrapped.state_dict(), "optimizer_states": [sgd.state_dict()]},
        tmp_path / "c.ckpt",
    )
    record = open_snapshot(tmp_path / "c.ckpt").optimizer
    assert record is not None and record.key == "optimizer_states.0"
    assert list(record.slots) == [n for n, _ in wrapped.named_parameters()]


def test_tied_weights_are_one_parameter(tmp_path: Path) -> None:
    net = small_net()
    net.add_module("head", torch.nn.Linear(24, 5))
    net.head.weight = net[6].weight
    assert len(net.state_dict()) == 17
    sgd = torch.optim.SGD(list(net.parameters()), lr=0.1, momentum=0.9)
    for parameter in net.parameters():
        parameter.grad = torch.randn_like(parameter)
    sgd.step()
    _save(tmp_path / "a.pt", net, sgd)
    _check(tmp_path / "a.pt", net, sgd)


def test_the_optimizer_points_to_its_weights(tmp_path: Path) -> None:
    net, other = small_net(0), torch.nn.Sequential(torch.nn.Linear(300, 40), torch.nn.Linear(40, 9))
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    train(net, sgd, 1)
    path = tmp_path / "a.pt"
    torch.save(
        {
            "discriminator": other.state_dict(),
            "generator": net.state_dict(),
            "ema": net.state_dict(),
            "opt_g": sgd.state_dict(),
        },
        path,
    )
    snapshot = open_snapshot(path)
    assert snapshot.tree_key == "generator"
    assert "'opt_g' belongs to it" in snapshot.tree_note and "'ema'" in snapshot.tree_note
    assert open_snapshot(path, weights_key="discriminator").optimizer is None or not (
        open_snapshot(path, weights_key="discriminator").optimizer.slots  # type: ignore[union-attr]
    )


def test_of_several_optimizers_the_fitting_one_is_taken(tmp_path: Path) -> None:
    net, other = small_net(0), torch.nn.Linear(300, 40)
    adam = torch.optim.Adam(other.parameters())
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    train(net, sgd, 2)
    path = tmp_path / "last.ckpt"
    torch.save(
        {"state_dict": net.state_dict(), "optimizer_states": [adam.state_dict(), sgd.state_dict()]},
        path,
    )
    record = open_snapshot(path).optimizer
    assert record is not None and record.key == "optimizer_states.1" and len(record.slots) == 9


def test_a_pickled_optimizer_object_gives_its_name(tmp_path: Path) -> None:
    net = small_net()
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    path = tmp_path / "a.pt"
    torch.save({"model": net.state_dict(), "optimizer": sgd}, path)
    record = open_snapshot(path).optimizer
    assert record is not None and record.name == "SGD"
    assert record.groups[0].values["momentum"] == 0.9


def test_safetensors_have_no_order(tmp_path: Path) -> None:
    net = small_net()
    sgd = torch.optim.SGD(_decay_groups(net), lr=0.1, momentum=0.9)
    train(net, sgd, 2)
    folder = tmp_path / "checkpoint-2"
    folder.mkdir()
    save_file(net.state_dict(), folder / "model.safetensors")
    torch.save(sgd.state_dict(), folder / "optimizer.pt")
    (folder / "trainer_state.json").write_text('{"global_step": 2}')
    record = open_snapshot(folder).optimizer
    assert record is not None and record.note.startswith("unmapped")
    for name, slots in record.slots.items():
        parameter = dict(net.named_parameters())[name]
        assert same(slots["momentum"], sgd.state[parameter]["momentum_buffer"])
    assert set(record.slots) == {"0.weight", "3.weight", "6.weight", "6.bias"}
    # Shapes decide which group a tensor is in even where they do not decide which index it has.
    assert set(record.groups[0].names or ()) == {"0.weight", "3.weight", "6.weight"}
    assert len(record.groups[1].names or ()) == 6


def test_a_first_snapshot_without_buffers_learns_from_the_others(tmp_path: Path) -> None:
    net = small_net()
    sgd = torch.optim.SGD(_decay_groups(net), lr=0.1, momentum=0.9)
    for step in (0, 1, 2):
        _save(tmp_path / f"ckpt_{step}.pt", net, sgd, step=step)
        train(net, sgd, 1)
    assert open_snapshot(tmp_path / "ckpt_0.pt").optimizer.groups[0].names is None  # type: ignore[union-attr]
    first = open_series(tmp_path).snapshots[0].optimizer
    assert first is not None and first.slots == {}
    assert first.groups[0].names == ("0.weight", "3.weight", "6.weight")
    assert "another snapshot" in first.note


def test_shapes_that_cannot_fit_are_not_forced(tmp_path: Path) -> None:
    net = small_net()
    other = torch.nn.Linear(7, 7)
    sgd = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    other(torch.randn(2, 7)).sum().backward()
    sgd.step()
    _save(tmp_path / "a.pt", net, sgd)
    record = open_snapshot(tmp_path / "a.pt").optimizer
    assert record is not None and record.slots == {} and record.groups[0].names is None
    assert record.note.startswith("unmapped")


@pytest.mark.parametrize("step", [1, 2])
def test_plain_sgd_without_momentum(tmp_path: Path, step: int) -> None:
    save_run(tmp_path, (step,), "a.pt")
    net = small_net()
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    train(net, sgd, step)
    _save(tmp_path / "a.pt", net, sgd)
    record = open_snapshot(tmp_path / "a.pt").optimizer
    assert record is not None and record.slots == {}
    assert record.groups[0].names == tuple(n for n, _ in net.named_parameters())
