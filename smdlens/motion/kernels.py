"""Float64 sums over one block of elements: the only arithmetic that touches every weight.

A block is seen as [outer, channels, inner] (layout.py). Products of values of at most 32 bits are
exact in float64, so converting a cache-sized block and reducing it costs no accuracy. The same
functions run on the CPU and on a GPU; what has one entry per channel is numpy's.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from smdlens.motion.workspace import Scratch

Float = NDArray[np.float64]
# Shorter rows are reduced faster as columns; longer ones would make numpy's BLAS start threads.
_SHORT_ROW = 16
_LONG_ROW = 8192
# 29 leading bits: the product with a 24-bit mantissa is exact in float64.
_KEEP_29_BITS = -(1 << 24)
_KEEP_24_BITS = -(1 << 29)


def dot(x: Scratch, y: Scratch) -> float:
    """<x, y> over the block."""
    return float(torch.dot(x.flat, y.flat))


def channel_dot(x: Scratch, y: Scratch, spare: Scratch) -> Float:
    """<x_c, y_c> per channel, float64 [channels]; `spare` is overwritten."""
    outer, channels, inner = x.cube.shape
    if channels == 1:
        return np.array([dot(x, y)])
    if outer == 1 and inner > _LONG_ROW:
        return np.array([float(torch.dot(x.cube[0, c], y.cube[0, c])) for c in range(channels)])
    if outer == 1 and inner >= _SHORT_ROW and x.rows is not None and y.rows is not None:
        products: Float = np.vecdot(x.rows, y.rows)
        return products
    return on_host(torch.mul(x.cube, y.cube, out=spare.cube).sum((0, 2)))


def channel_norm2(x: Scratch, spare: Scratch) -> Float:
    """|x_c|^2 per channel, float64 [channels]; `spare` is overwritten."""
    return channel_dot(x, x, spare)


def channel_sum(x: Scratch) -> Float:
    """Sum over channels, float64 [outer * inner]."""
    return on_host(x.cube.sum(1).view(-1))


def reference_ratio(a2: Float, b2: Float) -> Float:
    """A ratio near |b| / |a| per channel, with 29 significant bits; 1 where there is none.

    So short a ratio makes its product with a stored float32, bfloat16, float16 or float8 weight
    exact, which leaves the difference b - r a without any rounding of its own size, whether or
    not the machine fuses product and sum.
    """
    ratio = np.sqrt(b2 / a2)
    ratio[~np.isfinite(ratio)] = 1.0
    return (ratio.view(np.int64) & _KEEP_29_BITS).view(np.float64)


def residual(a: Scratch, b: Scratch, ratio: Float, out: Scratch, wide: bool) -> None:
    """The difference b - r a, one r per channel, into `out`.

    Args:
        a: Weights at the start.
        b: Weights at the end.
        ratio: From `reference_ratio`.
        out: Overwritten.
        wide: True where the weights are stored as float64: their product with r would round, so a
            is taken in two parts.
    """
    if len(ratio) == 1 and not wide:
        torch.sub(b.flat, a.flat, alpha=float(ratio[0]), out=out.flat)
        return
    r = torch.from_numpy(ratio).to(a.flat.device).view(1, -1, 1)
    if not wide:
        torch.addcmul(b.cube, r, a.cube, value=-1, out=out.cube)
        return
    high = a.cube.view(torch.int64).bitwise_and(_KEEP_24_BITS).view(torch.float64)
    torch.addcmul(b.cube, r, high, value=-1, out=out.cube)
    out.cube.addcmul_(r, a.cube - high, value=-1)


def gradient(
    w: Scratch, v_a: Scratch, v_b: Scratch, rule: tuple[float, float, float], out: Scratch
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
    torch.sub(v_b.flat, v_a.flat, alpha=momentum, out=out.flat)
    if dampening:
        out.flat.div_(1 - dampening)
    if weight_decay:
        out.flat.sub_(w.flat, alpha=weight_decay)


def adam_direction(first: Scratch, second: Scratch, bias: tuple[float, float], eps: float) -> float:
    """Adam's u = mhat / D with D = sqrt(vhat) + eps, in place of the moments.

    Args:
        first: exp_avg; becomes u.
        second: exp_avg_sq (amsgrad: its maximum); becomes D.
        bias: 1 - beta1^t and 1 - beta2^t.
        eps: Adam's epsilon.

    Returns:
        Sum of vhat.
    """
    vhat_sum = float(second.flat.div_(bias[1]).sum())
    second.flat.sqrt_().add_(eps)
    first.flat.div_(bias[0]).div_(second.flat)
    return vhat_sum


def on_host(x: torch.Tensor) -> Float:
    """A small result as numpy."""
    values: Float = x.cpu().numpy()
    return values
