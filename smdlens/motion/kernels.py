"""Float64 arithmetic over one block of elements: with the sums of geometry.py all there is.

Products of values of at most 32 bits are exact in float64, so converting a cache-sized block and
summing it costs no accuracy. The same functions run on the CPU and on a GPU; what has one entry per
channel is numpy's.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from smdlens.motion.geometry import Float, Geometry, Slab

# 29 leading bits: the product with a 24-bit mantissa is exact in float64.
_KEEP_29_BITS = -(1 << 24)
_KEEP_24_BITS = -(1 << 29)


def reference_ratio(a2: Float, b2: Float) -> Float:
    """A ratio near |b| / |a| per channel, with 29 significant bits; 1 where there is none.

    So short a ratio makes its product with a stored float32, bfloat16, float16 or float8 weight
    exact, which leaves the difference b - r a without any rounding of its own size, whether or
    not the machine fuses product and sum.
    """
    ratio = np.sqrt(b2 / a2)
    ratio[~np.isfinite(ratio)] = 1.0
    return (ratio.view(np.int64) & _KEEP_29_BITS).view(np.float64)


def one_reference_ratio(a2: float, b2: float) -> float:
    """`reference_ratio` of one pair of squared norms, in a tenth of the time."""
    if not (a2 > 0.0 and 0.0 < b2 / a2 < math.inf):
        return 1.0
    mantissa, exponent = math.frexp(math.sqrt(b2 / a2))
    return math.ldexp(math.floor(math.ldexp(mantissa, 29)), exponent - 29)


def residual(a: Slab, b: Slab, ratio: Float | float, out: Slab, *, wide: bool) -> None:
    """The difference b - r a into `out`.

    Args:
        a: Weights at the start.
        b: Weights at the end.
        ratio: One, or [channels] from `reference_ratio`.
        out: Overwritten.
        wide: True where the weights are stored as float64: their product with r would round, so a
            is taken in two parts.
    """
    if isinstance(ratio, float):
        if not wide:
            torch.sub(b.flat, a.flat, alpha=ratio, out=out.flat)
            return
        ratio = np.array([ratio])
    channel = 0
    for start, end, target in zip(a.parts, b.parts, out.parts, strict=True):
        count = start.cube.shape[1]
        some = ratio if len(ratio) == 1 else ratio[channel : channel + count]
        r = torch.from_numpy(some).to(start.cube.device).view(1, -1, 1)
        channel += count
        if not wide:
            torch.addcmul(end.cube, r, start.cube, value=-1, out=target.cube)
            continue
        high = start.cube.view(torch.int64).bitwise_and(_KEEP_24_BITS).view(torch.float64)
        torch.addcmul(end.cube, r, high, value=-1, out=target.cube)
        target.cube.addcmul_(r, start.cube - high, value=-1)


def gradient(
    w: torch.Tensor,
    v_a: torch.Tensor,
    v_b: torch.Tensor,
    rule: tuple[float, float, float],
    out: torch.Tensor,
) -> None:
    """The gradient of the one update between two snapshots, from weights and momentum buffers.

    v_b = momentum * v_a + (1 - dampening) (g + weight_decay * w), solved for g
    (derived in docs/theory.md).

    Args:
        w: Weights before the update.
        v_a: Buffer before the update.
        v_b: Buffer that made the update.
        rule: momentum, dampening, weight_decay.
        out: Overwritten with g.
    """
    momentum, dampening, weight_decay = rule
    torch.sub(v_b, v_a, alpha=momentum, out=out)
    if dampening:
        out.div_(1 - dampening)
    if weight_decay:
        out.sub_(w, alpha=weight_decay)


def adam_direction(
    first: torch.Tensor,
    second: torch.Tensor,
    bias: tuple[float, float],
    eps: float,
    geometry: Geometry,
) -> Float:
    """Adam's u = mhat / D with D = sqrt(vhat) + eps, in place of the moments.

    Args:
        first: exp_avg; becomes u.
        second: exp_avg_sq (amsgrad: its maximum); becomes D.
        bias: 1 - beta1^t and 1 - beta2^t.
        eps: Adam's epsilon.
        geometry: Which tensors the elements belong to.

    Returns:
        Sum of vhat of each tensor.
    """
    vhat_sum = geometry.sums(second.div_(bias[1]))
    second.sqrt_().add_(eps)
    first.div_(bias[0]).div_(second)
    return vhat_sum
