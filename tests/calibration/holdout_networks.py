"""Networks and data unlike those the estimators were developed on (tests/oracles)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F


class Separable(nn.Module):
    """Depthwise 3x3 and pointwise 1x1 convolutions, batch-normalised, with GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 24, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(24)
        self.depthwise = nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(24)
        self.pointwise = nn.Conv2d(24, 40, 1, bias=False)
        self.pointwise_norm = nn.BatchNorm2d(40)
        self.last = nn.Conv2d(40, 48, 3, stride=2, bias=False)
        self.last_norm = nn.BatchNorm2d(48)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.stem_norm(self.stem(x)))
        x = F.gelu(self.depthwise_norm(self.depthwise(x)))
        x = F.gelu(self.pointwise_norm(self.pointwise(x)))
        return self.head(F.gelu(self.last_norm(self.last(x))).mean((2, 3)))


class Perceptron(nn.Module):
    """Three batch-normalised linear layers with tanh; 32 numbers in, 6 classes out."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(32, 48, bias=False)
        self.first_norm = nn.BatchNorm1d(48)
        self.second = nn.Linear(48, 48, bias=False)
        self.second_norm = nn.BatchNorm1d(48)
        self.third = nn.Linear(48, 24, bias=False)
        self.third_norm = nn.BatchNorm1d(24)
        self.head = nn.Linear(24, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first_norm(self.first(x)))
        x = torch.tanh(self.second_norm(self.second(x)))
        return self.head(torch.tanh(self.third_norm(self.third(x))))


class Wide(nn.Module):
    """Two wide 5x5 convolutions with batch norm and leaky ReLU; 8x8 digits."""

    def __init__(self) -> None:
        super().__init__()
        self.near = nn.Conv2d(1, 40, 5, stride=2, padding=2, bias=False)
        self.near_norm = nn.BatchNorm2d(40)
        self.far = nn.Conv2d(40, 32, 3, padding=1, bias=False)
        self.far_norm = nn.BatchNorm2d(32)
        self.head = nn.Linear(32 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.near_norm(self.near(x)))
        return self.head(F.leaky_relu(self.far_norm(self.far(x))).flatten(1))


def digits(size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of digits [size, 1, 8, 8] with pixels dropped, and labels."""
    draw = torch.Generator().manual_seed(seed)
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 8.0 - 1.0
    labels = torch.tensor(data.target)
    while True:
        chosen = torch.randint(0, len(labels), (size,), generator=draw)
        kept = torch.rand(size, 1, 8, 8, generator=draw) > 0.25
        yield images[chosen] * kept, labels[chosen]


def taught(size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of Gaussian inputs [size, 32], labelled by a random two-layer teacher."""
    draw = torch.Generator().manual_seed(seed)
    inward = torch.randn(32, 64, generator=draw) / 32**0.5
    outward = torch.randn(64, 6, generator=draw)
    while True:
        x = torch.randn(size, 32, generator=draw)
        scores = torch.relu(x @ inward) @ outward
        noisy = scores + 1.5 * torch.randn(size, 6, generator=draw)
        yield x, noisy.argmax(1)
