"""Which weights of a file are analysed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from snapshots_helpers import save_run, small_net

from smdlens.errors import InputError
from smdlens.snapshots import open_series, open_snapshot
from smdlens.snapshots.weight_trees import canonical_names, find_trees, is_averaged_name


@pytest.mark.parametrize(
    "key", ["", "state_dict", "model", "net", "a.b", "trainer.model", "weights", "1"]
)
def test_trees_are_found_where_trainers_put_them(tmp_path: Path, key: str) -> None:
    content = small_net().state_dict()
    for part in reversed(key.split(".") if key else []):
        content = {part: content, "epoch": 3}
    path = tmp_path / "a.pt"
    torch.save(content, path)
    snapshot = open_snapshot(path)
    assert snapshot.tree_key == key and len(snapshot.tensors) == 15
    assert snapshot.tree_note == "the only weight tree"


def test_averaged_weights_are_never_chosen_unasked(tmp_path: Path) -> None:
    net, path = small_net(), tmp_path / "a.pt"
    for key in ("ema", "model_ema", "state_dict_ema", "ema_state_dict", "swa_model", "avg_net"):
        torch.save({key: net.state_dict(), "zzz": net.state_dict()}, path)
        snapshot = open_snapshot(path)
        assert snapshot.tree_key == "zzz" and snapshot.trees == (
            (key, 15, True),
            ("zzz", 15, False),
        )
    assert open_snapshot(path, weights_key="avg_net").tree_key == "avg_net"
    with pytest.raises(InputError, match=r"no such weight tree.*'avg_net', 'zzz'"):
        open_snapshot(path, weights_key="nope")


def test_averaged_model_and_teacher(tmp_path: Path) -> None:
    net, path = small_net(), tmp_path / "a.pt"
    averaged = torch.optim.swa_utils.AveragedModel(net)
    torch.save({"first": averaged.state_dict(), "second": net.state_dict()}, path)
    snapshot = open_snapshot(path)
    assert snapshot.tree_key == "second" and snapshot.trees[0] == ("first", 16, True)
    torch.save({"teacher": net.state_dict(), "student": net.state_dict()}, path)
    assert open_snapshot(path).tree_key == "student"


def test_a_file_of_averaged_weights_only_is_skipped(tmp_path: Path) -> None:
    net = save_run(tmp_path, (1, 2))
    torch.save({"ema": net.state_dict()}, tmp_path / "ckpt_3.pt")
    save_run(tmp_path, (4,), "ckpt_{step}_ema.pt")
    series = open_series(tmp_path)
    assert series.steps == (1, 2)
    assert [(s.file, s.reason.value) for s in series.skipped] == [
        ("ckpt_3.pt", "averaged"),
        ("ckpt_4_ema.pt", "averaged"),
    ]


def test_words_that_mean_averaging() -> None:
    for yes in ("ema", "model_ema", "EMA.module", "swa", "x_averaged", "polyak-model", "ema_0.999"):
        assert is_averaged_name(yes), yes
    for no in ("schema", "emanuel", "model", "swap", "emb", "remap", "teams"):
        assert not is_averaged_name(no), no


def test_canonical_names() -> None:
    assert canonical_names(["module.a", "module.module.b"]) == {
        "module.a": "a",
        "module.module.b": "module.b",
    }
    assert canonical_names(["model._orig_mod.a.weight"]) == {
        "model._orig_mod.a.weight": "model.a.weight"
    }
    deep = "_fsdp_wrapped_module.l.0._checkpoint_wrapped_module._orig_mod.w"
    assert canonical_names([deep]) == {deep: "l.0.w"}
    assert canonical_names(["module.a", "b"]) == {"module.a": "module.a", "b": "b"}
    collide = ["a._orig_mod.w", "a.w"]
    assert canonical_names(collide) == {n: n for n in collide}


def test_shared_and_cyclic_structures_are_walked_once() -> None:
    cyclic: dict[str, object] = {}
    cyclic |= {str(i): cyclic for i in range(50)}
    assert find_trees(cyclic) == []
    level: list[object] = []
    for _ in range(60):
        level = [level] * 50
    assert find_trees(level) == []
