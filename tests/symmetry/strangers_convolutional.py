"""Convolutional networks of the literature, written small."""

import torch
import torch.nn.functional as F
from strangers import Head, conv_bn, net
from torch import nn

IMAGE = (3, 16, 16)


@net(IMAGE)
class DenseNet(nn.Module):
    """Huang et al. 2017: BN-ReLU-conv, each layer sees all maps before it."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.layers = nn.ModuleList(self._layer(8 + 4 * i) for i in range(3))
        self.transition = nn.Sequential(
            nn.BatchNorm2d(20), nn.ReLU(), nn.Conv2d(20, 10, 1, bias=False), nn.AvgPool2d(2)
        )
        self.last = self._layer(10)
        self.norm = nn.BatchNorm2d(14)
        self.head = Head(14)

    @staticmethod
    def _layer(i):
        return nn.Sequential(
            nn.BatchNorm2d(i), nn.ReLU(), nn.Conv2d(i, 8, 1, bias=False),
            nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1, bias=False),
        )  # fmt: skip

    def forward(self, x):
        maps = [self.stem(x)]
        for layer in self.layers:
            maps.append(layer(torch.cat(maps, 1)))
        x = self.transition(torch.cat(maps, 1))
        x = torch.cat([x, self.last(x)], 1)
        return self.head(F.relu(self.norm(x)))


@net(IMAGE)
class Inception(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv_bn(3, 8, stride=2)
        self.b1 = conv_bn(8, 4, 1)
        self.b3 = nn.Sequential(conv_bn(8, 4, 1), conv_bn(4, 6))
        self.b5 = nn.Sequential(conv_bn(8, 2, 1), conv_bn(2, 4, 5))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_bn(8, 4, 1))
        self.drop = nn.Dropout(0.4)
        self.head = Head(18)

    def forward(self, x):
        x = self.stem(x)
        branches = [branch(x) for branch in (self.b1, self.b3, self.b5, self.pool)]
        return self.head(self.drop(torch.cat(branches, dim=1)))


class SqueezeExcite(nn.Module):
    def __init__(self, channels, gate=nn.Sigmoid):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, channels // 2, 1)
        self.expand = nn.Conv2d(channels // 2, channels, 1)
        self.gate = gate()

    def forward(self, x):
        return x * self.gate(self.expand(F.relu(self.reduce(self.pool(x)))))


@net(IMAGE)
class SENet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.conv1, self.conv2 = conv_bn(8, 8), nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.se = SqueezeExcite(8)
        self.head = Head(8)

    def forward(self, x):
        x = self.stem(x)
        x = F.relu(x + self.se(self.bn2(self.conv2(self.conv1(x)))))
        return self.head(x)


@net(IMAGE)
class GatedBeforeNorm(nn.Module):
    """Squeeze and excitation between a convolution and its norm, as in some mobile networks."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.squeeze = nn.Linear(3, 8)
        self.bn = nn.BatchNorm2d(8)
        self.head = Head(8)

    def forward(self, x):
        gate = torch.sigmoid(self.squeeze(x.mean((2, 3))))[:, :, None, None]
        return self.head(F.hardswish(self.bn(self.conv(x) * gate)))


@net(IMAGE)
class CBAM(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.mlp = nn.Sequential(
            nn.Linear(8, 4, bias=False), nn.ReLU(), nn.Linear(4, 8, bias=False)
        )
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.bn = nn.BatchNorm2d(1)
        self.head = Head(8)

    def forward(self, x):
        x = self.stem(x)
        gate = self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))
        x = x * torch.sigmoid(gate).unsqueeze(-1).unsqueeze(-1)
        pooled = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
        return self.head(x * torch.sigmoid(self.bn(self.spatial(pooled))))


@net(IMAGE)
class ECANet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.eca = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.head = Head(8)

    def forward(self, x):
        x = self.bn(self.stem(x))
        y = F.adaptive_avg_pool2d(x, 1)
        y = self.eca(y.squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1)
        return self.head(F.relu(x * y.sigmoid().expand_as(x)))


def channel_shuffle(x, groups):
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


@net(IMAGE)
class ShuffleNetV2(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.branch = nn.Sequential(
            conv_bn(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False),
            nn.BatchNorm2d(4), conv_bn(4, 4, 1),
        )  # fmt: skip
        self.last = conv_bn(8, 12, 1)
        self.head = Head(12)

    def forward(self, x):
        x = self.stem(x)
        for _ in range(2):
            a, b = x.chunk(2, dim=1)
            x = channel_shuffle(torch.cat((a, self.branch(b)), 1), 2)
        return self.head(self.last(x))


@net(IMAGE)
class GhostNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.primary = conv_bn(3, 6)
        self.cheap = nn.Sequential(
            nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), nn.BatchNorm2d(6), nn.ReLU()
        )
        self.project = nn.Sequential(nn.Conv2d(12, 10, 1, bias=False), nn.BatchNorm2d(10))
        self.head = Head(10)

    def forward(self, x):
        x = self.primary(x)
        x = torch.cat([x, self.cheap(x)], dim=1)[:, :12]
        return self.head(self.project(x))


@net(IMAGE)
class MobileNetV3(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv_bn(3, 8, act=nn.Hardswish, stride=2)
        self.expand = conv_bn(8, 16, 1, act=nn.Hardswish)
        self.depthwise = nn.Conv2d(16, 16, 5, padding=2, groups=16, bias=False)
        self.bn = nn.BatchNorm2d(16, eps=1e-3)
        self.se = SqueezeExcite(16, gate=nn.Hardsigmoid)
        self.project = nn.Sequential(nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.fc = nn.Sequential(nn.Linear(8, 12), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(12, 5))

    def forward(self, x):
        x = self.stem(x)
        y = self.se(F.hardswish(self.bn(self.depthwise(self.expand(x)))))
        return self.fc((x + self.project(y)).mean([2, 3]))


@net(IMAGE)
class ResNeXt(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.conv1 = nn.Conv2d(8, 8, 1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, 2, 1, groups=4)
        self.bn2 = nn.BatchNorm2d(8)
        self.conv3 = nn.Conv2d(8, 16, 1)
        self.bn3 = nn.BatchNorm2d(16)
        self.shortcut = nn.Sequential(nn.Conv2d(8, 16, 1, 2), nn.BatchNorm2d(16))
        self.head = Head(16)

    def forward(self, x):
        x = self.stem(x)
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        y += self.shortcut(x)
        return self.head(F.relu(y))


@net(IMAGE)
class Res2Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv_bn(3, 12)
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(2))
        self.bns = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(2))
        self.out = nn.Conv2d(12, 12, 1, bias=False)
        self.bn = nn.BatchNorm2d(12)
        self.head = Head(12)

    def forward(self, x):
        x = self.stem(x)
        spx = torch.split(x, 4, 1)
        outs, sp = [], None
        for i in range(2):
            sp = spx[i] if i == 0 else sp + spx[i]
            sp = F.relu(self.bns[i](self.convs[i](sp)))
            outs.append(sp)
        y = self.bn(self.out(torch.cat([*outs, spx[2]], 1)))
        return self.head(F.relu(y + x))


@net(IMAGE)
class PreActResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv0 = nn.Conv2d(3, 8, 3, padding=1)
        self.bns = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(5))
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(4))
        self.head = Head(8)

    def forward(self, x):
        x = self.conv0(x)
        for i in (0, 2):
            y = self.convs[i](F.relu(self.bns[i](x)))
            x = x + self.convs[i + 1](F.relu(self.bns[i + 1](y)))
        return self.head(F.relu(self.bns[4](x)))


@net((1, 16, 16))
class SuperResolution(nn.Module):
    """Sub-pixel convolution with batch norms in the residual trunk (SRGAN)."""

    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(1, 8, 5, padding=2), nn.PReLU())
        self.body = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.PReLU(),
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8),
        )  # fmt: skip
        self.up = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.PixelShuffle(2), nn.PReLU(4))
        self.tail = nn.Conv2d(4, 1, 5, padding=2)

    def forward(self, x):
        x = self.head(x)
        return torch.tanh(self.tail(self.up(x + self.body(x))))
