"""Programs of paddle.jit.save, held against what scaling does in PaddlePaddle."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

import smdlens
from smdlens.errors import GraphError, SmdlensError
from smdlens.snapshots import open_series
from smdlens.symmetry.find import find_scale_groups
from smdlens.symmetry.from_paddle import graph_of_paddle, with_file_names
from smdlens.symmetry.records import TensorSymmetry
from smdlens.symmetry.scale_symmetry import symmetry_of_graph
from smdlens.vocabulary import Role

GOLDEN = Path(__file__).parent.parent / "golden"
TRUTH = json.loads((GOLDEN / "paddle_graphs" / "truth.json").read_text())
INVARIANT = (Role.SCALE_INVARIANT, Role.IRRELEVANT)


def _content(name: str) -> Any:
    return json.loads(gzip.decompress((GOLDEN / "paddle_graphs" / f"{name}.json.gz").read_bytes()))


def _solved(tmp_path: Path, name: str, content: Any) -> dict[str, TensorSymmetry]:
    (tmp_path / "net.json").write_text(json.dumps(content))
    graph = graph_of_paddle(tmp_path / "net.json")
    return dict(symmetry_of_graph(with_file_names(graph, TRUTH[name]["names"])).tensors)


@pytest.mark.parametrize("name", TRUTH)
def test_every_tensor_against_scaling_in_paddle(tmp_path: Path, name: str) -> None:
    found = _solved(tmp_path, name, _content(name))
    truth = TRUTH[name]["invariant"]
    assert {n: t.role in INVARIANT for n, t in found.items()} == truth
    assert sum(truth.values()) >= 3 and len(truth) - sum(truth.values()) >= 18


def test_roles_in_a_residual_network(tmp_path: Path) -> None:
    found = _solved(tmp_path, "residual", _content("residual"))
    deep = found["deep.weight"]
    assert (deep.role, deep.groups, deep.axis) == (Role.SCALE_INVARIANT, 6, 0)
    assert deep.norm is not None
    assert (deep.norm.gamma, deep.norm.running_var) == ("bn2.weight", "bn2._variance")
    assert found["left.weight"].joint_with == ("right.weight",), "branches that meet in a sum"
    dense = found["dense.weight"]
    assert (dense.shape, dense.joint_with) == ((5, 4), ("dense.bias",)), "output first"
    assert found["free.weight"].role == Role.NOT_SCALE_INVARIANT


def test_a_run_with_its_program() -> None:
    run = GOLDEN / "one_network"
    groups = find_scale_groups(open_series(run / "paddle"), graph=run / "paddle_program.json")
    assert groups.source == "graph"
    conv = groups.tensors["conv2.weight"]
    assert (conv.role, conv.groups) == (Role.SCALE_INVARIANT, 8)
    assert conv.norm is not None and conv.norm.running_var == "bn2.running_var"
    said = smdlens.scale_symmetry(run / "paddle_program.json")
    assert said.tensors["conv2d_0.w_0"].role == Role.SCALE_INVARIANT, "its own names without a run"


def _operators(content: Any) -> list[Any]:
    found: list[Any] = content["program"]["regions"][0]["blocks"][0]["ops"]
    return found


def test_an_unknown_operator_sees_every_scale(tmp_path: Path) -> None:
    content = _content("residual")
    for operator in _operators(content):
        if operator["#"] == "1.relu":
            operator["#"] = "1.unheard"
    found = _solved(tmp_path, "residual", content)
    assert found["stem.weight"].role == Role.SCALE_INVARIANT, "in front of a norm all the same"
    assert found["bn1.weight"].role == Role.NOT_SCALE_INVARIANT
    content = _content("residual")
    for operator in _operators(content):
        if operator["#"] == "1.batch_norm_":
            operator["#"] = "1.unheard"
    found = _solved(tmp_path, "residual", content)
    assert not any(found[n].role in INVARIANT for n in ("stem.weight", "deep.weight", "deep.bias"))


def test_a_frozen_norm_keeps_the_scale(tmp_path: Path) -> None:
    content = _content("residual")
    names = TRUTH["residual"]["names"]
    for operator in _operators(content):
        if operator["#"] == "p" and names[operator["A"][3]] in ("bn1.weight", "bn1.bias"):
            operator["OA"] = [1, 1, 0]
    found = _solved(tmp_path, "residual", content)
    assert found["stem.weight"].role == Role.NOT_SCALE_INVARIANT
    assert found["deep.weight"].role == Role.SCALE_INVARIANT


def test_values_used_in_a_region_count(tmp_path: Path) -> None:
    content = _content("residual")
    operators = _operators(content)
    inner = next(o for o in operators if o["#"] == "1.conv2d")
    fetch = operators[-1]
    branch = {
        "#": "1.if", "A": [], "I": [], "O": [{**inner["O"][0], "%": 9001}],
        "regions": [{"blocks": [{"ops": [{"#": "1.relu", "I": [{"%": inner["O"][0]["%"]}]}]}]}],
    }  # fmt: skip
    second = {**fetch, "I": [{"%": 9001}], "O": [{**fetch["O"][0], "%": 9002}]}
    operators += [branch, second]
    found = _solved(tmp_path, "residual", content)
    assert found["stem.weight"].role == Role.NOT_SCALE_INVARIANT


@pytest.mark.parametrize(
    "change",
    [{"program": 3}, {"program": {"regions": []}},
     {"program": {"regions": [{"blocks": [{"ops": [{"#": "1.relu"}]}]}]}},
     {"program": {"regions": [{"blocks": [{"ops": []}]}]}}],
)  # fmt: skip
def test_programs_that_are_not_sound(tmp_path: Path, change: dict[str, Any]) -> None:
    (tmp_path / "net.json").write_text(json.dumps({**_content("residual"), **change}))
    with pytest.raises(GraphError) as caught:
        smdlens.scale_symmetry(tmp_path / "net.json")
    assert str(tmp_path / "net.json") in str(caught.value)


def test_cut_and_mutated_programs(tmp_path: Path) -> None:
    path = tmp_path / "net.json"
    text = json.dumps(_content("residual"))
    for cut in range(200, len(text) - 1, len(text) // 60):
        path.write_text(text[:cut])
        with pytest.raises(GraphError) as caught:
            smdlens.scale_symmetry(path)
        assert str(path) in str(caught.value)
    draw = random.Random(0)
    refused = 0
    for _ in range(150):
        content = _content("residual")
        for _ in range(draw.choice((1, 4))):
            _broken(content, draw)
        path.write_text(json.dumps(content))
        try:
            smdlens.scale_symmetry(path)
        except SmdlensError:
            refused += 1
    assert refused > 15


def _broken(content: Any, draw: random.Random) -> None:
    """Another value somewhere in the tree."""
    at = _operators(content)
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = draw.choice(keys) if keys else None
        if key is None:
            return
        if not isinstance(at[key], dict | list) or draw.random() < 0.15:
            at[key] = draw.choice((0, -1, 1 << 70, "x", None, [], {}, 10**9, 2.5))
            return
        at = at[key]
