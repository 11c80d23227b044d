"""Float64 sums over one block of elements: the only arithmetic that touches every weight.

A block is seen as [outer, channels, inner] (layout.py). Products of values of at most 32 bits are
exact in float64, so converting a cache-sized block and reducing it costs no accuracy. The same
functions run on the CPU and on a GPU.
"""

from __future__ import annotations

import torch

# Below this length a row is too short for a reduction along it to be vectorised.
_SHORT_ROW = 16
# 29 leading bits: the product with a 24-bit mantissa is exact in float64.
_KEEP_29_BITS = -(1 << 24)
_KEEP_24_BITS = -(1 << 29)


def channel_dot(x: torch.Tensor, y: torch.Tensor, scratch: torch.Tensor) -> torch.Tensor:
    """<x_c, y_c> per channel.

    Args:
        x: Contiguous float64 [outer, channels, inner].
        y: Like x.
        scratch: Like x, overwritten.

    Returns:
        Float64 [channels].
    """
    if x.shape[1] == 1:
        return torch.dot(x.view(-1), y.view(-1)).view(1)
    return torch.mul(x, y, out=scratch).sum((0, 2))


def channel_norm2(x: torch.Tensor, scratch: torch.Tensor) -> torch.Tensor:
    """|x_c|^2 per channel; shapes as `channel_dot`."""
    if x.shape[0] == 1 and x.shape[1] > 1 and x.shape[2] >= _SHORT_ROW:
        norm: torch.Tensor = torch.linalg.vector_norm(x[0], dim=1)
        return norm.square_()
    return channel_dot(x, x, scratch)


def reference_ratio(a2: torch.Tensor, b2: torch.Tensor) -> torch.Tensor:
    """A ratio near |b| / |a| per channel, with 29 significant bits; 1 where there is none.

    So short a ratio makes its product with a stored float32, bfloat16, float16 or float8 weight
    exact, which leaves the difference b - r a without any rounding of its own size.
    """
    ratio = torch.nan_to_num((b2 / a2).sqrt_(), nan=1.0, posinf=1.0)
    return ratio.view(torch.int64).bitwise_and_(_KEEP_29_BITS).view(torch.float64)


def residual(
    a: torch.Tensor, b: torch.Tensor, ratio: torch.Tensor, out: torch.Tensor, wide: bool
) -> torch.Tensor:
    """The difference b - r a, one r per channel.

    Args:
        a: Contiguous float64 [outer, channels, inner].
        b: Like a.
        ratio: Float64 [channels] from `reference_ratio`.
        out: Like a, overwritten.
        wide: True where the weights are stored as float64: their product with r would round, so a
            is taken in two parts.
    """
    r = ratio.view(1, -1, 1)
    if not wide:
        return torch.addcmul(b, r, a, value=-1, out=out)
    high = a.view(torch.int64).bitwise_and(_KEEP_24_BITS).view(torch.float64)
    torch.addcmul(b, r, high, value=-1, out=out)
    return out.addcmul_(r, a - high, value=-1)


def gradient(
    a: torch.Tensor,
    v_a: torch.Tensor,
    v_b: torch.Tensor,
    rule: tuple[float, float, float],
    out: torch.Tensor,
) -> torch.Tensor:
    """The gradient of the one update between two snapshots, from weights and momentum buffers.

    v_b = momentum * v_a + (1 - dampening) (g + weight_decay * w_a), solved for g
    (derived in docs/theory.md).

    Args:
        a: Weights before the update, float64.
        v_a: Buffer before the update.
        v_b: Buffer that made the update.
        rule: momentum, dampening, weight_decay.
        out: Overwritten.
    """
    momentum, dampening, weight_decay = rule
    torch.sub(v_b, v_a, alpha=momentum, out=out)
    if dampening:
        out.div_(1 - dampening)
    return out.sub_(a, alpha=weight_decay) if weight_decay else out


def adam_direction(
    first: torch.Tensor, second: torch.Tensor, bias1: float, bias2: float, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Adam's u = mhat / D with D = sqrt(vhat) + eps, in place of the moments.

    Args:
        first: exp_avg, float64; becomes u.
        second: exp_avg_sq (amsgrad: its maximum), float64; becomes D.
        bias1: 1 - beta1^t.
        bias2: 1 - beta2^t.
        eps: Adam's epsilon.

    Returns:
        u, D and the sum of vhat (0-d).
    """
    vhat_sum = second.div_(bias2).sum()
    second.sqrt_().add_(eps)
    first.div_(bias1).div_(second)
    return first, second, vhat_sum
