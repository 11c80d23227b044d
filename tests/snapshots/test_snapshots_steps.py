"""Steps and epochs from inside files and from their names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from snapshots_helpers import save_run, small_net, train

from smdlens.errors import NothingToAnalyseError
from smdlens.snapshots import open_series, open_snapshot
from smdlens.snapshots.steps import NamePosition, is_copy_name, natural_key, position_of_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ckpt_200.pt", NamePosition(number=200)),
        ("model-step200.safetensors", NamePosition(step=200)),
        ("checkpoint-500", NamePosition(number=500)),
        ("epoch=3-step=1200.ckpt", NamePosition(step=1200, epoch=3)),
        ("epoch=3-step=1200-v1.ckpt", NamePosition(step=1200, epoch=3)),
        ("step1000", NamePosition(step=1000)),
        ("global_step500", NamePosition(step=500)),
        ("model_12.pth", NamePosition(number=12)),
        ("epoch_12.pth", NamePosition(epoch=12)),
        ("iter_1000.pth", NamePosition(step=1000)),
        ("checkpoint-12.pth.tar", NamePosition(number=12)),
        ("ckpt-7.index", NamePosition(number=7)),
        ("0001000.pt", NamePosition(number=1000)),
        ("step=100-val_loss=0.25.ckpt", NamePosition(step=100)),
        ("Step_0042.PTH", NamePosition(step=42)),
        ("step-100.tmp", NamePosition()),
        ("step100k.pt", NamePosition()),
        ("resnet50.pth", NamePosition()),
        ("footstep.pt", NamePosition()),
        ("ckpt_1.5.pt", NamePosition()),
        ("last.ckpt", NamePosition()),
    ],
)
def test_names(name: str, expected: NamePosition) -> None:
    assert position_of_name(name) == expected


def test_natural_order_is_integer_order() -> None:
    names = ["step-10", "step-9", "step-100", "a-1", "step-9b"]
    assert sorted(names, key=natural_key) == ["a-1", "step-9", "step-9b", "step-10", "step-100"]
    assert is_copy_name("model_best.pth.tar") and is_copy_name("last.ckpt")
    assert not is_copy_name("blasted.pt") and not is_copy_name("bestiary_5.pt")


@pytest.mark.parametrize("key", ["global_step", "step", "iteration", "iter", "n_iter", "steps"])
def test_a_step_inside_wins_over_the_name(tmp_path: Path, key: str) -> None:
    path = tmp_path / "ckpt_7.pt"
    torch.save({"model": small_net().state_dict(), key: 1234}, path)
    snapshot = open_snapshot(path)
    assert (snapshot.step, snapshot.step_source) == (1234, f"key {key!r}")


@pytest.mark.parametrize(
    "bad", [True, -1, 2.5, "12", float("nan"), float("inf"), [3], None, 10**20]
)
def test_values_that_are_no_steps(tmp_path: Path, bad: object) -> None:
    path = tmp_path / "ckpt_7.pt"
    torch.save({"model": small_net().state_dict(), "step": bad}, path)
    assert open_snapshot(path).step == 7


def test_an_index_that_counts_from_zero_is_corrected_by_adam(tmp_path: Path) -> None:
    net = small_net()
    adam = torch.optim.Adam(net.parameters())
    train(net, adam, 10)
    path = tmp_path / "a.pt"
    for key, expected in ((9, 10), (10, 10), (40, 40)):
        torch.save({"model": net.state_dict(), "optimizer": adam.state_dict(), "step": key}, path)
        assert open_snapshot(path).step == expected


def _epoch_run(folder: Path, name: str = "epoch_{step}.pth", **extra: object) -> None:
    for epoch in (1, 2, 10):
        torch.save(
            {"state_dict": small_net(epoch).state_dict(), "epoch": epoch, **extra},
            folder / name.format(step=epoch),
        )


def test_epochs_alone_make_an_axis_of_epochs(tmp_path: Path) -> None:
    _epoch_run(tmp_path)
    series = open_series(tmp_path)
    assert (series.axis, series.steps) == ("epochs", (1, 2, 10))
    assert all(s.step is None for s in series.snapshots)
    converted = open_series(tmp_path, steps_per_epoch=50)
    assert (converted.axis, converted.steps) == ("steps", (50, 100, 500))
    assert converted.snapshots[0].step_source == "epoch 1 (--steps-per-epoch)"


def test_a_bare_number_that_equals_the_epoch_is_an_epoch(tmp_path: Path) -> None:
    # timm: checkpoint-12.pth.tar with arch, version 2 (epochs count from 0) and no step.
    _epoch_run(tmp_path, "checkpoint-{step}.pth.tar", arch="resnet18", version=2)
    series = open_series(tmp_path)
    assert (series.axis, series.steps) == ("epochs", (1, 2, 10))
    assert open_series(tmp_path, steps_per_epoch=50).steps == (100, 150, 550)


def test_torchvision_counts_epochs_from_zero(tmp_path: Path) -> None:
    for epoch in (0, 1):
        content = {
            "model": small_net().state_dict(),
            "lr_scheduler": {"last_epoch": epoch + 1, "_last_lr": [0.1]},
            "epoch": epoch,
        }
        torch.save(content, tmp_path / f"model_{epoch}.pth")
    assert open_series(tmp_path, steps_per_epoch=10).steps == (10, 20)


def test_files_that_hold_both_turn_epochs_into_steps(tmp_path: Path) -> None:
    save_run(tmp_path, (10, 20), "epoch_{step}.pt")
    for path, epoch in ((tmp_path / "epoch_10.pt", 1), (tmp_path / "epoch_20.pt", 2)):
        content = torch.load(path, weights_only=True)
        torch.save({**content, "epoch": epoch}, path)
    save_run(tmp_path, (5,), "epoch_{step}.pt", inside=False)
    series = open_series(tmp_path)
    assert (series.axis, series.steps) == ("steps", (10, 20, 50))
    assert any("10 steps per epoch" in note for note in series.notes)


def test_what_cannot_be_placed_is_skipped(tmp_path: Path) -> None:
    save_run(tmp_path, (1, 2))
    torch.save(small_net().state_dict(), tmp_path / "pretrained.pt")
    torch.save(small_net().state_dict(), tmp_path / "best.pt")
    torch.save({"state_dict": small_net().state_dict(), "epoch": 4}, tmp_path / "x.pt")
    series = open_series(tmp_path)
    assert series.steps == (1, 2)
    reasons = {s.file: (s.reason.value, s.detail) for s in series.skipped}
    assert reasons["best.pt"][0] == "best_or_last_copy"
    assert reasons["pretrained.pt"] == (
        "not_a_checkpoint",
        "no step inside or in its name: it cannot be placed in the run",
    )
    assert "--steps-per-epoch" in reasons["x.pt"][1]


def test_a_range_of_steps(tmp_path: Path) -> None:
    save_run(tmp_path, tuple(range(1, 9)))
    assert open_series(tmp_path, steps=(2, 6, 2)).steps == (2, 4, 6)
    assert open_series(tmp_path, steps=(None, 3, None)).steps == (1, 2, 3)
    with pytest.raises(NothingToAnalyseError, match="Widen --steps"):
        open_series(tmp_path, steps=(100, None, None))
