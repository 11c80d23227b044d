"""The gradient of single updates from consecutive snapshots, by its products with what is saved.

Weights a, then b = k a - lr v: c = |b| / |a|, chord2 = |b - c a|^2. Differences that would cancel
are taken through the chord (docs/theory.md §14).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smdlens.theory.arrays import Array, Real, as_floats


@dataclass(frozen=True)
class StepSums:
    """Products of the step v = (k a - b) / lr with the weights around it.

    Attributes:
        v2: |v|^2.
        before: <v, a>.
        after: <v, b>.
    """

    v2: Array
    before: Array
    after: Array


def step_sums(A: Real, B: Real, chord2: Real, lr: Real, keep: Real = 1.0) -> StepSums:
    """|v|^2, <v, a> and <v, b> of the step between neighbouring weights.

    With c^2 A = B: |b - k a|^2 = chord2 k / c + (c - k)^2 A and <b - c a, a> = -chord2 / (2 c), so
    nothing of the size of |w|^2 is subtracted. The update rule of [Wan2021, Eq 11]; derived in
    docs/theory.md §14 [smdlens-theory].

    Args:
        A: |a|^2.
        B: |b|^2.
        chord2: |b - c a|^2.
        lr: Rate of the update.
        keep: k = 1 - lr decoupled decay.
    """
    A, B, chord2, lr, k = as_floats(A, B, chord2, lr, keep)
    with np.errstate(divide="ignore", invalid="ignore"):
        c = np.sqrt(B / A)
        v2 = (chord2 * k / c + (c - k) ** 2 * A) / lr**2
        before = ((k - c) * A + chord2 / (2.0 * c)) / lr
        after = ((k - c) * B - k * chord2 / 2.0) / (c * lr)
    return StepSums(np.asarray(v2)[()], np.asarray(before)[()], np.asarray(after)[()])


def radial_product(
    before: Real,
    after_previous: Real,
    w2: Real,
    decay: Real,
    momentum: Real,
    gain: Real = 1.0,
) -> Array:
    """<g, w> of one heavy-ball update from steps alone: (<v, w> - a <v', w>) / c - decay |w|^2.

    Solves [Wan2021, Eq 10] for g and multiplies by w; zero by [Wan2021, Eq 3].

    Args:
        before: <v, w>, v the step that leaves w.
        after_previous: <v', w>, v' the step that led to w.
        w2: |w|^2.
        decay: Coupled decay.
        momentum: a.
        gain: c = 1 - dampening.
    """
    before, after, w2, decay, a, gain = as_floats(before, after_previous, w2, decay, momentum, gain)
    return np.asarray((before - a * after) / gain - decay * w2)[()]


def adjusted_from_steps(
    v2: Real,
    v2_previous: Real,
    after_previous: Real,
    radial: Real,
    w2: Real,
    decay: Real,
    momentum: Real,
    gain: Real = 1.0,
) -> Array:
    """h~ of one heavy-ball update from the steps around it, without the gradient itself.

    |v/c|^2 - a^2 |v'/c|^2 = h + decay^2 |w|^2 + 2 a decay <v'/c, w> + 2 decay <g, w> with
    h = |g|^2 + 2 a <v'/c, g>: the square of [Wan2021, Eq 10], solved for the h of
    [Wan2021, Thm 2, assumption 6]. Without momentum h~ is |g~|^2.

    Args:
        v2: |v|^2 of the step that leaves w.
        v2_previous: |v'|^2 of the step that led to w.
        after_previous: <v', w>.
        radial: <g, w>, see `radial_product`.
        w2: |w|^2.
        decay: Coupled decay.
        momentum: a.
        gain: c = 1 - dampening.
    """
    v2, before2, after, radial, w2, decay, a, gain = as_floats(
        v2, v2_previous, after_previous, radial, w2, decay, momentum, gain
    )
    energy = (v2 - a**2 * before2) / gain**2
    pulled = decay**2 * w2 + 2.0 * a * decay * after / gain + 2.0 * decay * radial
    return np.asarray((energy - pulled) * w2)[()]


def adjusted_gradient2(
    grad2: Real, grad_v: Real, w2: Real, momentum: Real, gain: Real = 1.0
) -> Array:
    """h~ = (|g|^2 + 2 a <v', g> / c) |w|^2 [Wan2021, Thm 2, assumption 6].

    Negative where the gradient turns back what the buffer did.

    Args:
        grad2: |g|^2.
        grad_v: <g, v'>, v' the buffer before the update.
        w2: |w|^2.
        momentum: a.
        gain: c = 1 - dampening: the paper's buffer is v' / c.
    """
    grad2, grad_v, w2, a, gain = as_floats(grad2, grad_v, w2, momentum, gain)
    return np.asarray((grad2 + 2.0 * a * grad_v / gain) * w2)[()]


def cosine(product: Real, grad2: Real, w2: Real) -> Array:
    """cos(g, w) = <g, w> / (|g| |w|), zero for scale-invariant weights [Wan2021, Eq 3]."""
    product, grad2, w2 = as_floats(product, grad2, w2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(product / (np.sqrt(grad2) * np.sqrt(w2)))[()]
