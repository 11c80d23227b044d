"""Small networks that each try to break one rule of the table."""

import torch
import torch.nn.functional as F
from torch import nn

MICRO = {}


def micro(*shape, integer=None):
    """Enters a class into the corpus with the shape of its input (batch first)."""

    def enter(cls):
        if integer is None:
            inputs = (torch.randn(2, *shape),)
        else:
            inputs = (torch.arange(2 * shape[0]).reshape(2, *shape) % integer,)
        MICRO[cls.__name__] = (cls, inputs)
        return cls

    return enter


class Seq(nn.Module):
    """A network written as one sequence."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)


def sequence(name, layers, *shape):
    """Enters a sequence into the corpus."""
    cls = type(name, (Seq,), {"__init__": lambda self: Seq.__init__(self, *layers())})
    MICRO[name] = (cls, (torch.randn(2, *shape),))


def conv(i, o, k=3, **options):
    return nn.Conv2d(i, o, k, **options)


IMAGE = (3, 8, 8)
HEAD = lambda c: (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 5))  # noqa: E731

sequence("conv_bn", lambda: (conv(3, 6), nn.BatchNorm2d(6), nn.ReLU(), *HEAD(6)), *IMAGE)
sequence("conv_act_bn", lambda: (conv(3, 6), nn.GELU(), nn.BatchNorm2d(6), *HEAD(6)), *IMAGE)
sequence("conv_relu_bn", lambda: (conv(3, 6), nn.ReLU(), nn.BatchNorm2d(6), *HEAD(6)), *IMAGE)
sequence(
    "conv_nobias_relu_bn",
    lambda: (conv(3, 6, bias=False), nn.ReLU(), nn.BatchNorm2d(6), *HEAD(6)),
    *IMAGE,
)
sequence("conv_relu6_bn", lambda: (conv(3, 6), nn.ReLU6(), nn.BatchNorm2d(6), *HEAD(6)), *IMAGE)
sequence("conv_leaky_bn", lambda: (conv(3, 6), nn.LeakyReLU(), nn.BatchNorm2d(6), *HEAD(6)), *IMAGE)
sequence("conv_prelu_bn", lambda: (conv(3, 6), nn.PReLU(6), nn.BatchNorm2d(6), *HEAD(6)), *IMAGE)
sequence("conv_gn", lambda: (conv(3, 12), nn.GroupNorm(3, 12), nn.SiLU(), *HEAD(12)), *IMAGE)
sequence(
    "conv_gn_nobias",
    lambda: (conv(3, 12, bias=False), nn.GroupNorm(3, 12), nn.SiLU(), *HEAD(12)),
    *IMAGE,
)
sequence("conv_in", lambda: (conv(3, 6), nn.InstanceNorm2d(6, affine=True), *HEAD(6)), *IMAGE)
sequence("conv_in_plain", lambda: (conv(3, 6), nn.InstanceNorm2d(6), nn.GELU(), *HEAD(6)), *IMAGE)
sequence("conv_pool_bn", lambda: (conv(3, 6), nn.MaxPool2d(2), nn.BatchNorm2d(6), *HEAD(6)), *IMAGE)
sequence(
    "conv_avgpool_pad_bn",
    lambda: (conv(3, 6), nn.AvgPool2d(3, 1, 1), nn.BatchNorm2d(6), *HEAD(6)),
    *IMAGE,
)
sequence(
    "conv_avgpool_nopad_count_bn",
    lambda: (
        conv(3, 6), nn.AvgPool2d(3, 1, 1, count_include_pad=False), nn.BatchNorm2d(6), *HEAD(6),
    ),
    *IMAGE,
)  # fmt: skip
sequence(
    "depthwise_bn",
    lambda: (
        conv(3, 6), nn.BatchNorm2d(6), conv(6, 6, groups=6, bias=False), nn.BatchNorm2d(6),
        *HEAD(6),
    ),
    *IMAGE,
)  # fmt: skip
sequence(
    "bn_relu_depthwise_bn",
    lambda: (
        conv(3, 6), nn.BatchNorm2d(6), nn.ReLU(), conv(6, 6, groups=6, padding=1, bias=False),
        nn.BatchNorm2d(6), *HEAD(6),
    ),
    *IMAGE,
)  # fmt: skip
sequence(
    "grouped_conv_bn",
    lambda: (conv(3, 8), nn.ReLU(), conv(8, 8, groups=4), nn.BatchNorm2d(8), *HEAD(8)),
    *IMAGE,
)
sequence(
    "conv_unpadded_bn_chain",
    lambda: (conv(3, 6), nn.BatchNorm2d(6), conv(6, 6, 1), nn.BatchNorm2d(6), *HEAD(6)),
    *IMAGE,
)
sequence(
    "conv_padded_bn_chain",
    lambda: (conv(3, 6), nn.BatchNorm2d(6), conv(6, 6, padding=1), nn.BatchNorm2d(6), *HEAD(6)),
    *IMAGE,
)
sequence(
    "conv_conv_bn", lambda: (conv(3, 6), conv(6, 6), nn.BatchNorm2d(6), nn.ReLU(), *HEAD(6)), *IMAGE
)
sequence(
    "conv_conv_padded_bn",
    lambda: (conv(3, 6), conv(6, 6, padding=1), nn.BatchNorm2d(6), nn.ReLU(), *HEAD(6)),
    *IMAGE,
)
sequence(
    "reflect_padding_bn",
    lambda: (
        conv(3, 6),
        conv(6, 6, padding=1, padding_mode="reflect"),
        nn.BatchNorm2d(6),
        *HEAD(6),
    ),
    *IMAGE,
)
sequence(
    "transposed_bn",
    lambda: (nn.ConvTranspose2d(3, 6, 3, 2), nn.BatchNorm2d(6), nn.GELU(), *HEAD(6)),
    *IMAGE,
)
sequence(
    "transposed_grouped_bn",
    lambda: (
        conv(3, 4), nn.GELU(), nn.ConvTranspose2d(4, 6, 3, 2, groups=2), nn.BatchNorm2d(6),
        nn.GELU(), *HEAD(6),
    ),
    *IMAGE,
)  # fmt: skip
sequence(
    "conv_upsample_bn",
    lambda: (conv(3, 6), nn.Upsample(scale_factor=2), nn.BatchNorm2d(6), nn.Tanh(), *HEAD(6)),
    *IMAGE,
)
sequence("linear_ln", lambda: (nn.Linear(8, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 4)), 8)
sequence(
    "linear_nobias_ln",
    lambda: (nn.Linear(8, 6, bias=False), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 4)),
    8,
)
sequence(
    "linear_rms",
    lambda: (nn.Linear(8, 6, bias=False), nn.RMSNorm(6), nn.GELU(), nn.Linear(6, 4)),
    8,
)
sequence("linear_rms_bias", lambda: (nn.Linear(8, 6), nn.RMSNorm(6), nn.GELU(), nn.Linear(6, 4)), 8)
sequence("linear_bn1d", lambda: (nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4)), 8)
sequence("ln_only_scale", lambda: (nn.LayerNorm(8), nn.LayerNorm(8), nn.Linear(8, 4)), 8)
sequence(
    "relu_pair_ln",
    lambda: (
        nn.Linear(8, 6),
        nn.ReLU(),
        nn.Linear(6, 6),
        nn.LayerNorm(6),
        nn.GELU(),
        nn.Linear(6, 3),
    ),
    8,
)
sequence("pair_no_norm", lambda: (nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)), 8)
sequence(
    "weight_norm",
    lambda: (
        nn.utils.parametrizations.weight_norm(nn.Linear(8, 6)), nn.GELU(), nn.Linear(6, 3),
    ),
    8,
)  # fmt: skip
sequence(
    "weight_norm_dim1",
    lambda: (
        nn.utils.parametrizations.weight_norm(nn.Conv1d(3, 6, 3), dim=2), nn.GELU(), nn.Flatten(),
        nn.Linear(36, 3),
    ),
    3, 8,
)  # fmt: skip
sequence(
    "spectral_norm",
    lambda: (nn.utils.parametrizations.spectral_norm(nn.Linear(8, 6)), nn.GELU(), nn.Linear(6, 3)),
    8,
)
sequence("glu_ln", lambda: (nn.Linear(8, 12), nn.GLU(), nn.LayerNorm(6), nn.Linear(6, 3)), 8)
sequence("softplus", lambda: (nn.Linear(8, 6), nn.Softplus(), nn.LayerNorm(6), nn.Linear(6, 3)), 8)
sequence(
    "conv_hardswish_bn", lambda: (conv(3, 6), nn.Hardswish(), nn.BatchNorm2d(6), *HEAD(6)), *IMAGE
)
sequence(
    "dead_dim_flatten_bn",
    lambda: (conv(3, 6), nn.Flatten(), nn.BatchNorm1d(216), nn.ReLU(), nn.Linear(216, 3)),
    *IMAGE,
)
sequence(
    "conv_ln_whole",
    lambda: (conv(3, 6), nn.LayerNorm((6, 6, 6)), nn.GELU(), *HEAD(6)),
    *IMAGE,
)
sequence(
    "bn_without_affine",
    lambda: (conv(3, 6), nn.BatchNorm2d(6, affine=False, track_running_stats=False), *HEAD(6)),
    *IMAGE,
)
sequence(
    "pixel_shuffle_bn",
    lambda: (conv(3, 8), nn.PixelShuffle(2), nn.BatchNorm2d(2), nn.GELU(), *HEAD(2)),
    *IMAGE,
)
sequence("softmax_logits", lambda: (nn.Linear(8, 6), nn.Softmax(-1), nn.Linear(6, 3)), 8)
sequence(
    "log_softmax_out", lambda: (nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 3), nn.LogSoftmax(-1)), 8
)
sequence("lrn", lambda: (conv(3, 6), nn.LocalResponseNorm(3), *HEAD(6)), *IMAGE)


@micro(*IMAGE)
class SkipMeetsBranch(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.bn = conv(3, 6), conv(3, 6), nn.BatchNorm2d(6)
        self.head = nn.Sequential(*HEAD(6))

    def forward(self, x):
        return self.head(torch.relu(self.bn(self.a(x) + self.b(x))))


@micro(*IMAGE)
class ConcatenateThenNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.bn = conv(3, 4), conv(3, 5), nn.BatchNorm2d(9)
        self.head = nn.Sequential(*HEAD(9))

    def forward(self, x):
        return self.head(torch.relu(self.bn(torch.cat([self.a(x), self.b(x)], 1))))


@micro(*IMAGE)
class ConcatenateThenLayerNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 4, bias=False), nn.Linear(8, 5, bias=False)
        self.norm, self.out = nn.LayerNorm(9), nn.Linear(9, 2)

    def forward(self, x):
        return self.out(self.norm(torch.cat([self.a(x), self.b(x)], -1)))


@micro(*IMAGE)
class WriteIntoView(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = conv(3, 3, padding=1)

    def forward(self, x):
        y = torch.zeros(x.shape[0], 6, 8, 8, dtype=x.dtype)
        y[:, :3] = self.conv(x)
        return torch.tanh(y)


@micro(*IMAGE)
class WriteIntoViewThenNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.out = conv(3, 3, padding=1), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        y = torch.zeros(x.shape[0], 6, 8, 8, dtype=x.dtype)
        y[:, :3] = self.conv(x)
        return torch.tanh(self.out(self.bn(y)))


@micro(*IMAGE)
class FrozenNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = conv(3, 6)
        self.register_buffer("mean", torch.randn(6))
        self.register_buffer("var", torch.rand(6) + 0.5)
        self.weight, self.bias = nn.Parameter(torch.ones(6)), nn.Parameter(torch.zeros(6))
        self.out = nn.Sequential(*HEAD(6))

    def forward(self, x):
        scale = self.weight * (self.var + 1e-5).rsqrt()
        shift = self.bias - self.mean * scale
        y = self.conv(x) * scale[:, None, None] + shift[:, None, None]
        return self.out(torch.relu(y))


@micro(*IMAGE)
class WeightStandardised(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.out = conv(3, 6), nn.Sequential(*HEAD(6))
        self.gain = nn.Parameter(torch.ones(6, 1, 1, 1))
        self.eps = 1e-6

    def forward(self, x):
        w = self.conv.weight
        mean = w.mean(dim=(1, 2, 3), keepdim=True)
        var = w.var(dim=(1, 2, 3), keepdim=True, unbiased=False)
        w = self.gain * (w - mean) / torch.sqrt(var + self.eps)
        return self.out(torch.tanh(F.conv2d(x, w, self.conv.bias)))


@micro(*IMAGE)
class StandardisedByBatchNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.out = conv(3, 6), nn.Sequential(*HEAD(6))
        self.eps = 1e-6

    def forward(self, x):
        w = self.conv.weight
        flat = F.batch_norm(
            w.reshape(1, 6, -1), None, None, training=True, momentum=0.0, eps=self.eps
        )
        return self.out(torch.tanh(F.conv2d(x, flat.reshape_as(w), self.conv.bias)))


@micro(8)
class NormaliseFunction(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 6), nn.Linear(6, 4, bias=False)

    def forward(self, x):
        y = F.normalize(self.a(x), dim=-1, eps=1e-24)
        return F.linear(y, F.normalize(self.b.weight, dim=1, eps=1e-24)) * 3.0


@micro(8)
class RegularisedNumerator(nn.Module):
    """The small number beside the sum of squares does not guard a quotient here."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 6, bias=False), nn.Linear(1, 4)

    def forward(self, x):
        y = self.a(x).pow(2).mean(-1, keepdim=True) * 1e-5 + 1e-5
        return self.b(y * 1e5)


@micro(8)
class LargeConstantBesideNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 6, bias=False), nn.Linear(6, 4)

    def forward(self, x):
        y = self.a(x)
        return self.b(y / (y.norm(dim=-1, keepdim=True) + 0.5))


@micro(8)
class ConstantMeetsScale(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(8, 6), nn.LayerNorm(6), nn.Linear(6, 4)

    def forward(self, x):
        return self.b(self.norm(torch.relu(self.a(x)) + torch.linspace(0, 1, 6, dtype=x.dtype)))


@micro(8)
class SameConstantMeetsScale(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Linear(8, 6, bias=False), nn.LayerNorm(6)
        self.b = nn.Linear(6, 4)

    def forward(self, x):
        return self.b(self.norm(self.a(x) + 1.0))


@micro(8)
class MaxWithIndices(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.bn = nn.Linear(8, 6), nn.Linear(6, 6), nn.BatchNorm1d(6)

    def forward(self, x):
        y = self.a(x)
        values, indices = y.max(dim=1, keepdim=True)
        return self.bn(self.b(y - values)) * (1.0 + indices)


@micro(8)
class ArgmaxGate(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 6, bias=False), nn.Embedding(6, 4)

    def forward(self, x):
        return torch.tanh(self.b(self.a(x).argmax(-1)))


@micro(*IMAGE)
class SqueezeExcite(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.down = conv(3, 6), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1)
        self.up, self.proj, self.bn2 = nn.Conv2d(2, 6, 1), nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)
        self.out = nn.Sequential(*HEAD(6))

    def forward(self, x):
        x = F.silu(self.bn(self.conv(x)))
        gate = torch.sigmoid(self.up(F.silu(self.down(x.mean((2, 3), keepdim=True)))))
        return self.out(self.bn2(self.proj(x * gate)))


@micro(*IMAGE)
class LayerScale(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.dw = conv(3, 6), nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm, self.up, self.down = nn.LayerNorm(6), nn.Linear(6, 12), nn.Linear(12, 6)
        self.gamma, self.last = nn.Parameter(torch.full((6,), 1e-6)), nn.LayerNorm(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.stem(x)
        y = self.norm(self.dw(x).permute(0, 2, 3, 1))
        y = self.gamma * self.down(F.gelu(self.up(y)))
        return self.head(self.last((x + y.permute(0, 3, 1, 2)).mean((2, 3))))


@micro(*IMAGE)
class PoolMinusItself(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.bn = conv(3, 6), nn.BatchNorm2d(6)
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.head = nn.Sequential(*HEAD(6))

    def forward(self, x):
        x = self.stem(x)
        return self.head(torch.relu(self.bn(self.pool(x) - x)))


@micro(*IMAGE)
class PreActivation(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv(3, 6, bias=False, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6) for _ in range(3))
        self.convs = nn.ModuleList(conv(6, 6, bias=False, padding=1) for _ in range(2))
        self.head = nn.Sequential(*HEAD(6))

    def forward(self, x):
        x = self.stem(x)
        for norm, layer in zip(self.norms, self.convs, strict=False):
            x = x + layer(torch.relu(norm(x)))
        return self.head(torch.relu(self.norms[2](x)))


class Attention(nn.Module):
    """Self-attention with choices."""

    def __init__(self, width=8, heads=2, *, fused=False, norm=None, bias=True, style="sdpa"):
        super().__init__()
        self.heads, self.fused, self.norm, self.style = heads, fused, norm, style
        if fused:
            self.qkv = nn.Linear(width, 3 * width, bias=bias)
        else:
            self.q, self.k, self.v = (nn.Linear(width, width, bias=bias) for _ in range(3))
        if norm in ("rms", "layer"):
            kind = nn.RMSNorm if norm == "rms" else nn.LayerNorm
            self.q_norm, self.k_norm = kind(width // heads), kind(width // heads)
        self.out = nn.Linear(width, width)

    def forward(self, x):
        b, t, d = x.shape
        if self.fused:
            q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        else:
            q, k, v = (
                layer(x).reshape(b, t, self.heads, -1).transpose(1, 2)
                for layer in (self.q, self.k, self.v)
            )
        if self.norm in ("rms", "layer"):
            q, k = self.q_norm(q), self.k_norm(k)
        if self.norm == "cosine":
            q, k = F.normalize(q, dim=-1, eps=1e-24), F.normalize(k, dim=-1, eps=1e-24)
        if self.style == "sdpa":
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            scores = q @ k.transpose(-1, -2) * 0.3
            if self.style == "masked":
                mask = torch.ones(t, t, dtype=torch.bool).triu(1)
                scores = scores.masked_fill(mask, float("-inf"))
            y = scores.softmax(-1) @ v
        return self.out(y.transpose(1, 2).reshape(b, t, d))


def attention(name, **options):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.attention = nn.LayerNorm(8), Attention(**options)
            self.norm2, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.norm2(x + self.attention(self.norm1(x))))

    MICRO[name] = (Block, (torch.randn(2, 5, 8),))


attention("attention_sdpa")
attention("attention_written", style="written")
attention("attention_masked", style="masked")
attention("attention_no_bias", bias=False)
attention("attention_fused", fused=True)
attention("attention_fused_rms", fused=True, norm="rms", bias=False)
attention("attention_fused_rms_bias", fused=True, norm="rms")
attention("attention_fused_cosine", fused=True, norm="cosine", bias=False, style="written")
attention("attention_q_layer_norm", norm="layer")
attention("attention_q_rms_bias", norm="rms")
attention("attention_q_rms", norm="rms", bias=False)


@micro(5, 8)
class GroupedQueries(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, n, bias=False) for n in (8, 4, 4))
        self.q_norm, self.k_norm, self.o = nn.RMSNorm(2), nn.RMSNorm(2), nn.Linear(8, 8, bias=False)
        self.norm, self.head = nn.RMSNorm(8), nn.Linear(8, 3)

    def forward(self, x):
        b, t, _ = x.shape
        q = self.q_norm(self.q(x).view(b, t, 4, 2)).transpose(1, 2)
        k = self.k_norm(self.k(x).view(b, t, 2, 2)).transpose(1, 2).repeat_interleave(2, dim=1)
        v = self.v(x).view(b, t, 2, 2).transpose(1, 2).repeat_interleave(2, dim=1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, 8)
        return self.head(x + self.norm(self.o(y)))


@micro(1, 8)
class OneToken(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = Attention(style="written")

    def forward(self, x):
        return self.attention(x)


@micro(5, integer=7)
class TiedEmbedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Embedding(7, 8), nn.LayerNorm(8)
        self.head = nn.Linear(8, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(self.norm(self.embed(x)))


@micro(5, integer=7)
class EmbeddingThenNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.place = nn.Embedding(7, 8), nn.Parameter(torch.randn(6, 8))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 7)

    def forward(self, x):
        return self.head(self.norm(self.embed(x) + self.place[: x.shape[1]]))


@micro(5, integer=7)
class EmbeddingAloneThenNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.head = nn.Embedding(7, 8), nn.LayerNorm(8), nn.Linear(8, 7)

    def forward(self, x):
        return self.head(self.norm(self.embed(x)))


@micro(5, 8)
class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.pre, self.norm, self.lstm = (
            nn.Linear(8, 8),
            nn.LayerNorm(8),
            nn.LSTM(8, 6, batch_first=True),
        )
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.lstm(self.norm(self.pre(x)))[0])


@micro(8)
class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Linear(8, 6), nn.LayerNorm(6)
        self.first, self.second, self.unused = (nn.Linear(6, 3) for _ in range(3))

    def forward(self, x):
        y = self.norm(self.a(x))
        return {"first": self.first(y), "second": self.second(y)}


@micro(8)
class DeadBranch(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(8, 6), nn.LayerNorm(6), nn.Linear(6, 3)
        self.bn = nn.BatchNorm1d(6)

    def forward(self, x):
        y = self.a(x)
        torch.sigmoid(self.bn(y))
        return self.b(self.norm(y))


@micro(8)
class ProductOfBranches(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 6, bias=False), nn.Linear(8, 6, bias=False)
        self.norm, self.c = nn.RMSNorm(6), nn.Linear(6, 3)

    def forward(self, x):
        return self.c(self.norm(self.a(x) * self.b(x)))


@micro(8)
class RatioOfBranches(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.c = nn.Linear(8, 6, bias=False), nn.Linear(6, 3)

    def forward(self, x):
        y = self.a(x)
        return self.c(y / y.abs().amax(-1, keepdim=True))


@micro(8)
class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 6), nn.Linear(8, 6)
        self.norm, self.c = nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, x):
        return self.c(self.norm(self.a(x) * torch.sigmoid(self.b(x))))


@micro(8)
class SignOnly(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.c = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.c(torch.sign(self.a(x)))


@micro(*IMAGE)
class ShuffledChannels(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.gn = conv(3, 8, bias=False), nn.GroupNorm(2, 8)
        self.head = nn.Sequential(nn.GELU(), *HEAD(8))

    def forward(self, x):
        y = self.conv(x)
        n, c, h, w = y.shape
        y = y.view(n, 2, 4, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(self.gn(y))


@micro(*IMAGE)
class Windows(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 1), nn.LayerNorm(8)
        self.attention, self.head = Attention(fused=True), nn.Linear(8, 3)

    def forward(self, x):
        y = self.norm(self.conv(x).permute(0, 2, 3, 1))
        y = torch.roll(y, (-1, -1), (1, 2))
        n = y.shape[0]
        y = y.view(n, 2, 4, 2, 4, 8).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, 8)
        return self.head(self.attention(y)).mean(1)


@micro(*IMAGE)
class GateBeforeNorm(nn.Module):
    """x + s(x): constant over the image, but not over the batch."""

    def __init__(self):
        super().__init__()
        self.conv, self.gate = conv(3, 6, bias=False), nn.Linear(6, 6, bias=False)
        self.bn, self.head = nn.BatchNorm2d(6), nn.Sequential(nn.GELU(), *HEAD(6))

    def forward(self, x):
        y = self.conv(x)
        return self.head(self.bn(y + self.gate(y.mean((2, 3)))[:, :, None, None]))


@micro(*IMAGE)
class InstanceShift(nn.Module):
    """What is constant over the image vanishes in an instance norm, unlike in a batch norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.gate = conv(3, 6, bias=False), nn.Linear(3, 6)
        self.norm, self.head = nn.InstanceNorm2d(6), nn.Sequential(nn.GELU(), *HEAD(6))

    def forward(self, x):
        y = self.conv(x) + self.gate(x.mean((2, 3)))[:, :, None, None]
        return self.head(self.norm(y))


@micro(*IMAGE)
class OneByOneNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.bn, self.head = nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.bn(self.fc(x.mean((2, 3), keepdim=True))).flatten(1))


@micro(*IMAGE)
class GlobalResponse(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.gamma = conv(3, 6, bias=False), nn.Parameter(torch.zeros(6))
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 3)
        self.eps = 1e-6

    def forward(self, x):
        x = self.conv(x).permute(0, 2, 3, 1)
        length = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        share = length / (length.mean(-1, keepdim=True) + self.eps)
        return self.head(self.norm(x + self.gamma * (x * share)).mean((1, 2)))


@micro(8)
class WhereMeets(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 6, bias=False), nn.Linear(8, 6, bias=False)
        self.norm, self.c = nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, x):
        y, z = self.a(x), self.b(x)
        return self.c(self.norm(torch.where(y > 0, y, z)))


@micro(8)
class ThresholdOne(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.c = nn.Linear(8, 6, bias=False), nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, x):
        y = self.a(x)
        return self.c(self.norm(torch.where(y > 0.1, y, torch.zeros_like(y))))


@micro(8)
class Quantised(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.c = nn.Linear(8, 6, bias=False), nn.Linear(6, 3)

    def forward(self, x):
        w = self.a.weight
        scale = w.abs().amax() / 7
        return self.c(torch.tanh(F.linear(x, torch.round(w / scale) * 0.1)))


@micro(8)
class DetachedLength(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.c = nn.Linear(8, 6, bias=False), nn.Linear(6, 3)

    def forward(self, x):
        w = self.a.weight
        return self.c(torch.tanh(F.linear(x, w / w.norm().detach())))


@micro(6, 8)
class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.tokens = nn.LayerNorm(8), nn.Linear(6, 6)
        self.norm2, self.channels, self.head = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = x + F.gelu(self.tokens(self.norm1(x).transpose(1, 2))).transpose(1, 2)
        return self.head(self.norm2(x + self.channels(x)).mean(1))


@micro(6, 8)
class ClassToken(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.token = nn.Linear(8, 8), nn.Parameter(torch.randn(1, 1, 8))
        self.place = nn.Parameter(torch.randn(1, 7, 8))
        self.norm, self.attention = nn.LayerNorm(8), Attention()
        self.last, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x):
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), self.embed(x)], 1) + self.place
        return self.head(self.last(x + self.attention(self.norm(x)))[:, 0])


@micro(5, 8)
class EinsumHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(8, 2, 4))
        self.norm, self.out = nn.LayerNorm(4), nn.Parameter(torch.randn(2, 4, 3))

    def forward(self, x):
        y = self.norm(torch.einsum("btd,dhe->bthe", x, self.w))
        return torch.einsum("bthe,hef->btf", y, self.out)


@micro(5, 8)
class TransposedLinear(nn.Module):
    """A weight stored (in, out), as in Conv1D of old language models."""

    def __init__(self):
        super().__init__()
        self.w, self.b = nn.Parameter(torch.randn(8, 6)), nn.Parameter(torch.randn(6))
        self.bn, self.head = nn.BatchNorm1d(6), nn.Linear(6, 3)

    def forward(self, x):
        y = torch.addmm(self.b, x.reshape(-1, 8), self.w)
        return self.head(torch.tanh(self.bn(y)))


@micro(8)
class MeanWithoutKeep(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.c = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x):
        y = self.a(x)
        y = y - y.mean(-1, keepdim=True)
        return self.c(y / y.std(-1, keepdim=True))


@micro(*IMAGE)
class FilterResponse(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.tau = conv(3, 6, bias=False), nn.Parameter(torch.zeros(1, 6, 1, 1))
        self.gamma = nn.Parameter(torch.ones(1, 6, 1, 1))
        self.beta, self.head = nn.Parameter(torch.zeros(1, 6, 1, 1)), nn.Sequential(*HEAD(6))
        self.eps = 1e-6

    def forward(self, x):
        y = self.conv(x)
        y = y * torch.rsqrt(y.pow(2).mean((2, 3), keepdim=True) + self.eps)
        return self.head(torch.max(self.gamma * y + self.beta, self.tau))
