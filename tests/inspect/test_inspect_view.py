"""What inspect shows, on a terminal and as JSON, against what torch.save was given."""

import argparse
import math

import pytest
import torch
from inspect_helpers import blocks, json_of, text_of

from smdlens.errors import InputError, SnapshotError
from smdlens.report.inspection import inspect_checkpoint


def save(path, net=None, **extra):
    net = net or blocks()
    groups = [
        {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in net.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    sgd = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    sgd.step()
    torch.save({"model": net.state_dict(), "optimizer": sgd.state_dict(), **extra}, path)
    return net, sgd


def test_everything_of_note_is_shown(tmp_path):
    path = tmp_path / "ckpt.pt"
    ema = blocks().state_dict()
    args = argparse.Namespace(opt="sgd", lr=0.1, weight_decay=0.05, momentum=0.9)
    net, _ = save(path, step=1200, epoch=3, ema=ema, args=args, best_acc=71.25)
    text = text_of(path, width=120)
    elements = sum(t.numel() for t in net.state_dict().values())
    for part in (
        "torch-zip", "step 1,200 (key 'step')", "epoch 3", f"{elements:,} elements",
        "averaged weights left aside: 'ema'", "8×8×3×3", "sgd, L2 decay", "momentum of 20",
        "group 0: lr 0.1, weight decay 0.05, momentum 0.9, nesterov True, 6 tensors",
        "group 1: lr 0.1, weight decay 0, momentum 0.9, nesterov True, 14 tensors",
        "'args' in the checkpoints: optimizer sgd", "best_acc 71.25",
    ):  # fmt: skip
        assert part in text, part
    # Four alike layers are one line and its one block, not four.
    assert text.count("0–3") == 1 and "4 alike, 28 tensors" in text
    assert "!" not in text


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_nothing_is_wider_than_the_terminal(tmp_path, width, encoding):
    path = tmp_path / "ckpt.pt"
    save(path, step=5, config={"a_rather_long_key_of_a_configuration": "x" * 300})
    text = text_of(path, width=width, encoding=encoding)
    assert max(map(len, text.splitlines())) <= width


HOSTILE = [
    "\x1b[31mred\x1b[0m.weight", "a\nb.weight", "[bold]markup[/bold].weight", "::error::x.weight",
    "\u202egnp.weight", "x" * 5000, ".".join("a" * 400), "", ".", "a..b",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_harmless(tmp_path, name):
    path = tmp_path / "ckpt.pt"
    torch.save(
        {"model": {name: torch.ones(2, 2), "fc.weight": torch.ones(2)}, name: "v\x1b[2J"}, path
    )
    text = text_of(path)
    assert not any((ord(c) < 32 and c != "\n") or c in "\x1b\u202e" for c in text)
    assert "::error" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert name in [t["name"] for t in json_of(path)["tensors"]] or name in ("", ".")


def test_many_lines_are_cut_and_all_shown_on_request(tmp_path):
    path = tmp_path / "ckpt.pt"
    torch.save({f"tensor_{i}_{'ab'[i % 2]}": torch.ones(2, i + 1) for i in range(300)}, path)
    assert "200 lines more" in text_of(path)
    assert text_of(path, verbose=True).count("tensor_") == 300


def test_json_holds_what_torch_saved(tmp_path):
    path = tmp_path / "ckpt.pt"
    net, sgd = save(path, step=7, loss=float("nan"), history=list(range(1000)))
    found = json_of(path)
    state = net.state_dict()
    assert [t["name"] for t in found["tensors"]] == list(state)
    for entry in found["tensors"]:
        value = state[entry["name"]]
        assert entry["shape"] == list(value.shape)
        assert entry["dtype"] == str(value.dtype).removeprefix("torch.")
        assert entry["bytes"] == value.numel() * value.element_size()
    named = {n for n, _ in net.named_parameters()}
    assert {t["name"] for t in found["tensors"] if t["slots"] == ["momentum"]} == named
    optimizer = found["optimizer"]
    assert optimizer["kind"] == "sgd" and optimizer["parameters"] == len(named)
    for group, saved in zip(optimizer["groups"], sgd.state_dict()["param_groups"], strict=True):
        for key in ("lr", "momentum", "weight_decay", "nesterov"):
            assert group["values"][key] == saved[key]
        assert group["count"] == len(saved["params"])
    assert found["step"] == 7 and found["schema_version"] == "1.0"
    assert found["scalars"]["loss"] is None and found["scalars"]["history"] == {"items": 1000}
    assert found["files"] == [{"file": "ckpt.pt", "bytes": path.stat().st_size}]


def test_another_tree_can_be_asked_for(tmp_path):
    path = tmp_path / "ckpt.pt"
    save(path, step=7, ema={"w": torch.ones(3, 3)})
    assert json_of(path, weights="ema")["weights"]["key"] == "ema"
    with pytest.raises(InputError, match="no such weight tree"):
        inspect_checkpoint(str(path), weights="nothing")


def test_a_run_folder_is_answered_with_its_checkpoints(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path / f"ckpt_{step}.pt", step=step)
    with pytest.raises(InputError, match=r"3 of them: ckpt_1.pt, ckpt_2.pt, ckpt_3.pt"):
        inspect_checkpoint(str(tmp_path))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SnapshotError, match="not a checkpoint format"):
        inspect_checkpoint(str(empty))


def test_what_is_contradicted_or_undecided_is_said(tmp_path):
    path = tmp_path / "old.pt"
    net = torch.nn.Linear(3, 2)
    adam = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=0.1)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    adam.step()
    state = adam.state_dict()
    del state["param_groups"][0]["decoupled_weight_decay"]  # as before torch 2.6
    torch.save({"model": net.state_dict(), "optimizer": state}, path)
    assert "Give --optimizer adam or --optimizer adamw" in " ".join(text_of(path).split())
    torch.save({"model": net.state_dict(), "optimizer": state, "args": {"opt": "adamw"}}, path)
    found = json_of(path)
    assert found["optimizer"]["kind"] == "adamw" and found["notes"] == []
    assert "'args' in the checkpoints: adamw" in found["optimizer"]["source"]
    args = {"opt": "adamw", "weight_decay": 0.3}
    torch.save({"model": net.state_dict(), "optimizer": state, "args": args}, path)
    (note,) = json_of(path)["notes"]
    assert note["rule"] == "SMD010" and "0.3" in note["message"] and "0.1" in note["message"]
    assert math.isclose(json_of(path)["settings"][0]["weight_decay"], 0.3)


VALUES = [
    float("nan"), 10**400, -1, "x" * 10_000, "\x1b[2J\u202e", b"\xff" * 50, None, [[[[[[1]]]]]], {},
    {"lr": {"lr": "\x1b"}}, {1: {2.5: {None: 3}}}, [float("inf")], ("a", True), 1e308,
    {"a\nb": "c\nd"},
]  # fmt: skip
PLACES = [
    "step",
    "epoch",
    "args",
    "hyper_parameters",
    "trainer_state",
    "lr_scheduler",
    "meta",
    "config",
]


@pytest.mark.parametrize("at", range(len(VALUES)))
def test_hostile_values_are_shown_safely_or_left_out(tmp_path, at):
    """Every odd value at every place that is interpreted: one clean page and strict JSON."""
    import json

    from smdlens.report.inspection_json import dumps

    path, value = tmp_path / "ckpt.pt", VALUES[at]
    net = torch.nn.Linear(3, 2)
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for key in ("lr", "momentum", "weight_decay", "nesterov", "betas"):
        state = sgd.state_dict()
        state["param_groups"][0][key] = value
        content = {"model": net.state_dict(), "optimizer": state}
        for number, place in enumerate(PLACES):
            content[place] = (
                value if number % 2 == at % 2 else {"lr": value, "opt": value, key: value}
            )
        torch.save(content, path)
        text = text_of(path)
        assert max(map(len, text.splitlines())) <= 80
        assert not any((ord(c) < 32 and c != "\n") or c == "\u202e" for c in text)
        found = dumps(inspect_checkpoint(str(path)))
        json.loads(found, parse_constant=lambda name: pytest.fail(name))
