"""More backbones, and networks that keep the image: segmentation, volumes, sequences."""

import torch
import torch.nn.functional as F
from strangers import Head, conv_bn, net
from torch import nn

IMAGE = (3, 16, 16)


@net(IMAGE)
class WideResNet(nn.Module):
    """Dropout between the convolutions, 1x1 shortcut on the activated input."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm2d(6), nn.BatchNorm2d(12), nn.BatchNorm2d(12)
        self.conv2 = nn.Conv2d(6, 12, 3, 2, 1, bias=True)
        self.drop = nn.Dropout(0.3)
        self.conv3 = nn.Conv2d(12, 12, 3, padding=1, bias=True)
        self.short = nn.Conv2d(6, 12, 1, 2, bias=False)
        self.head = Head(12)

    def forward(self, x):
        x = F.leaky_relu(self.bn1(self.conv1(x)), 0.1)
        y = self.conv3(self.drop(F.leaky_relu(self.bn2(self.conv2(x)), 0.1)))
        return self.head(F.leaky_relu(self.bn3(y + self.short(x)), 0.1))


@net(IMAGE)
class RepVGG(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.three = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.one = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.identity = nn.BatchNorm2d(8)
        self.head = Head(8)

    def forward(self, x):
        x = self.stem(x)
        return self.head(F.relu(self.three(x) + self.one(x) + self.identity(x)))


@net(IMAGE)
class ConvMixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.GELU(), nn.BatchNorm2d(8))
        self.depthwise = nn.Sequential(
            nn.Conv2d(8, 8, 3, groups=8, padding="same"), nn.GELU(), nn.BatchNorm2d(8)
        )
        self.point = nn.Sequential(nn.Conv2d(8, 8, 1), nn.GELU(), nn.BatchNorm2d(8))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(8, 5))

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.point(self.depthwise(x) + x))


@net(IMAGE)
class VGG(nn.Module):
    """Flattened features, batch norm between the linear layers as well."""

    def __init__(self):
        super().__init__()
        layers, i = [], 3
        for o in (6, "M", 8, "M"):
            if o == "M":
                layers.append(nn.MaxPool2d(2, 2))
            else:
                layers += [nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(True)]
                i = o
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(128, 12), nn.BatchNorm1d(12), nn.ReLU(True), nn.Dropout(), nn.Linear(12, 5)
        )

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


@net(IMAGE)
class PlainCNN(nn.Module):
    """LeNet: nothing is normalised."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 5), nn.Conv2d(4, 6, 3)
        self.fc1, self.fc2 = nn.Linear(24, 10), nn.Linear(10, 5)

    def forward(self, x):
        x = F.max_pool2d(torch.tanh(self.conv1(x)), 2)
        x = F.max_pool2d(torch.tanh(self.conv2(x)), 2)
        return self.fc2(torch.tanh(self.fc1(x.view(x.size(0), -1))))


@net(IMAGE)
class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1 = nn.Sequential(conv_bn(3, 4), conv_bn(4, 4))
        self.down2 = nn.Sequential(conv_bn(4, 8), conv_bn(8, 8))
        self.middle = conv_bn(8, 12)
        self.up2 = nn.ConvTranspose2d(12, 8, 2, 2)
        self.dec2 = conv_bn(16, 8)
        self.up1 = nn.ConvTranspose2d(8, 4, 2, 2)
        self.dec1 = conv_bn(8, 4)
        self.out = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        x = self.up2(self.middle(F.max_pool2d(b, 2)))
        x = self.up1(self.dec2(torch.cat([x, b], 1)))
        return self.out(self.dec1(torch.cat([x, a], 1)))


@net(IMAGE)
class DeepLab(nn.Module):
    """Atrous pyramid with an image-level branch that is upsampled from one pixel."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(conv_bn(3, 8, stride=2), conv_bn(8, 8, padding=2, dilation=2))
        self.branches = nn.ModuleList(
            [conv_bn(8, 4, 1), *(conv_bn(8, 4, 3, padding=d, dilation=d) for d in (2, 3))]
        )
        self.image = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_bn(8, 4, 1))
        self.project = conv_bn(16, 6, 1)
        self.out = nn.Conv2d(6, 3, 1)

    def forward(self, x):
        size = x.shape[-2:]
        x = self.backbone(x)
        pooled = F.interpolate(self.image(x), x.shape[-2:], mode="bilinear", align_corners=False)
        x = self.project(torch.cat([*(b(x) for b in self.branches), pooled], 1))
        return F.interpolate(self.out(x), size=size, mode="bilinear", align_corners=False)


@net(IMAGE)
class FeaturePyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.c2, self.c3, self.c4 = conv_bn(3, 6), conv_bn(6, 8, stride=2), conv_bn(8, 10, stride=2)
        self.lateral = nn.ModuleList(nn.Conv2d(c, 6, 1) for c in (6, 8, 10))
        self.smooth = nn.ModuleList(
            nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.GroupNorm(2, 6)) for _ in range(3)
        )
        self.box = nn.Conv2d(6, 4, 3, padding=1)

    def forward(self, x):
        c2 = self.c2(x)
        c3 = self.c3(c2)
        c4 = self.c4(c3)
        p4 = self.lateral[2](c4)
        p3 = self.lateral[1](c3) + F.interpolate(p4, scale_factor=2, mode="nearest")
        p2 = self.lateral[0](c2) + F.interpolate(p3, scale_factor=2, mode="nearest")
        levels = [s(p) for s, p in zip(self.smooth, (p2, p3, p4), strict=True)]
        return [self.box(F.relu(level)) for level in levels]


@net((2, 8, 8, 8))
class VolumeNet(nn.Module):
    """Three spatial axes, instance norm with gains, strided and transposed convolutions."""

    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(
            nn.Conv3d(2, 4, 3, padding=1), nn.InstanceNorm3d(4, affine=True), nn.LeakyReLU()
        )
        self.down = nn.Sequential(
            nn.Conv3d(4, 6, 2, 2), nn.InstanceNorm3d(6, affine=True), nn.ReLU()
        )
        self.up = nn.ConvTranspose3d(6, 4, 2, 2)
        self.bn = nn.BatchNorm3d(4)
        self.out = nn.Conv3d(4, 2, 1)

    def forward(self, x):
        x = self.down(self.enc(x))
        return self.out(F.elu(self.bn(self.up(x))))


@net((4, 32))
class TemporalConvNet(nn.Module):
    """Bai et al. 2018: causal, dilated, weight-normalised."""

    def __init__(self):
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        self.convs = nn.ModuleList(
            norm(nn.Conv1d(4 if i == 0 else 8, 8, 3, dilation=2**i)) for i in range(3)
        )
        self.match = nn.Conv1d(4, 8, 1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        residual = self.match(x)
        for i, layer in enumerate(self.convs):
            x = F.relu(layer(F.pad(x, (2 * 2**i, 0))))
        return self.fc(F.relu(x + residual)[:, :, -1])


@net((3, 32))
class WaveNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.start = nn.Conv1d(3, 6, 1)
        self.filters = nn.ModuleList(nn.Conv1d(6, 12, 2, dilation=2**i) for i in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm1d(12) for _ in range(3))
        self.mix = nn.ModuleList(nn.Conv1d(6, 6, 1) for _ in range(3))
        self.skip = nn.ModuleList(nn.Conv1d(6, 8, 1) for _ in range(3))
        self.end = nn.Conv1d(8, 4, 1)

    def forward(self, x):
        x, total = self.start(x), 0
        for f, n, m, s in zip(self.filters, self.norms, self.mix, self.skip, strict=True):
            a, b = n(f(x)).chunk(2, 1)
            z = torch.tanh(a) * torch.sigmoid(b)
            total = total + s(z)[..., -20:]
            x = m(z) + x[..., -z.shape[-1] :]
        return self.end(F.relu(total))


@net((12, 3))
class PointNet(nn.Module):
    """Shared layers per point, a maximum over points."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(3, 8, 1), nn.Conv1d(8, 12, 1)
        self.bn1, self.bn2 = nn.BatchNorm1d(8), nn.BatchNorm1d(12)
        self.fc1, self.fc2 = nn.Linear(12, 9), nn.Linear(9, 9)
        self.bn3 = nn.BatchNorm1d(9)

    def forward(self, points):
        x = points.transpose(2, 1)
        x = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        x = torch.max(x, 2, keepdim=True)[0].view(-1, 12)
        x = self.fc2(F.relu(self.bn3(self.fc1(x)))).view(-1, 3, 3)
        return torch.bmm(points, x + torch.eye(3, dtype=x.dtype))


@net((6, 5), (6, 6))
class GraphConvNet(nn.Module):
    """Kipf and Welling: D^-1/2 A D^-1/2 X W, batch norm over nodes, layer norm at the end."""

    def __init__(self):
        super().__init__()
        self.w1, self.w2 = nn.Linear(5, 8, bias=False), nn.Linear(8, 8)
        self.bn = nn.BatchNorm1d(8)
        self.ln = nn.LayerNorm(8)
        self.out = nn.Linear(8, 3)

    def forward(self, x, adjacency):
        a = adjacency.abs()
        root = a.sum(-1).clamp(min=1e-6).pow(-0.5)
        a = root.unsqueeze(-1) * a * root.unsqueeze(-2)
        h = a @ self.w1(x)
        h = F.relu(self.bn(h.reshape(-1, 8)).reshape(h.shape))
        return self.out(self.ln(torch.matmul(a, self.w2(h))).mean(dim=1))


@net(IMAGE)
class StochasticDepthBottleneck(nn.Module):
    """Blur pooling, zero-padded shortcuts (option A), a bottleneck with a dilated convolution."""

    def __init__(self):
        super().__init__()
        self.stem = conv_bn(3, 4)
        self.reduce = conv_bn(4, 4, 1)
        self.conv = nn.Conv2d(4, 8, 3, stride=2, padding=2, dilation=2, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.register_buffer("blur", torch.tensor([1.0, 2.0, 1.0]) / 4)
        self.head = Head(8)

    def forward(self, x):
        x = self.stem(x)
        y = self.bn(self.conv(self.reduce(x)))
        kernel = (self.blur[:, None] * self.blur[None]).expand(4, 1, 3, 3)
        short = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, stride=2, groups=4)
        return self.head(F.relu(y + F.pad(short, (0, 0, 0, 0, 2, 2))))
