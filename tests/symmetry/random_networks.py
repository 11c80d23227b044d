"""Networks drawn at random from a grammar of layers: a hold-out that no one has tuned anything to.

A seed draws a convolutional, a token or a plain network: its depth, normalisations, activations,
skip connections, gates, biases and head. `python tests/symmetry/random_networks.py FIRST COUNT`
measures that many of them against numeric rescaling.
"""

import json
import random
import sys

import torch
from torch import nn
from torch.nn import functional as F

ACTIVATIONS = (
    nn.ReLU,
    nn.GELU,
    nn.SiLU,
    nn.LeakyReLU,
    nn.Tanh,
    nn.Hardswish,
    nn.ReLU6,
    nn.Identity,
)


class RMS(nn.Module):
    """Root-mean-square norm over the last axis, written out."""

    def __init__(self, width, gain):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width)) if gain else None
        self.eps = 1e-6

    def forward(self, x):
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        return x if self.gain is None else x * self.gain


class Unit(nn.Module):
    """Length one along the last axis."""

    def forward(self, x):
        return F.normalize(x, dim=-1)


def image_norm(draw, width):
    return draw.choice(
        (
            lambda: nn.BatchNorm2d(width),
            lambda: nn.BatchNorm2d(width),
            lambda: nn.BatchNorm2d(width, affine=False),
            lambda: nn.GroupNorm(draw.choice((1, 2, 4)) if width % 4 == 0 else 1, width),
            lambda: nn.InstanceNorm2d(width, affine=draw.random() < 0.5),
            nn.Identity,
        )
    )()


def token_norm(draw, width):
    return draw.choice(
        (
            lambda: nn.LayerNorm(width),
            lambda: nn.LayerNorm(width, elementwise_affine=False),
            lambda: RMS(width, draw.random() < 0.7),
            Unit,
            nn.Identity,
        )
    )()


class ConvBlock(nn.Module):
    """One or two convolutions, norms before or after, a skip of some kind, perhaps a gate."""

    def __init__(self, draw, i, o):
        super().__init__()
        kind = draw.choice((1, 1, 3, 3, 5))
        groups = draw.choice((1, 1, 1, 2)) if i % 2 == 0 and o % 2 == 0 else 1
        self.before = image_norm(draw, i) if draw.random() < 0.3 else nn.Identity()
        self.first = nn.Conv2d(
            i, o, kind, padding=kind // 2, groups=groups, bias=draw.random() < 0.5
        )
        self.norm = image_norm(draw, o)
        self.act = draw.choice(ACTIVATIONS)()
        self.deep = draw.random() < 0.5
        if self.deep:
            depthwise = o if draw.random() < 0.4 else 1
            self.second = nn.Conv2d(o, o, 3, padding=1, groups=depthwise, bias=draw.random() < 0.5)
            self.norm2 = image_norm(draw, o)
        self.skip = draw.choice(("none", "add", "add", "cat", "scale", "project"))
        if self.skip == "project":
            self.project = nn.Conv2d(i, o, 1, bias=draw.random() < 0.5)
            self.norm3 = image_norm(draw, o)
        if self.skip == "scale":
            self.scale = nn.Parameter(torch.full((o, 1, 1), 0.5))
        self.gate = nn.Linear(o, o) if draw.random() < 0.2 else None
        self.out = i + o if self.skip == "cat" else o

    def forward(self, x):
        y = self.act(self.norm(self.first(self.before(x))))
        if self.deep:
            y = self.norm2(self.second(y))
        if self.gate is not None:
            y = y * torch.sigmoid(self.gate(y.mean((2, 3))))[:, :, None, None]
        if self.skip == "cat":
            return torch.cat([x, y], 1)
        if self.skip == "project":
            return y + self.norm3(self.project(x))
        if x.shape == y.shape and self.skip in ("add", "scale"):
            return x + y * self.scale if self.skip == "scale" else F.relu(x + y)
        return y


class TokenBlock(nn.Module):
    """Attention and a perceptron, with the norms where the draw puts them."""

    def __init__(self, draw, width):
        super().__init__()
        self.heads = draw.choice((1, 2))
        bias = draw.random() < 0.5
        self.fused = draw.random() < 0.5
        if self.fused:
            self.qkv = nn.Linear(width, 3 * width, bias=bias)
        else:
            self.q, self.k, self.v = (nn.Linear(width, width, bias=bias) for _ in range(3))
        each = width // self.heads
        self.q_norm, self.k_norm = token_norm(draw, each), token_norm(draw, each)
        self.out = nn.Linear(width, width, bias=draw.random() < 0.5)
        self.pre, self.post = token_norm(draw, width), token_norm(draw, width)
        self.pre2, self.post2 = token_norm(draw, width), token_norm(draw, width)
        self.gated = draw.random() < 0.4
        self.up = nn.Linear(width, 2 * width, bias=draw.random() < 0.5)
        self.side = nn.Linear(width, 2 * width, bias=False) if self.gated else None
        self.down = nn.Linear(2 * width, width, bias=draw.random() < 0.5)
        self.act = draw.choice(ACTIVATIONS)()
        self.causal = draw.random() < 0.5

    def forward(self, x):
        b, t, c = x.shape
        h = self.pre(x)
        q, k, v = self.qkv(h).chunk(3, -1) if self.fused else (self.q(h), self.k(h), self.v(h))
        q, k, v = (s.view(b, t, self.heads, -1).transpose(1, 2) for s in (q, k, v))
        y = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v, is_causal=self.causal)
        x = x + self.post(self.out(y.transpose(1, 2).reshape(b, t, c)))
        h = self.pre2(x)
        up = self.act(self.up(h))
        if self.side is not None:
            up = up * self.side(h)
        return x + self.post2(self.down(up))


class RandomImages(nn.Module):
    def __init__(self, draw):
        super().__init__()
        blocks, width = [], 3
        for _ in range(draw.randint(2, 4)):
            block = ConvBlock(draw, width, draw.choice((4, 8)))
            blocks.append(block)
            width = block.out
        self.blocks = nn.ModuleList(blocks)
        self.pool = draw.choice((nn.AvgPool2d, nn.MaxPool2d, None))
        self.last = nn.LayerNorm(width) if draw.random() < 0.3 else nn.Identity()
        self.fc = nn.Linear(width, 5, bias=draw.random() < 0.7)

    def forward(self, x):
        for at, block in enumerate(self.blocks):
            x = block(x)
            if self.pool is not None and at == 0:
                x = self.pool(2)(x)
        return self.fc(self.last(x.mean((2, 3))))


class RandomTokens(nn.Module):
    def __init__(self, draw):
        super().__init__()
        width = 8
        self.embed = nn.Embedding(11, width)
        self.place = nn.Parameter(torch.zeros(6, width)) if draw.random() < 0.5 else None
        self.blocks = nn.ModuleList(TokenBlock(draw, width) for _ in range(draw.randint(1, 3)))
        self.norm = token_norm(draw, width)
        self.cut = draw.choice(("all", "first", "mean"))
        self.head = nn.Linear(width, 11, bias=False)
        if draw.random() < 0.3:
            self.head.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens)
        x = x if self.place is None else x + self.place
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        x = x[:, 0] if self.cut == "first" else x.mean(1) if self.cut == "mean" else x
        return self.head(x)


class RandomVectors(nn.Module):
    def __init__(self, draw):
        super().__init__()
        layers, width = [], 6
        for _ in range(draw.randint(2, 5)):
            wide = draw.choice((5, 7))
            layers.append(nn.Linear(width, wide, bias=draw.random() < 0.5))
            if draw.random() < 0.7:
                layers.append(
                    nn.BatchNorm1d(wide) if draw.random() < 0.5 else token_norm(draw, wide)
                )
            layers.append(draw.choice(ACTIVATIONS)())
            width = wide
        self.layers = nn.Sequential(*layers)
        self.cosine = draw.random() < 0.3
        self.head = nn.Linear(width, 4, bias=not self.cosine)

    def forward(self, x):
        x = self.layers(x)
        if self.cosine:
            return F.linear(F.normalize(x, dim=-1), F.normalize(self.head.weight, dim=-1))
        return self.head(x)


def random_network(seed):
    """(model, inputs, keyword inputs) of one seed."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    kind = draw.choice((RandomImages, RandomImages, RandomTokens, RandomTokens, RandomVectors))
    model = kind(draw).eval()
    if kind is RandomTokens:
        return model, (torch.randint(11, (2, 6)),), {}
    return model, (torch.randn(2, 3, 8, 8) if kind is RandomImages else torch.randn(4, 6),), {}


def main():
    from symmetry_measure import measured

    torch.set_num_threads(1)
    first, count = map(int, sys.argv[1:3])
    for seed in range(first, first + count):
        try:
            found = measured(*random_network(seed))
        except Exception as error:
            found = {"unmeasured": f"{type(error).__name__}: {str(error)[:300]}"}
        sys.stdout.write(json.dumps({"name": str(seed), "half": "random", **found}) + "\n")


if __name__ == "__main__":
    main()
