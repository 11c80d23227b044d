"""The share of epsilon, and what it leaves of Euler's identity, against independent arithmetic."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import pytest
import torch
from torch import nn

import smdlens
from smdlens.symmetry.verify import verified
from smdlens.vocabulary import EvidenceKind


class Rms(nn.Module):
    """Root mean square norm as decoders write it: plain arithmetic."""

    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.rand(width) + 0.5), eps

    def forward(self, x):
        square = x.pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(square + self.variance_epsilon))


class Net(nn.Module):
    """A layer without bias, a norm, a gate that sees scales, a linear layer."""

    def __init__(self, first, norm, width):
        super().__init__()
        self.first, self.norm, self.head = first, norm, nn.Linear(width, 3)

    def forward(self, x):
        x = torch.nn.functional.gelu(self.norm(self.first(x)))
        return self.head(x.mean((2, 3)) if x.dim() == 4 else x)


EPS = 1e-4


def conv():
    return nn.Conv2d(3, 6, 3, bias=False)


NETS = {
    "batch norm": lambda: Net(conv(), nn.BatchNorm2d(6, eps=EPS), 6),
    "group norm": lambda: Net(conv(), nn.GroupNorm(2, 6, eps=EPS), 6),
    "layer norm": lambda: Net(nn.Linear(7, 8, bias=False), nn.LayerNorm(8, eps=EPS), 8),
    "own RMS norm": lambda: Net(nn.Linear(7, 8, bias=False), Rms(8, EPS), 8),
    "torch RMS norm": lambda: Net(nn.Linear(7, 8, bias=False), nn.RMSNorm(8, eps=EPS), 8),
}


def built(name, size=0.008):
    torch.manual_seed(3)
    model = NETS[name]()
    with torch.no_grad():
        model.first.weight.mul_(size / model.first.weight.std())
        for parameter in model.norm.parameters():
            parameter.uniform_(0.3, 1.7)
    shape = (5, 7) if "layer" in name or "RMS" in name else (5, 3, 6, 6)
    return model, (torch.randn(shape),)


def shares(name, x):
    """eps / (var + eps) of a norm's input, by its definition."""
    if name == "batch norm":
        var = x.var((0, 2, 3), unbiased=False)
    elif name == "group norm":
        var = x.reshape(x.shape[0], 2, -1).var(-1, unbiased=False)
    elif name == "layer norm":
        var = x.var(-1, unbiased=False)
    else:
        var = x.square().mean(-1)
    return EPS / (var + EPS)


def loss_at(model, inputs, factor):
    """A random linear function of the outputs, relative to its size, with first.weight rescaled."""
    scaled = copy.deepcopy(model).double().train()
    with torch.no_grad():
        scaled.first.weight.mul_(factor)
        outputs = scaled(inputs[0].double()).flatten()
    weights = torch.randn(
        outputs.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    return float((outputs * weights).sum())


@pytest.mark.parametrize("name", NETS)
def test_share_and_leaning_of_the_gradient(name):
    model, inputs = built(name)
    found = verified(smdlens.scale_symmetry(model, inputs), model, inputs)
    assert not found.disagreements
    effect = found.epsilon["first.weight"]
    exact = copy.deepcopy(model).double()
    true = shares(name, exact.first(inputs[0].double())).detach()
    assert effect.share == pytest.approx(float(true.mean()), rel=1e-6)
    assert effect.share_max == pytest.approx(float(true.max()), rel=1e-6)
    # d L / d ln k = <w, g>, by central differences and by automatic differentiation.
    h = 1e-4
    numeric = (loss_at(model, inputs, 1 + h) - loss_at(model, inputs, 1 - h)) / (2 * h)
    exact = exact.train()
    outputs = exact(inputs[0].double()).flatten()
    weights = torch.randn(
        outputs.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    (outputs * weights).sum().backward()
    w = exact.first.weight
    lengths = float(w.detach().norm() * w.grad.norm())
    assert abs(numeric / lengths) > 5e-4  # or there would be nothing to measure
    assert effect.cosine == pytest.approx(numeric / lengths, rel=1e-5)
    if name == "batch norm":
        gamma = exact.norm.weight
        leak = float((true * gamma.detach() * gamma.grad).sum())
        assert effect.cosine == pytest.approx(leak / lengths, rel=1e-6)


def test_the_share_falls_with_the_square_of_the_weights():
    small, large = (
        verified(smdlens.scale_symmetry(*pair), *pair).epsilon["first.weight"]
        for pair in (built("layer norm", 0.008), built("layer norm", 20.0))
    )
    assert small.share > 0.02 > 1e-5 > large.share
    assert abs(large.cosine) < 1e-5 * abs(small.cosine)


def test_a_jointly_invariant_set_leans_as_a_whole():
    torch.manual_seed(0)
    model = Net(nn.Linear(7, 8), nn.LayerNorm(8, eps=EPS), 8)
    inputs = (torch.randn(5, 7),)
    found = verified(smdlens.scale_symmetry(model, inputs), model, inputs)
    assert found.epsilon["first.weight"] == found.epsilon["first.bias"]
    assert abs(found.epsilon["first.weight"].cosine) < 0.05


MODULE = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(7, 8, bias=False), nn.LayerNorm(8, eps=1e-3), nn.Linear(8, 2))
    with torch.no_grad():
        layers[0].weight.mul_(0.1)
    return layers
"""


def test_command_says_what_epsilon_leaves(tmp_path):
    (tmp_path / "small_weights.py").write_text(MODULE)
    done = subprocess.run(
        [sys.executable, "-m", "smdlens", "graph", "small_weights:build", "--input", "5x7",
         "--verify", "-o", "g.json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "invariance is approximate" in " ".join(done.stdout.split())
    content = json.loads((tmp_path / "g.json").read_text())
    tensors = {tensor["name"]: tensor for tensor in content["tensors"]}
    assert tensors["0.weight"]["epsilon"]["share"] > 0.02
    assert tensors["2.weight"]["epsilon"] is None
    numeric = [e for e in tensors["0.weight"]["evidence"] if e["kind"] == EvidenceKind.NUMERIC]
    assert any("epsilon makes" in e["detail"] for e in numeric)
