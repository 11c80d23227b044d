"""Attention, mixers and recurrent networks in the forms the literature gives them."""

import torch
import torch.nn.functional as F
from strangers import net
from strangers_normalised import RMSNorm
from torch import nn

DIM, HEADS = 16, 4


def heads(x):
    return x.view(*x.shape[:-1], HEADS, DIM // HEADS).transpose(1, 2)


class Attention(nn.Module):
    """One projection for q, k and v; how queries and keys are normalised is a parameter."""

    def __init__(self, mode="none", bias=False, causal=False):
        super().__init__()
        self.qkv, self.proj = nn.Linear(DIM, 3 * DIM, bias=bias), nn.Linear(DIM, DIM)
        self.mode, self.causal = mode, causal
        if mode == "rms":
            self.q_norm, self.k_norm = RMSNorm(DIM // HEADS), RMSNorm(DIM // HEADS)
        if mode == "ln":
            self.q_norm, self.k_norm = nn.LayerNorm(DIM // HEADS), nn.LayerNorm(DIM // HEADS)
        if mode == "cosine":
            self.scale = nn.Parameter(torch.full((HEADS, 1, 1), 10.0))

    def forward(self, x):
        q, k, v = (heads(t) for t in self.qkv(x).chunk(3, dim=-1))
        scale = (DIM // HEADS) ** -0.5
        if self.mode in ("rms", "ln"):
            q, k = self.q_norm(q), self.k_norm(k)
        elif self.mode in ("l2", "cosine"):
            q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        if self.mode == "cosine":
            scale = torch.clamp(self.scale, max=100.0)
        scores = q @ k.transpose(-2, -1) * scale
        if self.causal:
            mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(mask, float("-inf"))
        y = scores.softmax(dim=-1) @ v
        return self.proj(y.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, act=F.gelu):
        super().__init__()
        self.fc1, self.fc2, self.act = nn.Linear(DIM, 24), nn.Linear(24, DIM), act

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """Norms before, behind, or on both sides of each branch."""

    def __init__(self, place="pre", norm=nn.LayerNorm, **attention):
        super().__init__()
        self.attn, self.mlp, self.place = Attention(**attention), MLP(), place
        self.norms = nn.ModuleList(norm(DIM) for _ in range(4 if place == "sandwich" else 2))

    def forward(self, x):
        if self.place == "pre":
            x = x + self.attn(self.norms[0](x))
            return x + self.mlp(self.norms[1](x))
        if self.place == "post":
            x = self.norms[0](x + self.attn(x))
            return self.norms[1](x + self.mlp(x))
        if self.place == "behind":  # Swin v2, OLMo 2
            x = x + self.norms[0](self.attn(x))
            return x + self.norms[1](self.mlp(x))
        x = x + self.norms[1](self.attn(self.norms[0](x)))
        return x + self.norms[3](self.mlp(self.norms[2](x)))


def transformer(name, head="mean", **options):
    """Two blocks over tokens that are already vectors."""

    def __init__(self):
        nn.Module.__init__(self)
        self.embed = nn.Linear(6, DIM)
        self.pos = nn.Parameter(torch.randn(1, 9, DIM) * 0.02)
        self.blocks = nn.ModuleList(Block(**options) for _ in range(2))
        self.norm, self.out = nn.LayerNorm(DIM), nn.Linear(DIM, 5)
        if head == "cls":
            self.cls = nn.Parameter(torch.randn(1, 1, DIM))

    def forward(self, x):
        x = self.embed(x)
        if head == "cls":
            x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1)
        x = x + self.pos[:, : x.shape[1]]
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.out(x[:, 0] if head == "cls" else x.mean(1))

    net((8, 6))(type(name, (nn.Module,), {"__init__": __init__, "forward": forward}))


transformer("PreNormTransformer", bias=True)
transformer("PostNormTransformer", place="post", bias=True)
transformer("SandwichTransformer", place="sandwich", norm=RMSNorm)
transformer("NormBehindBranches", place="behind", mode="rms", norm=RMSNorm)
transformer("QueryKeyL2", mode="l2")
transformer("QueryKeyRMS", mode="rms", causal=True)
transformer("QueryKeyLayerNorm", mode="ln", bias=True)
transformer("CosineAttention", mode="cosine", place="behind")
transformer("ClassTokenTransformer", head="cls", bias=True)
transformer("ClassTokenQueryKeyNorm", head="cls", mode="rms")
transformer("ClassTokenBatchNorm", head="cls", place="post", mode="l2")


@net((8, 6))
class LibraryTransformer(nn.Module):
    """torch's own encoder and attention."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(6, DIM)
        layer = nn.TransformerEncoderLayer(DIM, 4, 24, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.pool = nn.MultiheadAttention(DIM, 2, batch_first=True)
        self.query = nn.Parameter(torch.randn(1, 1, DIM))
        self.out = nn.Linear(DIM, 3)

    def forward(self, x):
        x = self.encoder(self.embed(x))
        pooled, _ = self.pool(self.query.expand(x.shape[0], -1, -1), x, x)
        return self.out(pooled.squeeze(1))


@net((10,), tokens=20)
class TiedLanguageModel(nn.Module):
    """Input and output embedding are one tensor; rotary positions; gated MLP."""

    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(20, DIM)
        self.norm1, self.norm2, self.norm3 = RMSNorm(DIM), RMSNorm(DIM), RMSNorm(DIM)
        self.q, self.k = nn.Linear(DIM, DIM, bias=False), nn.Linear(DIM, DIM, bias=False)
        self.v, self.o = nn.Linear(DIM, DIM, bias=False), nn.Linear(DIM, DIM, bias=False)
        self.gate, self.up = nn.Linear(DIM, 24, bias=False), nn.Linear(DIM, 24, bias=False)
        self.down = nn.Linear(24, DIM, bias=False)
        self.lm_head = nn.Linear(DIM, 20, bias=False)
        self.lm_head.weight = self.wte.weight

    def rotate(self, x):
        angles = torch.arange(x.shape[-2])[:, None] / 10 ** torch.arange(0, 2)[None]
        cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)
        a, b = x[..., :2], x[..., 2:]
        return x * cos + torch.cat([-b, a], -1) * sin

    def forward(self, tokens):
        x = self.wte(tokens)
        y = self.norm1(x)
        q, k, v = heads(self.q(y)), heads(self.k(y)), heads(self.v(y))
        y = F.scaled_dot_product_attention(self.rotate(q), self.rotate(k), v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(x.shape))
        y = self.norm2(x)
        x = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return self.lm_head(self.norm3(x))


@net((10,), tokens=20)
class NormalisedTransformer(nn.Module):
    """nGPT: every matrix is normalised where it is used, hidden states stay on the sphere."""

    def __init__(self):
        super().__init__()
        self.wte = nn.Parameter(torch.randn(20, DIM))
        self.wq, self.wk, self.wv, self.wo = (nn.Parameter(torch.randn(DIM, DIM)) for _ in range(4))
        self.w1, self.w2 = nn.Parameter(torch.randn(24, DIM)), nn.Parameter(torch.randn(DIM, 24))
        self.alpha_a, self.alpha_m = nn.Parameter(torch.ones(DIM)), nn.Parameter(torch.ones(DIM))
        self.sqk, self.sz = nn.Parameter(torch.ones(DIM // HEADS)), nn.Parameter(torch.ones(20))

    def forward(self, tokens):
        unit = lambda t, d=-1: t / t.norm(dim=d, keepdim=True)  # noqa: E731
        h = unit(self.wte)[tokens]
        q, k = (heads(F.linear(h, unit(w))) for w in (self.wq, self.wk))
        v = heads(F.linear(h, unit(self.wv)))
        q, k = unit(q) * self.sqk, unit(k) * self.sqk
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=2.0)
        a = unit(F.linear(a.transpose(1, 2).flatten(2), unit(self.wo, 0)))
        h = unit(h + self.alpha_a.abs() * (a - h))
        m = unit(F.linear(F.silu(F.linear(h, unit(self.w1))), unit(self.w2, 0)))
        h = unit(h + self.alpha_m.abs() * (m - h))
        return self.sz * F.linear(h, unit(self.wte))


@net((8, 6))
class MixtureOfExperts(nn.Module):
    """Soft routing over the best two of four experts, experts as one tensor."""

    def __init__(self):
        super().__init__()
        self.embed, self.router = nn.Linear(6, DIM), nn.Linear(DIM, 4, bias=False)
        self.w1 = nn.Parameter(torch.randn(4, DIM, 24) * 0.2)
        self.w2 = nn.Parameter(torch.randn(4, 24, DIM) * 0.2)
        self.norm, self.out = nn.LayerNorm(DIM), nn.Linear(DIM, 3)

    def forward(self, x):
        x = self.embed(x)
        probs = self.router(x).softmax(-1)
        top, index = probs.topk(2, dim=-1)
        gates = torch.zeros_like(probs).scatter(-1, index, top / top.sum(-1, keepdim=True))
        hidden = F.relu(torch.einsum("btd,edh->bteh", x, self.w1))
        y = torch.einsum("bteh,ehd->bted", hidden, self.w2)
        return self.out(self.norm(x + (gates.unsqueeze(-1) * y).sum(2)).mean(1))


@net((9, 12))
class MLPMixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(12, 8)
        self.n1, self.n2, self.n3 = nn.LayerNorm(8), nn.LayerNorm(8), nn.LayerNorm(8)
        self.t1, self.t2 = nn.Linear(9, 12), nn.Linear(12, 9)
        self.c1, self.c2 = nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.embed(x)
        x = x + self.t2(F.gelu(self.t1(self.n1(x).transpose(1, 2)))).transpose(1, 2)
        x = x + self.c2(F.gelu(self.c1(self.n2(x))))
        return self.head(self.n3(x).mean(1))


@net((9, 12))
class GatedMLP(nn.Module):
    """gMLP: a spatial gating unit."""

    def __init__(self):
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(12), nn.LayerNorm(8)
        self.up, self.down = nn.Linear(12, 16), nn.Linear(8, 12)
        self.spatial = nn.Conv1d(9, 9, 1)
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        u, v = F.gelu(self.up(self.n1(x))).chunk(2, -1)
        x = x + self.down(u * self.spatial(self.n2(v)))
        return self.head(x.mean(1))


class Affine(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.alpha, self.beta = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x):
        return self.alpha * x + self.beta


@net((9, 12))
class ResMLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.a1, self.a2, self.a3 = Affine(12), Affine(12), Affine(12)
        self.tokens, self.fc1, self.fc2 = nn.Linear(9, 9), nn.Linear(12, 24), nn.Linear(24, 12)
        self.gamma1, self.gamma2 = (
            nn.Parameter(1e-4 * torch.ones(12)),
            nn.Parameter(1e-4 * torch.ones(12)),
        )
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        x = x + self.gamma1 * self.tokens(self.a1(x).transpose(1, 2)).transpose(1, 2)
        x = x + self.gamma2 * self.fc2(F.gelu(self.fc1(self.a2(x))))
        return self.head(self.a3(x).mean(1))
