"""Cosines, pairs of inputs, tied and adapted weights."""

import torch
import torch.nn.functional as F
from strangers import conv_bn, net
from torch import nn


@net((12,))
class ArcFace(nn.Module):
    """Features and class weights on the sphere, logits by cosine."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(12, 16), nn.BatchNorm1d(16), nn.PReLU(), nn.Linear(16, 8)
        )
        self.bn = nn.BatchNorm1d(8, affine=False)
        self.weight = nn.Parameter(torch.randn(6, 8))

    def forward(self, x):
        x = self.bn(self.body(x))
        cosine = F.linear(F.normalize(x), F.normalize(self.weight)).clamp(-1, 1)
        return 30.0 * cosine


@net((12,))
class CosineClassifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(12, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.prototypes = nn.Parameter(torch.randn(5, 8))
        self.temperature = nn.Parameter(torch.tensor(10.0))

    def forward(self, x):
        x = self.fc2(F.relu(self.fc1(x)))
        x = x / x.norm(dim=-1, keepdim=True)
        w = self.prototypes / self.prototypes.norm(p=2, dim=1, keepdim=True)
        return F.log_softmax(self.temperature * x @ w.t(), dim=-1)


@net((3, 16, 16), (3, 16, 16))
class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, bias=False), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, bias=False),
            nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6, bias=False),
        )  # fmt: skip

    def forward(self, a, b):
        return F.cosine_similarity(self.body(a), self.body(b), dim=-1)


@net((3, 16, 16), (3, 16, 16))
class SimSiam(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            conv_bn(3, 8, stride=2), conv_bn(8, 8), nn.AdaptiveAvgPool2d(1)
        )
        self.projector = nn.Sequential(
            nn.Linear(8, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(),
            nn.Linear(8, 8), nn.BatchNorm1d(8, affine=False),
        )  # fmt: skip
        self.predictor = nn.Sequential(
            nn.Linear(8, 4, bias=False), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 8)
        )

    def forward(self, a, b):
        za = self.projector(self.encoder(a).flatten(1))
        zb = self.projector(self.encoder(b).flatten(1))
        pa, pb = self.predictor(za), self.predictor(zb)
        return -(F.cosine_similarity(pa, zb) + F.cosine_similarity(pb, za)) / 2


@net((4, 24))
class TemperatureSoftmax(nn.Module):
    """A learned temperature over a bottleneck of codes; batch norm in front of it."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv1d(4, 6, 3, stride=2), nn.BatchNorm1d(6)
        self.codes = nn.Parameter(torch.randn(10, 6))
        self.temperature = nn.Parameter(torch.ones(1))
        self.out = nn.Linear(6, 3)

    def forward(self, x):
        z = self.bn(self.conv(x)).transpose(1, 2)
        distance = (
            z.pow(2).sum(-1, keepdim=True) - 2 * z @ self.codes.t() + self.codes.pow(2).sum(-1)
        )
        weights = F.softmax(-distance / self.temperature.exp(), dim=-1)
        return self.out((weights @ self.codes).mean(1))


@net((12,))
class NormalisedAutoencoder(nn.Module):
    """Tied encoder and decoder, hidden layer standardised over the batch by hand."""

    def __init__(self):
        super().__init__()
        self.weight, self.b = nn.Parameter(torch.randn(8, 12)), nn.Parameter(torch.zeros(8))
        self.eps = 1e-5

    def forward(self, x):
        h = F.linear(x, self.weight, self.b)
        h = (h - h.mean(0)) / (h.var(0, unbiased=False) + self.eps).sqrt()
        return F.linear(F.relu(h), self.weight.t())


@net((7,))
class LowRankAdapter(nn.Module):
    """LoRA beside a frozen-looking matrix, with a layer norm behind the sum."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(7, 8, bias=False)
        self.a, self.b = nn.Linear(7, 2, bias=False), nn.Linear(2, 8, bias=False)
        self.norm, self.out = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x):
        return self.out(torch.relu(self.norm(self.base(x) + 0.5 * self.b(self.a(x)))))
