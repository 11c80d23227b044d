"""Small batch-normalised networks and noisy mini-batches of scikit-learn's digits."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F


class ConvNorm(nn.Module):
    """Convolution and batch norm."""

    def __init__(self, width_in: int, width_out: int, size: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width_in, width_out, size, stride, padding=size // 2, bias=False)
        self.norm = nn.BatchNorm2d(width_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Residual(nn.Module):
    """Two convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.first = ConvNorm(width_in, width_out, 3, stride)
        self.second = ConvNorm(width_out, width_out, 3, 1)
        same = stride == 1 and width_in == width_out
        self.shortcut = nn.Identity() if same else ConvNorm(width_in, width_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class PlainStage(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.body = ConvNorm(width_in, width_out, 3, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x))


class DigitsNet(nn.Module):
    """One stage per width (the resolution halves where the width grows), pooling, classifier."""

    def __init__(self, widths: tuple[int, ...], residual: bool) -> None:
        super().__init__()
        self.stem = PlainStage(1, widths[0], 1)
        stage = Residual if residual else PlainStage
        self.stages = nn.Sequential(*(stage(a, b, 2 if b > a else 1) for a, b in pairwise(widths)))
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.stages(self.stem(x)).mean((2, 3))))


def noisy_batches(size: int, seed: int, noise: float = 0.5) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless random batches of shifted, noisy images [size, 1, 8, 8] and labels [size]."""
    generator = torch.Generator().manual_seed(seed)
    digits = load_digits()
    images = F.pad(torch.tensor(digits.images, dtype=torch.float32) / 8.0 - 1.0, (1, 1, 1, 1))
    labels = torch.tensor(digits.target)
    span = torch.arange(8)
    while True:
        chosen = torch.randint(0, len(labels), (size,), generator=generator)
        shift = torch.randint(0, 3, (2, size, 1), generator=generator) + span
        shifted = images[chosen[:, None, None], shift[0][:, :, None], shift[1][:, None, :]]
        blur = noise * torch.randn(shifted.shape, generator=generator)
        yield (shifted + blur)[:, None], labels[chosen]
