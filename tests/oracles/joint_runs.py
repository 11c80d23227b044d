"""Real runs whose invariant tensors live on spheres only in pairs, with their joint motion logged.

Convolutions with a bias in front of group norm, a linear layer with one in front of layer norm: the
normalisation sees any common factor of weight and bias, and no other. The truth is that of the two
as one vector, update by update, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from digits_networks import noisy_batches
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

Array = NDArray[np.float64]
SETS = {
    "conv1.weight": "conv1.bias",
    "conv2.weight": "conv2.bias",
    "mix.weight": "mix.bias",
}


class JointNet(nn.Module):
    """Two convolutions with bias and group norm, a linear layer with bias and layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 12, 3, padding=1)
        self.norm1 = nn.GroupNorm(3, 12)
        self.conv2 = nn.Conv2d(12, 16, 3, stride=2, padding=1)
        self.norm2 = nn.GroupNorm(1, 16)
        self.mix = nn.Linear(16, 24)
        self.norm3 = nn.LayerNorm(24)
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x))).mean((2, 3))
        return self.head(F.relu(self.norm3(self.mix(x))))


@dataclass(frozen=True)
class Truth:
    """RMS joint one-step angle, its last, and the unit gradient, per set [sets, intervals]."""

    steps: tuple[int, ...]
    rms_angle: Array
    last_angle: Array
    sqrt_h: Array


def train(
    folder: Path,
    optimizer: Callable[[list[dict[str, object]]], torch.optim.Optimizer],
    *,
    rates: Mapping[int, float],
    weight_decay: float,
    bias_decay: float | None = None,
    momentum: float = 0.0,
    steps: int = 2400,
    gap: int = 200,
    seed: int = 11,
    network: Callable[[], nn.Module] = JointNet,
    pairs: Mapping[str, str] = SETS,
) -> Truth:
    """Trains, writes `ckpt_<step>.pt` with optimizer state, and returns what happened.

    Args:
        folder: Where to; made here.
        optimizer: Makes one from parameter groups.
        rates: First update -> rate from there on.
        weight_decay: Of matrices, and of the biases of the sets.
        bias_decay: Of these biases, where another.
        momentum: What the logged h~ is of.
        steps: Updates.
        gap: Updates between snapshots.
        seed: Of weights and batches.
        network: What is trained.
        pairs: First member of each logged set -> the other.
    """
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = network()
    named = dict(model.named_parameters())
    decays = {n: weight_decay if p.ndim > 1 else 0.0 for n, p in named.items()}
    decays |= dict.fromkeys(pairs, weight_decay)
    decays |= dict.fromkeys(pairs.values(), weight_decay if bias_decay is None else bias_decay)
    groups = [
        {"params": [x for x in named.items() if decays[x[0]] == decay], "weight_decay": decay}
        for decay in sorted(set(decays.values()))
    ]
    rule = optimizer(groups)
    sets = [(named[a], named[b]) for a, b in pairs.items()]
    batches = noisy_batches(32, seed)
    sums = np.zeros((3, len(sets)))
    rows: list[Array] = []
    saved = [0]
    lr = 0.0

    def save(step: int) -> None:
        torch.save(
            {"model": model.state_dict(), "optimizer": rule.state_dict(), "step": step},
            folder / f"ckpt_{step}.pt",
        )

    save(0)
    for step in range(steps):
        lr = rates.get(step, lr)
        for group in rule.param_groups:
            group["lr"] = lr
        images, labels = next(batches)
        loss = F.cross_entropy(model(images), labels, label_smoothing=0.1)
        rule.zero_grad()
        loss.backward()
        before = [_vector(members) for members in sets]
        for at, members in enumerate(sets):
            g, v = _gradient(members), _buffer(members, rule)
            h = g @ g + 2.0 * momentum * (g @ v if v is not None else 0.0)
            sums[2, at] += float(h) * float(before[at] @ before[at])
        rule.step()
        last = [_angle(old, _vector(members)) for old, members in zip(before, sets, strict=True)]
        sums[0] += np.square(last)
        sums[1] = last
        if (step + 1) % gap == 0:
            rows.append(np.stack([sums[0] / gap, np.square(sums[1]), sums[2] / gap]))
            sums[:] = 0.0
            saved.append(step + 1)
            save(step + 1)
    torch.set_num_threads(threads)
    columns = np.sqrt(np.maximum(np.stack(rows, axis=-1), 0.0))
    return Truth(tuple(saved), *columns)


def _vector(members: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([p.detach().double().flatten() for p in members])


def _gradient(members: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([p.grad.double().flatten() for p in members])


def _buffer(members: tuple[Tensor, ...], rule: torch.optim.Optimizer) -> Tensor | None:
    found = [rule.state[p].get("momentum_buffer") for p in members]
    if any(v is None for v in found):
        return None
    return torch.cat([v.double().flatten() for v in found])


def _angle(a: Tensor, b: Tensor) -> float:
    u, v = a / a.norm(), b / b.norm()
    return 2.0 * math.atan2(float((u - v).norm()), float((u + v).norm()))
