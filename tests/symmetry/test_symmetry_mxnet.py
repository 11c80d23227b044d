"""Symbols that MXNet wrote against the same networks in torch, through torch's own tracer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, log_softmax, max_pool2d

import smdlens
from smdlens.errors import GraphError
from smdlens.snapshots import open_series
from smdlens.symmetry.find import find_scale_groups
from smdlens.symmetry.from_mxnet import graph_of_mxnet, graph_of_mxnet_file
from smdlens.symmetry.scale_symmetry import symmetry_of_graph
from smdlens.vocabulary import Role

GOLDEN = Path(__file__).parent.parent / "golden"
SYMBOLS = GOLDEN / "mxnet_graphs"


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.bn2 = nn.BatchNorm2d(6)
        self.bn2.register_parameter("weight", None)  # MXNet: fix_gamma
        self.conv3 = nn.Conv2d(6, 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4)
        self.fc1 = nn.Linear(160, 12, bias=False)
        self.bn4 = nn.BatchNorm1d(12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = leaky_relu(self.bn1(self.conv1(x)), 0.1)
        x = torch.relu(x + self.bn2(self.conv2(x)))
        x = max_pool2d(x, 2)
        x = torch.cat([torch.relu(self.bn3(self.conv3(x))), x], 1)
        x = torch.relu(self.bn4(self.fc1(x.flatten(1)))) * 0.5
        return log_softmax(self.head(x), -1)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(7, 8)
        self.b = nn.Linear(7, 8, bias=False)
        self.c = nn.Linear(8, 6)
        self.norm = nn.LayerNorm(6)
        self.d = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.d(self.norm(self.c(torch.tanh(self.a(x)) + torch.relu(self.b(x)))))
        return y


@pytest.mark.parametrize(
    ("name", "model", "shape"),
    [("residual", Residual, (2, 3, 8, 8)), ("plain", Plain, (2, 7))],
)
def test_against_the_same_network_in_torch(
    name: str, model: type[nn.Module], shape: tuple[int, ...]
) -> None:
    graph = graph_of_mxnet_file(SYMBOLS / f"{name}-symbol.json")
    ours = symmetry_of_graph(graph).tensors
    expected = smdlens.scale_symmetry(model(), (torch.randn(shape),)).tensors
    assert {n.removeprefix("net_") for n in ours} - {"bn2.weight"} == set(expected)
    for own, found in ours.items():
        other = own.removeprefix("net_")
        if other == "bn2.weight":  # fixed to one: whatever it holds is not used
            assert found.role == Role.IRRELEVANT
            continue
        theirs = expected[other]
        same = (found.role, found.granularity, found.groups, found.axis)
        assert same == (theirs.role, theirs.granularity, theirs.groups, theirs.axis), other
        joint = {n.removeprefix("net_") for n in found.joint_with}
        assert joint == set(theirs.joint_with), other
    roles = [found.role for found in ours.values()]
    assert roles.count(Role.NOT_SCALE_INVARIANT) >= 2
    assert name == "plain" or roles.count(Role.SCALE_INVARIANT) == 4


def test_a_run_of_module_with_its_symbol() -> None:
    run = GOLDEN / "one_network" / "mxnet_module"
    for graph in (run / "net-symbol.json", None):
        groups = find_scale_groups(open_series(run), graph=graph)
        assert groups.source == "graph"
        roles = groups.tensors.items()
        invariant = {n: t.groups for n, t in roles if t.role == Role.SCALE_INVARIANT}
        assert invariant == {"conv1.weight": 6, "conv2.weight": 8}


def _symbol(op: str, **attributes: Any) -> str:
    """x -> dense -> op -> dense."""
    leaf = {"op": "null", "inputs": []}
    nodes = [
        {**leaf, "name": "data"},
        {**leaf, "name": "a_weight"},
        {"op": "FullyConnected", "name": "a", "inputs": [[0, 0, 0], [1, 0, 0]],
         "attrs": {"no_bias": "True", "num_hidden": "4"}},
        {"op": op, "name": "o", "inputs": [[2, 0, 0]], "attrs": attributes},
        {**leaf, "name": "b_weight"},
        {"op": "FullyConnected", "name": "b", "inputs": [[3, 0, 0], [4, 0, 0]],
         "attrs": {"no_bias": "True", "num_hidden": "2"}},
    ]  # fmt: skip
    return json.dumps({"nodes": nodes, "heads": [[5, 0, 0]]})


SHAPES = {"a.weight": (4, 3), "b.weight": (2, 4)}


def _roles(text: str) -> dict[str, Role]:
    found = symmetry_of_graph(graph_of_mxnet(text, SHAPES, "x")).tensors
    return {name: tensor.role for name, tensor in found.items()}


def test_an_unknown_operator_sees_every_scale() -> None:
    free = _roles(_symbol("Activation", act_type="relu"))
    assert set(free.values()) == {Role.NOT_SCALE_INVARIANT}
    for op, attributes in (("erf", {}), ("Activation", {"act_type": "softrelu"}),
                           ("clip", {"a_min": "-1", "a_max": "1"})):  # fmt: skip
        assert _roles(_symbol(op, **attributes))["a.weight"] == Role.NOT_SCALE_INVARIANT
    normalised = symmetry_of_graph(
        graph_of_mxnet(_symbol("L2Normalization", mode="instance"), SHAPES, "x")
    )
    assert normalised.tensors["a.weight"].role == Role.NOT_SCALE_INVARIANT, "not translated"
    with pytest.raises(GraphError, match="shape of what the operator Unheard"):
        _roles(_symbol("Unheard"))


@pytest.mark.parametrize(
    "text",
    ["[]", "{}", "nonsense", '{"nodes": [], "heads": [[0, 0]]}', '{"nodes": 3, "heads": []}',
     _symbol("relu").replace("[[2, 0, 0]]", "[[9, 0, 0]]"),
     _symbol("relu").replace('"heads": [[5', '"heads": [["x"'),
     _symbol("transpose", axes="(0, 0)").replace("transpose", "transpose2")],
)  # fmt: skip
def test_symbols_that_are_not_sound(text: str) -> None:
    with pytest.raises(GraphError):
        graph_of_mxnet(text, SHAPES, "x")


def test_a_symbol_without_shapes(tmp_path: Path) -> None:
    (tmp_path / "net-symbol.json").write_text(_symbol("relu"))
    with pytest.raises(GraphError, match="shapes of its weights"):
        graph_of_mxnet_file(tmp_path / "net-symbol.json")
