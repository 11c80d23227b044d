"""A run of checkpoints with the network at hand: names matched, frozen norms, fallback, CLI."""

import json
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

import smdlens
from smdlens.errors import GraphError
from smdlens.symmetry.find import find_scale_groups
from smdlens.symmetry.match import matched_names
from smdlens.vocabulary import Role


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(torch.relu(self.bn(self.conv(x))).mean((2, 3)))


def run(folder, *, moving=True, counting=False, prefix=""):
    """Two checkpoints; the second with other weights and, where asked, other statistics."""
    torch.manual_seed(0)
    model = Net()
    for step in (100, 200):
        state = {prefix + name: value.clone() for name, value in model.state_dict().items()}
        torch.save({"model": state, "global_step": step}, folder / f"ckpt_{step}.pt")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01)
            if moving:
                model.bn.running_var.mul_(1.1)
                model.bn.running_mean.add_(0.1)
            if counting:
                model.bn.num_batches_tracked.add_(100)
    return smdlens.open_series(folder)


INPUTS = ("2x3x8x8",)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.trunk."])
def test_the_graph_decides_the_roles(tmp_path, prefix):
    groups = find_scale_groups(run(tmp_path, prefix=prefix), model=Net, inputs=INPUTS)
    assert groups.source == "graph"
    by_end = {name.rpartition("conv.")[2]: t for name, t in groups.tensors.items()}
    weight = next(t for n, t in groups.tensors.items() if n.endswith("conv.weight"))
    assert weight.role is Role.SCALE_INVARIANT and weight.groups == 6
    assert weight.norm.running_var == weight.name.replace("conv.weight", "bn.running_var")
    assert by_end["bias"].role is Role.IRRELEVANT


def test_a_frozen_batch_norm_is_no_norm(tmp_path):
    groups = find_scale_groups(run(tmp_path, moving=False), model=Net, inputs=INPUTS)
    assert groups.tensors["conv.weight"].role is Role.NOT_SCALE_INVARIANT


def test_a_batch_norm_that_counts_its_batches_is_not_frozen(tmp_path):
    """Its statistics stand still by a momentum of 0; it normalises by each batch all the same."""
    series = run(tmp_path, moving=False, counting=True)
    groups = find_scale_groups(series, model=Net, inputs=INPUTS)
    assert groups.tensors["conv.weight"].role is Role.SCALE_INVARIANT


def test_another_network_is_said_and_optional(tmp_path):
    series = run(tmp_path)
    other = nn.Sequential(nn.Linear(7, 7))
    with pytest.raises(GraphError, match="no tensor of the run"):
        find_scale_groups(series, model=other, inputs=("2x7",))
    groups = find_scale_groups(series, model=other, inputs=("2x7",), model_optional=True)
    assert groups.source == "names"
    assert "no graph" in groups.tensors["conv.weight"].evidence[-1].detail


def test_names_are_matched_by_prefix_and_shape():
    graph = {"a.weight": (2, 3), "b.weight": (4,)}
    assert matched_names(graph, {"m.a.weight": (2, 3), "m.b.weight": (4,)}) == {
        "m.a.weight": "a.weight", "m.b.weight": "b.weight",
    }  # fmt: skip
    assert matched_names({f"net.{k}": v for k, v in graph.items()}, graph) == {
        "a.weight": "net.a.weight", "b.weight": "net.b.weight",
    }  # fmt: skip
    assert matched_names(graph, {"a.weight": (3, 2), "b.weight": (4,)}) == {"b.weight": "b.weight"}


MODULE = """
import torch
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 2)
    )

def batch():
    return (torch.randn(2, 3, 8, 8),), {}
"""


def cli(folder, *arguments):
    (folder / "their_model.py").write_text(textwrap.dedent(MODULE))
    return subprocess.run(
        [sys.executable, "-m", "smdlens", "graph", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_command_prints_a_tree_and_writes_pictures(tmp_path):
    done = cli(
        tmp_path, "their_model:build", "--input-fn", "their_model:batch", "--verify",
        "-o", "g.html", "-o", "g.dot", "-o", "g.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "scale invariant (6 pieces, per channel)" in done.stdout
    assert "normalised by batch norm `1`" in done.stdout and "confirmed" in done.stdout
    assert "<svg" in (tmp_path / "g.html").read_text()
    assert (tmp_path / "g.dot").read_text().startswith("digraph")
    content = json.loads((tmp_path / "g.json").read_text())
    roles = {t["name"]: t["role"] for t in content["tensors"]}
    assert roles["0.weight"] == "scale_invariant" and roles["0.bias"] == "irrelevant"
    assert {"0.weight": 1} in content["symmetries"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("their_model:nothing",), ("their_model",), ("model.xyz",), ("missing.onnx",),
        ("their_model:build", "--input", "2xQ"), ("their_model:build", "--input", "2x5x8x8"),
        ("their_model:build", "-o", "g.bmp"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_exits_with_2_and_no_traceback(tmp_path, arguments):
    done = cli(tmp_path, *arguments)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and done.stderr.strip()
