"""Graphs from Keras' own descriptions, held against what scaling does in Keras and tf_keras."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from smdlens.errors import GraphError
from smdlens.hyper.options import DeclaredHyperParameters
from smdlens.hyper.resolve import resolve_hyper_parameters
from smdlens.snapshots import open_series
from smdlens.symmetry.find import find_scale_groups
from smdlens.symmetry.from_keras import graph_of_keras, graph_of_keras_file
from smdlens.symmetry.scale_symmetry import ScaleSymmetry, symmetry_of_graph
from smdlens.vocabulary import EvidenceKind, Role

GOLDEN = Path(__file__).parent.parent / "golden"
INVARIANT = (Role.SCALE_INVARIANT, Role.IRRELEVANT)
NETWORKS = {
    (which, entry["network"]): entry
    for which in ("keras", "tf_keras")
    for entry in json.loads(
        gzip.decompress((GOLDEN / "keras_graphs" / f"{which}.json.gz").read_bytes())
    )
}


def _solved(entry: dict[str, Any]) -> ScaleSymmetry:
    shapes = {t["name"]: tuple(t["shape"]) for t in entry["tensors"]}
    return symmetry_of_graph(graph_of_keras(json.dumps(entry["config"]), shapes, "x"))


@pytest.mark.parametrize("key", NETWORKS, ids="/".join)
def test_every_tensor_against_the_framework(key: tuple[str, str]) -> None:
    entry = NETWORKS[key]
    found = _solved(entry).tensors
    trained = [t for t in entry["tensors"] if "invariant" in t]
    assert set(found) == {t["name"] for t in trained}
    for tensor in trained:
        ours = found[tensor["name"]]
        assert (ours.role in INVARIANT) == tensor["invariant"], (tensor["name"], ours.evidence)
        by_channel = ours.role == Role.SCALE_INVARIANT and ours.granularity == "channel"
        if by_channel and ours.axis == 0:
            assert tensor["channel"], tensor["name"]


def test_the_networks_try_both_answers() -> None:
    said = [t["invariant"] for e in NETWORKS.values() for t in e["tensors"] if "invariant" in t]
    assert len(NETWORKS) == 34 and said.count(True) > 120 and said.count(False) > 250


def test_a_run_needs_no_option(tmp_path: Path) -> None:
    for step in (3, 6):
        shutil.copy(GOLDEN / "keras" / "sgd" / f"model-{step}.keras", tmp_path)
    series = open_series(tmp_path)
    groups = find_scale_groups(series)
    assert groups.source == "graph"
    conv = groups.tensors["conv_a.weight"]
    assert conv.role == Role.SCALE_INVARIANT and conv.groups == 4 and conv.axis == 0
    assert conv.norm is not None and conv.norm.running_var == "norm_a.running_var"
    joint = groups.tensors["conv_b.weight"]
    assert joint.role == Role.JOINTLY_SCALE_INVARIANT and joint.joint_with == ("conv_b.bias",)
    hyper = resolve_hyper_parameters(series, DeclaredHyperParameters())
    assert hyper.epsilon == 1e-3 and "Keras" in hyper.epsilon_source


def test_weights_alone_with_the_graph_of_a_whole_file(tmp_path: Path) -> None:
    for step in (3, 6):
        shutil.copy(GOLDEN / "keras" / "sgd" / f"w-{step}.weights.h5", tmp_path)
    series = open_series(tmp_path)
    assert find_scale_groups(series).source == "names"
    whole = GOLDEN / "keras" / "sgd" / "model-6.h5"
    groups = find_scale_groups(series, graph=whole)
    assert groups.source == "graph"
    assert groups.tensors["deep.weight"].role == Role.SCALE_INVARIANT
    with pytest.raises(GraphError, match="weights and no description"):
        graph_of_keras_file(GOLDEN / "keras" / "sgd" / "w-6.weights.h5")


def test_a_description_that_is_not_understood_leaves_the_names(tmp_path: Path) -> None:
    for step in (3, 6):
        data = (GOLDEN / "keras" / "sgd" / f"model-{step}.keras").read_bytes()
        assert data.count(b'["pool", 0, 0]') == 1
        changed = data.replace(b'["pool", 0, 0]', b'["loop", 0, 0]')
        (tmp_path / f"model-{step}.keras").write_bytes(changed)
    groups = find_scale_groups(open_series(tmp_path))
    assert groups.source == "names"
    evidence = groups.tensors["conv_a.weight"].evidence
    assert any(e.kind == EvidenceKind.NAMES and "no graph" in e.detail for e in evidence)


@pytest.mark.parametrize(
    "text",
    ["[]", "{}", '{"config": []}', '{"config": {"layers": 3}}', '{"config": {"layers": []}}',
     '{"class_name": "Sequential", "config": {"layers": [{"class_name": "Dense", "config": {}}]}}'],
)  # fmt: skip
def test_other_json_is_a_clear_error(text: str) -> None:
    with pytest.raises(GraphError) as caught:
        graph_of_keras(text, {"a.weight": (2, 2)}, "some file")
    assert "some file" in str(caught.value)


def test_a_model_inside_itself_ends() -> None:
    inner: dict[str, Any] = {"class_name": "Dense", "config": {"name": "d"}}
    for _ in range(40):
        inner = {"class_name": "Sequential", "config": {"name": "s", "layers": [inner]}}
    inner["config"]["build_input_shape"] = [None, 3]
    with pytest.raises(GraphError, match="form that is not known"):
        graph_of_keras(json.dumps(inner), {"a.weight": (2, 2)}, "some file")


def test_separable_kernels_under_the_names_that_files_give_them() -> None:
    entry = json.loads(json.dumps(NETWORKS["keras", "mobile"]))
    for tensor in entry["tensors"]:
        tensor["name"] = tensor["name"].replace("depthwise_kernel", "weight")
    found = _solved(entry).tensors
    for tensor in entry["tensors"]:
        if "invariant" in tensor:
            alone = found[tensor["name"]].role in INVARIANT
            assert alone == tensor["invariant"], tensor["name"]
    assert found["separable_conv2d.weight"].role == Role.SCALE_INVARIANT
