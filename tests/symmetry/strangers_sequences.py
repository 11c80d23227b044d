"""Recurrent networks, generators, flows, capsules, and stages that shrink to one token."""

import math

import torch
import torch.nn.functional as F
from strangers import Head, conv_bn, net
from torch import nn

IMAGE = (3, 16, 16)


@net((6, 5))
class LayerNormLSTM(nn.Module):
    """Ba et al. 2016: both projections and the cell are layer-normalised."""

    def __init__(self):
        super().__init__()
        self.ih, self.hh = nn.Linear(5, 32, bias=False), nn.Linear(8, 32, bias=False)
        self.ln_i, self.ln_h, self.ln_c = nn.LayerNorm(32), nn.LayerNorm(32), nn.LayerNorm(8)
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        h = c = x.new_zeros(x.shape[0], 8)
        h = h + 0.1
        for t in range(x.shape[1]):
            i, f, g, o = (self.ln_i(self.ih(x[:, t])) + self.ln_h(self.hh(h))).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(self.ln_c(c))
        return self.out(h)


@net((6, 5))
class GRUWithNorm(nn.Module):
    """torch's GRU and LSTM, the embedding in front normalised, the state behind as well."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Linear(5, 8), nn.LayerNorm(8)
        self.gru = nn.GRU(8, 8, batch_first=True)
        self.lstm = nn.LSTM(8, 6, batch_first=True, bidirectional=True)
        self.bn, self.out = nn.BatchNorm1d(12), nn.Linear(12, 3)

    def forward(self, x):
        x, _ = self.gru(self.norm(self.embed(x)))
        x, _ = self.lstm(x)
        return self.out(self.bn(x[:, -1]))


@net((6, 5))
class MinimalGatedUnit(nn.Module):
    def __init__(self):
        super().__init__()
        self.fx, self.hx = nn.Linear(5, 6), nn.Linear(5, 6)
        self.fh = nn.Linear(6, 6, bias=False)
        self.norm, self.out = nn.LayerNorm(6), nn.Linear(6, 2)

    def forward(self, x):
        h = torch.zeros(x.shape[0], 6, dtype=x.dtype)
        for t in range(4):
            f = torch.sigmoid(self.fx(x[:, t]) + self.fh(h))
            h = (1 - f) * h + f * torch.tanh(self.hx(x[:, t]))
        return self.out(self.norm(h))


@net((6,), (3, 8, 8))
class AdaINDecoder(nn.Module):
    """Huang and Belongie 2017: statistics of the style, here from a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.style1, self.style2 = nn.Linear(6, 12), nn.Linear(6, 12)
        self.rgb = nn.Conv2d(6, 3, 1)
        self.eps = 1e-5

    def adain(self, x, style):
        gain, bias = style.unsqueeze(-1).unsqueeze(-1).chunk(2, 1)
        flat = x.view(x.size(0), x.size(1), -1)
        mean, std = flat.mean(2), (flat.var(2) + self.eps).sqrt()
        x = (x - mean[:, :, None, None]) / std[:, :, None, None]
        return (1 + gain) * x + bias

    def forward(self, z, x):
        x = F.leaky_relu(self.adain(self.conv1(x), self.style1(z)), 0.2)
        return self.rgb(F.leaky_relu(self.adain(self.conv2(x), self.style2(z)), 0.2))


@net((6,), (4, 8, 8))
class StyleGANLayer(nn.Module):
    """Modulated convolution with demodulation (Karras et al. 2020)."""

    def __init__(self):
        super().__init__()
        self.affine1, self.affine2 = nn.Linear(6, 4), nn.Linear(6, 5)
        self.w1 = nn.Parameter(torch.randn(5, 4, 3, 3))
        self.w2 = nn.Parameter(torch.randn(3, 5, 1, 1))
        self.b1 = nn.Parameter(torch.zeros(5))
        self.eps = 1e-8

    def modulated(self, x, weight, style, demodulate):
        n, c, h, w = x.shape
        weight = weight.unsqueeze(0) * style.view(n, 1, c, 1, 1)
        if demodulate:
            weight = (
                weight * (weight.square().sum([2, 3, 4]) + self.eps).rsqrt()[:, :, None, None, None]
            )
        o, k = weight.shape[1], weight.shape[3]
        x = F.conv2d(x.reshape(1, n * c, h, w), weight.flatten(0, 1), padding=k // 2, groups=n)
        return x.view(n, o, h, w)

    def forward(self, z, x):
        z = z * (z.pow(2).mean(1, keepdim=True) + self.eps).rsqrt()
        x = self.modulated(x, self.w1, self.affine1(z), True) + self.b1[:, None, None]
        return self.modulated(F.leaky_relu(x, 0.2) * 2**0.5, self.w2, self.affine2(z), False)


@net((8,), (3,))
class ConditionalGenerator(nn.Module):
    """Batch norm without gains, gains and biases from the condition."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 6 * 4 * 4)
        self.gains = nn.ModuleList(nn.Linear(3, 12) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(6, affine=False) for _ in range(2))
        self.convs = nn.ModuleList(nn.ConvTranspose2d(6, 6, 4, 2, 1) for _ in range(2))
        self.rgb = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, z, y):
        x = self.fc(z).view(-1, 6, 4, 4)
        for gain, norm, conv in zip(self.gains, self.norms, self.convs, strict=True):
            gamma, beta = gain(y).chunk(2, 1)
            x = conv(F.relu(norm(x) * (1 + gamma[..., None, None]) + beta[..., None, None]))
        return torch.tanh(self.rgb(x))


@net((8,))
class DCGAN(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(8, 8, 4, 1, 0, bias=False), nn.BatchNorm2d(8), nn.ReLU(True),
            nn.ConvTranspose2d(8, 6, 4, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(True),
            nn.ConvTranspose2d(6, 3, 4, 2, 1, bias=False), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z):
        return self.main(z[:, :, None, None])


@net(IMAGE, (6,))
class FiLM(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.conv, self.bn = (
            nn.Conv2d(8, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8, affine=False),
        )
        self.film = nn.Linear(6, 16)
        self.head = Head(8)

    def forward(self, x, condition):
        x = self.stem(x)
        gamma, beta = self.film(condition).view(-1, 2, 8, 1, 1).unbind(1)
        return self.head(x + F.relu(gamma * self.bn(self.conv(x)) + beta))


@net((6, 8))
class Capsules(nn.Module):
    """Squashing and two rounds of routing by agreement."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(1, 6, 4, 8, 5) * 0.3)
        self.eps = 1e-8

    def squash(self, s):
        n = s.pow(2).sum(-1, keepdim=True)
        return n / (1 + n) * s / (n + self.eps).sqrt()

    def forward(self, x):
        u = (x[:, :, None, None, :] @ self.w).squeeze(3)
        b = u.new_zeros(u.shape[:3])
        for _ in range(2):
            v = self.squash((b.softmax(2).unsqueeze(-1) * u).sum(1))
            b = b + (u * v.unsqueeze(1)).sum(-1)
        return v.norm(dim=-1)


@net((8,))
class CouplingFlow(nn.Module):
    """RealNVP with activation normalisation by learned gains; returns the log-density too."""

    def __init__(self):
        super().__init__()
        self.log_gain, self.shift = nn.Parameter(torch.zeros(8)), nn.Parameter(torch.zeros(8))
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 8))
            for _ in range(2)
        )

    def forward(self, x):
        x = (x + self.shift) * self.log_gain.exp()
        log_det = self.log_gain.sum().expand(x.shape[0])
        for network in self.nets:
            a, b = x.chunk(2, dim=1)
            s, t = network(a).chunk(2, dim=1)
            s = torch.tanh(s)
            x = torch.cat([b * s.exp() + t, a], 1)
            log_det = log_det + s.sum(1)
        return x, log_det


@net((8, 6))
class VariationalAutoencoder(nn.Module):
    """Mean and log-variance; decoded from the mean."""

    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(48, 16), nn.BatchNorm1d(16), nn.LeakyReLU())
        self.mu, self.logvar = nn.Linear(16, 4), nn.Linear(16, 4)
        self.dec = nn.Sequential(nn.Linear(4, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 48))

    def forward(self, x):
        h = self.enc(x.flatten(1))
        return self.dec(self.mu(h)).view_as(x), self.mu(h), self.logvar(h).exp()


@net((3, 16, 16))
class OneTokenStage(nn.Module):
    """The last stage of a pyramid sees one token: its queries and keys decide nothing."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.down = nn.Conv2d(8, 8, 4, 4)
        self.n1, self.n2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.qkv1, self.qkv2 = nn.Linear(8, 24), nn.Linear(8, 24)
        self.proj1, self.proj2 = nn.Linear(8, 8), nn.Linear(8, 8)
        self.fc = nn.Linear(8, 4)

    def attend(self, x, qkv):
        q, k, v = qkv(x).view(x.shape[0], x.shape[1], 3, 2, 4).permute(2, 0, 3, 1, 4)
        weights = torch.softmax((q * 0.5) @ k.transpose(-1, -2), dim=-1)
        return (weights @ v).transpose(1, 2).reshape(x.shape)

    def forward(self, x):
        x = self.stem(x)
        y = x.flatten(2).transpose(1, 2)
        y = y + self.proj1(self.attend(self.n1(y), self.qkv1))
        x = self.down(y.transpose(1, 2).reshape(x.shape))
        y = x.flatten(2).transpose(1, 2)
        y = y + self.proj2(self.attend(self.n2(y), self.qkv2))
        return self.fc(y.mean(1))


@net((8, 6))
class ClassAttention(nn.Module):
    """CaiT: only the class token asks, and only it is read."""

    def __init__(self):
        super().__init__()
        self.embed, self.cls = nn.Linear(6, 8), nn.Parameter(torch.randn(1, 1, 8))
        self.n0, self.n1, self.n2 = nn.LayerNorm(8), nn.LayerNorm(8), nn.LayerNorm(8)
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.proj, self.fc = nn.Linear(8, 8), nn.Linear(8, 3)
        self.last = nn.Linear(8, 8)
        self.gamma = nn.Parameter(1e-5 * torch.ones(8))

    def forward(self, x):
        x = self.embed(x)
        tokens = torch.cat([self.cls.expand(x.shape[0], -1, -1), self.n0(x)], 1)
        y = self.n1(tokens)
        scores = self.q(y[:, :1]) @ self.k(y).transpose(1, 2) / math.sqrt(8)
        cls = tokens[:, :1] + self.gamma * self.proj(scores.softmax(-1) @ self.v(y))
        tokens = torch.cat([cls, self.last(tokens[:, 1:])], 1)
        return self.fc(self.n2(tokens)[:, 0])
