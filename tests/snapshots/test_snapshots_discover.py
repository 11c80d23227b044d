"""From a folder to an ordered series, and what is left out and why."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from snapshots_helpers import save_run, small_net

from smdlens.errors import ExitCode, InputError, NothingToAnalyseError
from smdlens.snapshots import open_series


def _reasons(series: object) -> dict[str, str]:
    return {s.file: s.reason.value for s in series.skipped}  # type: ignore[attr-defined]


def test_natural_order_and_silence_about_other_files(tmp_path: Path) -> None:
    save_run(tmp_path, (9, 10, 100), "step-{step}.pt", inside=False)
    for name in (
        "config.json",
        "log.txt",
        "loss.png",
        "events.out.tfevents.1",
        ".hidden.pt",
        "a.zip",
    ):
        (tmp_path / name).write_bytes(b"PK\3\4whatever, not a checkpoint at all")
    (tmp_path / "optimizer.pt").write_bytes(b"x")
    series = open_series(tmp_path)
    assert series.steps == (9, 10, 100) and series.skipped == ()
    assert series.snapshots[0].files == ("step-9.pt",) and series.axis == "steps"


def test_formats_are_recognised_by_content(tmp_path: Path) -> None:
    save_run(tmp_path, (1, 2), "ckpt_{step}.weird")
    save_file(small_net().state_dict(), tmp_path / "model-step3.pt")
    series = open_series(tmp_path)
    assert [s.format for s in series.snapshots] == ["torch-zip", "torch-zip", "safetensors"]


def test_unfinished_and_foreign_files(tmp_path: Path) -> None:
    save_run(tmp_path, (1, 2, 3, 4))
    whole = (tmp_path / "ckpt_3.pt").read_bytes()
    (tmp_path / "ckpt_5.pt").write_bytes(whole[:2000])
    (tmp_path / "ckpt_2.pt").write_bytes(whole[:2000])
    (tmp_path / "ckpt_6.pt").touch()
    for name in ("ckpt_7.pt.tmp", "step-100.tmp", "ckpt_8.safetensors.part", "tmp-ckpt_9.pt"):
        (tmp_path / name).write_bytes(whole)
    (tmp_path / "notes.tmp").write_bytes(b"")
    (tmp_path / "model.onnx").write_bytes(b"\x08\x07" + b"x" * 500)
    torch.save({"rng": torch.get_rng_state()}, tmp_path / "state_2.pt")
    os.mkfifo(tmp_path / "ckpt_10.pt")
    series = open_series(tmp_path)
    assert series.steps == (1, 3, 4)
    assert _reasons(series) == {
        "ckpt_2.pt": "unreadable",
        "ckpt_5.pt": "unfinished",
        "ckpt_6.pt": "unfinished",
        "ckpt_7.pt.tmp": "unfinished",
        "ckpt_8.safetensors.part": "unfinished",
        "ckpt_10.pt": "unreadable",
        "model.onnx": "not_a_checkpoint",
        "state_2.pt": "not_a_checkpoint",
        "step-100.tmp": "unfinished",
        "tmp-ckpt_9.pt": "unfinished",
    }


def test_copies_and_duplicates_of_a_step(tmp_path: Path) -> None:
    save_run(tmp_path, (1, 2, 3))
    shutil.copy(tmp_path / "ckpt_3.pt", tmp_path / "last.pt")
    shutil.copy(tmp_path / "ckpt_2.pt", tmp_path / "best.pt")
    (tmp_path / "latest.pt").symlink_to("ckpt_3.pt")
    save_run(tmp_path, (2,), "a_{step}.pt", optimizer=False)
    series = open_series(tmp_path)
    assert series.steps == (1, 2, 3)
    assert [s.files for s in series.snapshots] == [("ckpt_1.pt",), ("ckpt_2.pt",), ("ckpt_3.pt",)]
    assert _reasons(series) == {
        "a_2.pt": "duplicate_step",
        "best.pt": "best_or_last_copy",
        "last.pt": "best_or_last_copy",
        "latest.pt": "best_or_last_copy",
    }
    assert series.notes == ()


def test_other_weights_of_one_step_are_a_restart(tmp_path: Path) -> None:
    save_run(tmp_path, (1, 2))
    save_run(tmp_path, (2,), "again_{step}.pt", seed=1)
    series = open_series(tmp_path)
    assert [s.files for s in series.snapshots] == [("ckpt_1.pt",), ("again_2.pt",)]
    assert len(series.notes) == 1 and series.notes[0].startswith("restart: again_2.pt and ckpt_2")


def test_two_runs_in_one_folder_are_one_note(tmp_path: Path) -> None:
    save_run(tmp_path, (1, 2, 3))
    save_run(tmp_path, (1, 2, 3), "again_{step}.pt", seed=1)
    series = open_series(tmp_path)
    assert [s.files for s in series.snapshots] == [(f"again_{n}.pt",) for n in (1, 2, 3)]
    (note,) = series.notes
    assert note.startswith("restart: again_1.pt and ckpt_1.pt are both of step 1")
    assert "at 2 more steps" in note and "two runs" in note


def test_a_last_file_is_used_when_no_other_has_its_step(tmp_path: Path) -> None:
    save_run(tmp_path, (1, 2))
    save_run(tmp_path, (5,), "last.ckpt")
    assert open_series(tmp_path).steps == (1, 2, 5)


def test_folders_that_carry_the_step(tmp_path: Path) -> None:
    save_run(tmp_path / "ckpts", (5, 10, 20), "step{step}/model.pt", inside=False)
    series = open_series(tmp_path)
    assert series.steps == (5, 10, 20)
    assert series.snapshots[0].files == ("ckpts/step5/model.pt",)
    assert series.snapshots[0].step_source == "name 'step5'"


def test_two_sequences_are_an_ambiguity(tmp_path: Path) -> None:
    save_run(tmp_path / "version_0" / "checkpoints", (1, 2), "epoch=0-step={step}.ckpt")
    save_run(tmp_path / "version_1" / "checkpoints", (1, 2, 3), "epoch=0-step={step}.ckpt")
    with pytest.raises(InputError, match=r"version_0/checkpoints, version_1/checkpoints") as caught:
        open_series(tmp_path)
    assert caught.value.exit_code == ExitCode.USAGE
    files = sorted((tmp_path / "version_1" / "checkpoints").iterdir())
    assert open_series(files).steps == (1, 2, 3)
    assert open_series(tmp_path / "version_0").steps == (1, 2)


def test_depth_is_limited(tmp_path: Path) -> None:
    save_run(tmp_path / "a" / "b" / "c", (1, 2))
    assert open_series(tmp_path).steps == (1, 2)
    with pytest.raises(NothingToAnalyseError):
        open_series_of_deeper = tmp_path / "deep"
        save_run(open_series_of_deeper / "a" / "b" / "c" / "d", (1, 2))
        open_series(open_series_of_deeper)


def test_links_in_circles_are_walked_once(tmp_path: Path) -> None:
    save_run(tmp_path / "a", (1, 2))
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "a")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "dangling").symlink_to("nowhere")
    assert open_series(tmp_path).steps == (1, 2)


def test_tensors_of_another_network(tmp_path: Path) -> None:
    save_run(tmp_path, (1, 2, 3, 4))
    content = torch.load(tmp_path / "ckpt_1.pt", weights_only=True)
    content["model"]["6.weight"] = torch.zeros(10, 24)
    torch.save(content, tmp_path / "ckpt_1.pt")
    torch.save({"model": {"other": torch.ones(3)}, "step": 9}, tmp_path / "ckpt_9.pt")
    content = torch.load(tmp_path / "ckpt_3.pt", weights_only=True)
    content["model"]["extra"] = torch.zeros(4)
    torch.save(content, tmp_path / "ckpt_3.pt")
    series = open_series(tmp_path)
    assert series.steps == (2, 3, 4)
    assert _reasons(series) == {"ckpt_1.pt": "different_tensors", "ckpt_9.pt": "different_tensors"}
    assert "(10, 24)" in series.skipped[0].detail
    assert len({tuple(s.tensors) for s in series.snapshots}) == 1
    assert "'extra'" in series.notes[-1]


def test_a_head_replaced_half_way_leaves_the_rest_of_the_run(tmp_path: Path) -> None:
    save_run(tmp_path, (1, 2, 3, 4))
    for step in (1, 2):
        content = torch.load(tmp_path / f"ckpt_{step}.pt", weights_only=True)
        content["model"]["6.weight"] = torch.zeros(100, 24)
        torch.save(content, tmp_path / f"ckpt_{step}.pt")
    series = open_series(tmp_path)
    assert series.steps == (1, 2, 3, 4) and not series.skipped
    assert all("6.weight" not in s.tensors and "0.weight" in s.tensors for s in series.snapshots)
    assert (
        "1 tensor not analysed, of another shape" in series.notes[-1]
        and "'6.weight'" in series.notes[-1]
    )


def test_a_weights_key_that_only_some_files_have(tmp_path: Path) -> None:
    save_run(tmp_path, (1, 2))
    save_run(tmp_path, (3, 4), ema=small_net().state_dict())
    series = open_series(tmp_path, weights_key="ema")
    assert series.steps == (3, 4) and set(_reasons(series).values()) == {"different_tensors"}
    with pytest.raises(InputError, match="no such weight tree"):
        open_series(tmp_path, weights_key="nope")


def test_nothing_to_analyse_says_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(NothingToAnalyseError, match="no such file or folder") as caught:
        open_series(tmp_path / "absent")
    assert caught.value.exit_code == ExitCode.NOTHING_ANALYSED
    with pytest.raises(NothingToAnalyseError, match="0 usable snapshots"):
        open_series(tmp_path)
    save_run(tmp_path, (7,))
    (tmp_path / "ckpt_3.pt").write_bytes((tmp_path / "ckpt_7.pt").read_bytes()[:999])
    with pytest.raises(NothingToAnalyseError) as caught:
        open_series(tmp_path)
    text = str(caught.value)
    assert "one usable snapshot (ckpt_7.pt)" in text and "1 skipped as unreadable" in text
    for option in ("save_top_k=-1", "save_total_limit", "--checkpoint-hist"):
        assert option in text
    assert open_series(tmp_path, minimum=1).steps == (7,)
    assert open_series(tmp_path / "ckpt_7.pt", minimum=1).steps == (7,)


def test_a_list_may_not_hold_a_run_folder(tmp_path: Path) -> None:
    save_run(tmp_path / "a", (1, 2))
    save_run(tmp_path / "b", (3, 4))
    with pytest.raises(InputError, match="must be one checkpoint"):
        open_series([tmp_path / "a", tmp_path / "b"])
    both = open_series([*(tmp_path / "a").iterdir(), *(tmp_path / "b").iterdir()])
    assert both.steps == (1, 2, 3, 4) and both.snapshots[3].files == ("b/ckpt_4.pt",)


def test_many_snapshots_open_quickly_and_share_names(tmp_path: Path) -> None:
    save_run(tmp_path, (1,))
    content = torch.load(tmp_path / "ckpt_1.pt", weights_only=True)
    for step in range(2, 65):
        torch.save({**content, "step": step}, tmp_path / f"ckpt_{step}.pt")
    series = open_series(tmp_path)
    assert series.steps == tuple(range(1, 65))
    first, last = series.snapshots[0], series.snapshots[-1]
    assert all(a is b for a, b in zip(first.tensors, last.tensors, strict=True))


def test_two_formats_in_one_folder_are_told_apart(tmp_path: Path) -> None:
    save_run(tmp_path, (1, 2), "ckpt_{step}.pt")
    for step in (1, 2):
        save_file({"0.weight": torch.ones(3, 3)}, tmp_path / f"ckpt_{step}.safetensors")
    with pytest.raises(InputError) as caught:
        open_series(tmp_path)
    text = str(caught.value)
    assert "torch.save (ckpt_1.pt ...)" in text and "safetensors (ckpt_1.safetensors ...)" in text
    assert len(open_series(sorted(tmp_path.glob("*.pt"))).snapshots) == 2
