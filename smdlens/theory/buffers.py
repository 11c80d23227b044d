"""What momentum buffers in the checkpoint say without any model of the gradients."""

from __future__ import annotations

import numpy as np

from smdlens.theory.arrays import Array, Real, as_floats


def summed_norm2(W0: Real, W1: Real, n: Real) -> Array:
    """Sum of |w|^2 over n updates (start of each) for a norm that changes geometrically.

    (W1 - W0) / (e^s - 1) with s = ln(W1 / W0) / n; n W0 at s = 0. Derived in docs/theory.md §6
    [smdlens-theory].
    """
    W0, W1, n = as_floats(W0, W1, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = np.expm1(np.log(W1 / W0) / n)
        return np.where(growth == 0.0, n * W0, (W1 - W0) / growth)[()]


def step_energy_with_buffers(
    W0: Real,
    W1: Real,
    B0: Real,
    B1: Real,
    decay_work: Real,
    lr_first: Real,
    lr_last: Real,
    momentum: Real,
    jump_work: Real = 0.0,
) -> Array:
    """Sum of lr^2 |v|^2 over the updates between two snapshots: an identity of heavy ball.

    (1 + a) sum lr_t^2 |v_t|^2 = (1 - a)(W1 - W0) + 2 c sum lr_t (decay_t + kappa_t) W_t
    - 2 a (lr_last B1 - lr_first B0 - sum_t (lr_t - lr_(t-1)) B_t), the last sum over 0 < t < n. For
    a piecewise constant rate it has one term per jump, whose B = <w, v'> no snapshot holds: pass an
    estimate (`shooting.initial_moments`) as `jump_work`. Derived in docs/theory.md §2
    [smdlens-theory].

    Args:
        W0: |w|^2 at the first snapshot.
        W1: |w|^2 at the second.
        B0: <saved weights, saved buffer> at the first (0 at step 0).
        B1: <saved weights, saved buffer> at the second.
        decay_work: c sum of lr_t (decay + kappa) |w_t|^2, c = 1 - dampening.
        lr_first: Rate of the first update after the first snapshot.
        lr_last: Rate of the last update before the second.
        momentum: a.
        jump_work: Sum of (lr_t - lr_(t-1)) B_t over the changes inside.

    Returns:
        Sum of squared step lengths, broadcast shape. Needs <g, w> = kappa |w|^2 and nothing else.
    """
    W0, W1, B0, B1, work, first, last, a, jumps = as_floats(
        W0, W1, B0, B1, decay_work, lr_first, lr_last, momentum, jump_work
    )
    ends = last * B1 - first * B0 - jumps
    return np.asarray(((1.0 - a) * (W1 - W0) + 2.0 * work - 2.0 * a * ends) / (1.0 + a))[()]


def turn2_from_step(step2: Real, s: Real, keep: Real = 1.0) -> Array:
    """2 (1 - cos Delta) of a step of squared length step2 |w|^2: the radial part taken out.

    The triangle keep w, w+, step: (step2 - (e^(s/2) - keep)^2) / (keep e^(s/2)), s the growth of
    ln |w|^2. Exact for one step; for means it leaves out a quarter of the variance of s. Derived in
    docs/theory.md §6 [smdlens-theory].

    Args:
        step2: lr^2 |u|^2 / |w|^2.
        s: ln(|w+|^2 / |w|^2).
        keep: 1 - lr decoupled decay.

    Returns:
        Squared chord, at least 0, broadcast shape.
    """
    step2, s, keep = as_floats(step2, s, keep)
    radial = np.expm1(s / 2.0) + (1.0 - keep)
    return np.maximum((step2 - radial**2) / (keep * np.exp(s / 2.0)), 0.0)[()]


def mean_turn2_with_buffers(
    W0: Real,
    W1: Real,
    B0: Real,
    B1: Real,
    n: Real,
    lr: Real,
    decay: Real,
    kappa: Real,
    momentum: Real,
    dampening: Real = 0.0,
) -> Array:
    """Mean one-step 2 (1 - cos Delta) over an interval of constant rate, from both ends' buffers.

    The norm balance (1-a)(W1 - W0) = (1+a) lr^2 sum |v|^2 - 2 lr decay sum W + 2 a lr (B1 - B0) of
    heavy ball holds for any gradient; only sum W is interpolated (geometrically) and the radial
    part taken out. The exact form behind [Wan2021, Thm 2-3], derived in docs/theory.md §2
    [smdlens-theory].

    Args:
        W0: |w|^2 at the first snapshot.
        W1: |w|^2 at the second.
        B0: <weights, buffer> saved at the first.
        B1: <weights, buffer> saved at the second.
        n: Updates between.
        lr: Learning rate.
        decay: Coupled weight decay.
        kappa: Epsilon leak, see `epsilon_leak.kappa_from_gamma`.
        momentum: a.
        dampening: 1 - c.

    Returns:
        turn2, clipped at 0, broadcast shape.
    """
    W0, W1, n, lr, decay, kappa, dampening = as_floats(W0, W1, n, lr, decay, kappa, dampening)
    summed = summed_norm2(W0, W1, n)
    work = (1.0 - dampening) * lr * (decay + kappa) * summed
    energy = step_energy_with_buffers(W0, W1, B0, B1, work, lr, lr, momentum)
    with np.errstate(divide="ignore", invalid="ignore"):
        return turn2_from_step(energy / summed, np.log(W1 / W0) / n)


def mean_turn2_plain_sgd(W0: Real, W1: Real, n: Real, log_decay_sum: Real) -> Array:
    """Mean one-step 2 (1 - cos Delta) of SGD without momentum, from the norms alone.

    Exact: sum ln(1 + tan^2 Delta_t) = ln(W1 / W0) - 2 sum ln(1 - lr_t (decay + kappa)), any
    schedule, any gradient; the mean of the left-hand side is turned into the chord of one equal
    step. The exact form behind [Wan2021, Thm 1], derived in docs/theory.md §2 [smdlens-theory].

    Args:
        W0: |w|^2 at the first snapshot.
        W1: |w|^2 at the second.
        n: Updates between.
        log_decay_sum: Sum of ln(1 - lr_t (decay + kappa)), from log1p.

    Returns:
        turn2, clipped at 0, broadcast shape.
    """
    W0, W1, n, log_decay_sum = as_floats(W0, W1, n, log_decay_sum)
    with np.errstate(divide="ignore", invalid="ignore"):
        per_step = (np.log(W1 / W0) - 2.0 * log_decay_sum) / n
    return np.maximum(-2.0 * np.expm1(-per_step / 2.0), 0.0)[()]


def last_step_angle(w2: Real, wv: Real, v2: Real, lr: Real) -> Array:
    """Exact angle of the update that made a checkpoint, from the step saved with it.

    The weights before were along w + lr v (heavy ball with the raw rate and buffer; Adam and AdamW
    with v the direction mhat / (sqrt(vhat) + eps): decoupled decay only rescales them), so
    Delta = atan2(lr sqrt(|w|^2 |v|^2 - <w, v>^2), |w|^2 + lr <w, v>). The angular update of
    [Wan2021, Def 3], derived in docs/theory.md §3 [smdlens-theory].

    Args:
        w2: |w|^2 of the checkpoint.
        wv: <w, v>.
        v2: |v|^2.
        lr: The rate that made the step: not the one a scheduler has already set for the next.

    Returns:
        Radians, broadcast shape. Not for Nesterov, whose step the buffer does not hold.
    """
    w2, wv, v2, lr = as_floats(w2, wv, v2, lr)
    area = np.sqrt(np.maximum(w2 * v2 - wv**2, 0.0))
    return np.asarray(np.arctan2(lr * area, w2 + lr * wv))[()]
