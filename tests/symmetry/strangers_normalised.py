"""Networks that normalise in other ways: weights, groups, positions, queries, outputs."""

import math

import torch
import torch.nn.functional as F
from strangers import Head, conv_bn, net
from torch import nn

IMAGE = (3, 16, 16)


class StandardisedConv(nn.Conv2d):
    """Weight standardisation with a gain, as in NFNets."""

    def __init__(self, *args, eps=1e-6, **kwargs):
        super().__init__(*args, **kwargs)
        self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1))
        self.eps = eps

    def forward(self, x):
        fan_in = self.weight[0].numel()
        mean = self.weight.mean(dim=(1, 2, 3), keepdim=True)
        var = self.weight.var(dim=(1, 2, 3), keepdim=True)
        scale = torch.rsqrt(var * fan_in + self.eps) * self.gain
        weight = self.weight * scale - mean * scale
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, 1, self.groups)


@net(IMAGE)
class NFNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = StandardisedConv(3, 8, 3, padding=1)
        self.conv1, self.conv2 = StandardisedConv(8, 8, 1), StandardisedConv(8, 8, 3, padding=1)
        self.skip_gain = nn.Parameter(torch.zeros(()))
        self.head = Head(8)

    def forward(self, x):
        x = self.stem(x)
        y = F.gelu(x) * 1.7015
        y = self.conv2(F.gelu(self.conv1(y)) * 1.7015)
        return self.head(x + y * 0.2 * self.skip_gain)


class StdConvThroughVar(nn.Conv2d):
    """Weight standardisation in Qiao et al.'s own order: subtract, then divide by the deviation."""

    eps = 1e-5

    def forward(self, x):
        w = self.weight
        w = w - w.mean(dim=1, keepdim=True).mean(dim=2, keepdim=True).mean(dim=3, keepdim=True)
        std = w.view(w.size(0), -1).std(dim=1).view(-1, 1, 1, 1) + self.eps
        return F.conv2d(x, w / std.expand_as(w), self.bias, self.stride, self.padding)


@net(IMAGE)
class WeightStandardisedGroupNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.gn1 = StdConvThroughVar(3, 8, 3), nn.GroupNorm(4, 8)
        self.conv2, self.gn2 = StdConvThroughVar(8, 8, 3, bias=False), nn.GroupNorm(4, 8)
        self.head = Head(8)

    def forward(self, x):
        x = F.relu(self.gn1(self.conv1(x)))
        return self.head(F.relu(self.gn2(self.conv2(x))))


@net((8,))
class WeightNormMLP(nn.Module):
    def __init__(self):
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        self.net = nn.Sequential(
            norm(nn.Linear(8, 12)), nn.ELU(), norm(nn.Linear(12, 12), dim=None), nn.ELU(),
            norm(nn.Linear(12, 4), dim=1),
        )  # fmt: skip

    def forward(self, x):
        return self.net(x)


@net(IMAGE)
class SpectralDiscriminator(nn.Module):
    def __init__(self):
        super().__init__()
        norm = nn.utils.parametrizations.spectral_norm
        self.conv1 = norm(nn.Conv2d(3, 6, 4, 2, 1))
        self.conv2 = norm(nn.Conv2d(6, 8, 4, 2, 1))
        self.fc = norm(nn.Linear(8, 1))

    def forward(self, x):
        x = F.leaky_relu(self.conv2(F.leaky_relu(self.conv1(x), 0.2)), 0.2)
        return self.fc(x.sum((2, 3)))


class RMSNorm(nn.Module):
    """As in every language model's repository."""

    def __init__(self, dim, eps=1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        norm = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)
        return norm.type_as(x) * self.weight


class HandLayerNorm(nn.Module):
    def __init__(self, dim, eps=1e-6):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x):
        mean = x.mean(-1, keepdim=True)
        variance = ((x - mean) ** 2).mean(-1, keepdim=True)
        return self.gamma * (x - mean) / torch.sqrt(variance + self.eps) + self.beta


@net((10,))
class HandMadeNorms(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.n1 = nn.Linear(10, 8), HandLayerNorm(8)
        self.fc2, self.n2 = nn.Linear(8, 8, bias=False), RMSNorm(8)
        self.fc3, self.n3 = nn.Linear(8, 8), RMSNorm(8)
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        x = F.silu(self.n1(self.fc1(x)))
        x = F.silu(self.n2(self.fc2(x)))
        return self.out(self.n3(self.fc3(x)))


class ChannelsFirstNorm(nn.Module):
    """Layer norm over channels of an image, by mean and variance."""

    def __init__(self, dim, eps=1e-6):
        super().__init__()
        self.g, self.b = (
            nn.Parameter(torch.ones(1, dim, 1, 1)),
            nn.Parameter(torch.zeros(1, dim, 1, 1)),
        )
        self.eps = eps

    def forward(self, x):
        var = torch.var(x, dim=1, unbiased=False, keepdim=True)
        mean = torch.mean(x, dim=1, keepdim=True)
        return (x - mean) / (var + self.eps).sqrt() * self.g + self.b


@net(IMAGE)
class ChannelNormNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 4, 4), ChannelsFirstNorm(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 8, 3, padding=1, groups=8), ChannelsFirstNorm(8)
        self.pw1, self.pw2 = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1)
        self.head = Head(8)

    def forward(self, x):
        x = self.norm1(self.conv1(x))
        return self.head(x + self.pw2(F.gelu(self.pw1(self.norm2(self.conv2(x))))))


@net(IMAGE)
class NormZoo(nn.Module):
    """Group, instance and local norms with and without gains one after the other."""

    def __init__(self):
        super().__init__()
        self.c1, self.n1 = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(1, 8)
        self.c2, self.n2 = nn.Conv2d(8, 8, 3, padding=1), nn.InstanceNorm2d(8)
        self.c3, self.n3 = nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(8, 8, affine=False)
        self.c4, self.n4 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8, affine=False)
        self.head = Head(8)

    def forward(self, x):
        x = F.silu(self.n1(self.c1(x)))
        x = F.silu(self.n2(self.c2(x)))
        x = F.silu(self.n3(self.c3(x)))
        return self.head(F.silu(self.n4(self.c4(x))))


class FrozenBatchNorm(nn.Module):
    def __init__(self, n):
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(n) + 0.5)

    def forward(self, x):
        scale = (self.weight * (self.running_var + 1e-5).rsqrt()).reshape(1, -1, 1, 1)
        shift = self.bias.reshape(1, -1, 1, 1) - self.running_mean.reshape(1, -1, 1, 1) * scale
        return x * scale + shift


@net(IMAGE)
class FrozenBackbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, bias=False), FrozenBatchNorm(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, bias=False), FrozenBatchNorm(6)
        self.neck = conv_bn(6, 6, 1)
        self.head = Head(6)

    def forward(self, x):
        x = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return self.head(self.neck(x))


@net((10,))
class SIREN(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(10, 8), nn.Linear(8, 8)])
        self.out = nn.Linear(8, 1)

    def forward(self, x):
        for layer in self.layers:
            x = torch.sin(3.0 * layer(x))
        return self.out(x)


@net((10,))
class Highway(nn.Module):
    def __init__(self):
        super().__init__()
        self.h = nn.ModuleList(nn.Linear(10, 10) for _ in range(2))
        self.t = nn.ModuleList(nn.Linear(10, 10) for _ in range(2))
        self.norm = nn.BatchNorm1d(10)
        self.out = nn.Linear(10, 3)

    def forward(self, x):
        for h, t in zip(self.h, self.t, strict=True):
            gate = torch.sigmoid(t(x))
            x = gate * F.relu(h(x)) + (1 - gate) * x
        return self.out(self.norm(x))


@net((16,))
class SelfNormalising(nn.Module):
    """SELU with a scaled dot product at the end; nothing here is scale-invariant."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(16, 8), nn.SELU(), nn.AlphaDropout(0.1), nn.Linear(8, 8))
        self.query = nn.Parameter(torch.randn(8))

    def forward(self, x):
        return (self.net(x) * self.query).sum(-1) / math.sqrt(8)
