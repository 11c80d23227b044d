"""Equilibrium angular update and norm of every optimizer that has one."""

from __future__ import annotations

import numpy as np

from smdlens.theory.angles import angle_from_turn2
from smdlens.theory.arrays import Array, Real, as_float64, as_floats
from smdlens.theory.moments import UpdateRule, steady_state


def angular_update(rule: UpdateRule, lr: Real, coupled: Real, decoupled: Real = 0.0) -> Array:
    """Equilibrium angular update Delta* of any linear optimizer, radians.

    The angle whose squared chord is that of `moments.steady_state`; for heavy ball it is
    arccos(1 - lr decay / (1 + a)), to leading order [Wan2021, Thm 3]. Derived in docs/theory.md §5
    [smdlens-theory].

    Args:
        rule: The optimizer.
        lr: Learning rate, any shape.
        coupled: Decay inside the gradient.
        decoupled: Decay applied to the weights directly.

    Returns:
        Radians (RMS), broadcast shape.
    """
    return angle_from_turn2(steady_state(rule, lr, coupled, decoupled).turn2)


# Terms of the arcsine's series: 1e-6 of the sum where signs agree to 0.99.
_ARCSINE_TERMS = 200


# Share of the decay that steps make up for, below which there are none.
_NO_STEPS = 1e-6


def _root(value: Real) -> Array:
    return np.sqrt(as_float64(value))[()]


def angular_update_sgd(lr: Real, decay: Real, momentum: Real = 0.0) -> Array:
    """SGD with heavy-ball momentum a: Delta* = sqrt(2 lr decay / (1 + a)) [Wan2021, Thm 3].

    Radians; leading order in lr decay, relative error below lr decay.
    """
    lr, decay, momentum = as_floats(lr, decay, momentum)
    return _root(2.0 * lr * decay / (1.0 + momentum))


def angular_update_nesterov(lr: Real, decay: Real, momentum: Real) -> Array:
    """Nesterov: Delta*^2 = 2 lr decay ((1-a)(1+a)^3 + a^4) / (1 + a), white gradients.

    Radians; 1.158 times heavy ball at a = 0.9. Derived in docs/theory.md §5 [smdlens-theory].
    """
    lr, decay, a = as_floats(lr, decay, momentum)
    return _root(2.0 * lr * decay * ((1.0 - a) * (1.0 + a) ** 3 + a**4) / (1.0 + a))


def angular_update_sgdw(lr: Real, decay: Real, momentum: Real) -> Array:
    """SGD with decoupled decay [Loshchilov2019, Alg 1]: Delta*^2 = 2 lr decay (1-a) / (1+a).

    Radians; leading order. Derived in docs/theory.md §5 [smdlens-theory].
    """
    lr, decay, a = as_floats(lr, decay, momentum)
    return _root(2.0 * lr * decay * (1.0 - a) / (1.0 + a))


def angular_update_adamw(lr: Real, decay: Real, beta1: Real) -> Array:
    """AdamW: Delta*^2 = 2 lr decay (1 - b1) / (1 + b1) [Kosson2024].

    Radians; needs no number of entries: the direction's mean square per entry cancels.
    """
    return angular_update_sgdw(lr, decay, beta1)


def angular_update_adam_l2(
    lr: Real,
    decay: Real,
    beta1: Real,
    numel: Real,
    unit_gradient_norm: Real,
) -> Array:
    """Adam with L2 decay: Delta*^2 = (1-b1)/(1+b1) (2 lr^2 decay d / G)^(2/3).

    Depends on the unit-gradient norm G, so layers do not balance [Kosson2024]. Radians;
    leading order, gradients of one scale over the entries. Derived in docs/theory.md §5
    [smdlens-theory].

    Args:
        lr: Learning rate.
        decay: L2 coefficient.
        beta1: First-moment decay.
        numel: Entries d of the tensor.
        unit_gradient_norm: G = |w| |g|.
    """
    lr, decay, b1, d, norm = as_floats(lr, decay, beta1, numel, unit_gradient_norm)
    return _root((1.0 - b1) / (1.0 + b1) * (2.0 * lr**2 * decay * d / norm) ** (2.0 / 3.0))


def adam_l2_from_balance(balance_ratio: Real, remembered: Real = 1.0) -> Array:
    """(Delta / Delta*)^2 of Adam with L2 decay from the same over what the present decay holds.

    Steps and L2 decay are divided by sqrt(vhat) + eps, which goes as G / r_m, r_m the norm that the
    second moment remembers. With m = r_m / r steps go as m, so that squared angles are
    (Delta / Delta*)^2 = (r*/r)^2 m^2; decay acts in proportion to r_m, and the balance shows
    (r*/r)^2 m^2 r*/r_m = (r*/r)^3 m. Hence (Delta / Delta*)^2 = (balance m^2)^(2/3). Derived in
    docs/theory.md §5 [smdlens-theory].

    Args:
        balance_ratio: Squared angle over the one at which the decay in force holds the norm.
        remembered: m.
    """
    ratio, remembered = as_floats(balance_ratio, remembered)
    return np.asarray(np.maximum(ratio * remembered**2, 0.0) ** (2.0 / 3.0))[()]


def _lion_persistence(lr: Array, decay: Array, beta1: Array, beta2: Array) -> Array:
    """sum_(j>=1) alpha^(j-1) s_j: how far Lion's signs repeat, as decay lets them add up.

    s_j = (2/pi) arcsin(rho_j) is the mean product of an entry's signs j updates apart, rho_j =
    rho_1 b2^(j-1) the correlation of what they are signs of. Each power of the arcsine's series
    makes a geometric series.
    """
    power = 2.0 * np.arange(_ARCSINE_TERMS) + 1.0
    growth = (power[1:] - 2.0) ** 2 / (power[1:] * (power[1:] - 1.0))
    coefficient = np.concatenate([[1.0], np.cumprod(growth)])
    variance = (1.0 - beta1) ** 2 + beta1**2 * (1.0 - beta2) / (1.0 + beta2)
    first = beta1 * (1.0 - beta2) * ((1.0 - beta1) + beta1 * beta2 / (1.0 + beta2)) / variance
    first, b2, alpha = (x[..., None] for x in (first, beta2, 1.0 - lr * decay))
    terms = coefficient * first**power / (1.0 - alpha * b2**power)
    return np.asarray(2.0 / np.pi * terms.sum(axis=-1))


def _lion(lr: Real, decay: Real, beta1: Real, beta2: Real) -> tuple[Array, Array, Array, Array]:
    """lr, decay, persistence and |w*|^2 per entry."""
    lr, decay, b1, b2 = np.broadcast_arrays(*as_floats(lr, decay, beta1, beta2))
    repeat = _lion_persistence(lr, decay, b1, b2)
    alpha = 1.0 - lr * decay
    with np.errstate(divide="ignore", invalid="ignore"):
        square = lr**2 * (1.0 + 2.0 * alpha * repeat) / (1.0 - alpha**2)
    return lr, decay, repeat, np.asarray(square)


def angular_update_lion(lr: Real, decay: Real, beta1: Real, beta2: Real) -> Array:
    """Lion in equilibrium, radians, for white Gaussian gradients that are small beside the noise.

    With s_j the mean product of signs j updates apart and alpha = 1 - lr decay, one update is
    w+ = alpha w - lr s, E <w, s> = -lr d sum_j alpha^(j-1) s_j, and
    |w*|^2 (1 - alpha^2) = lr^2 d (1 + 2 sum_j alpha^j s_j). Replacing arcsines by their arguments
    and alpha by 1 gives pi lr decay X, X = (1-b1)^2 + b1^2 (1-b2)/(1+b2) [Kosson2024], which is 1
    to 12 % off. The update is [Chen2023, Alg 2]; derived in docs/theory.md §5 [smdlens-theory].
    """
    lr, decay, repeat, square = _lion(lr, decay, beta1, beta2)
    pull = lr * decay
    with np.errstate(divide="ignore", invalid="ignore"):
        turn2 = pull**2 + lr**2 * (1.0 - 2.0 * pull * repeat) / square
    return np.asarray(2.0 * np.arcsin(_root(turn2) / 2.0))[()]


def turn2_lion(lr: Real, decay: Real, numel: Real, before2: Real, after2: Real) -> Array:
    """2 (1 - cos) of one Lion update from the norms around it, in equilibrium or not.

    Every entry moves by lr [Chen2023, Alg 2]: |alpha w - w+|^2 = lr^2 d with alpha = 1 - lr decay,
    so that <w, w+> = (alpha^2 W + W+ - lr^2 d) / (2 alpha). Derived in docs/theory.md §5
    [smdlens-theory].

    Args:
        lr: Rate.
        decay: Weight decay.
        numel: Entries d.
        before2: W = |w|^2.
        after2: W+ = |w+|^2.
    """
    lr, decay, d, before2, after2 = as_floats(lr, decay, numel, before2, after2)
    alpha = 1.0 - lr * decay
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = np.sqrt(after2 / before2)
        turn2 = (lr**2 * d / before2 - (alpha - growth) ** 2) / (alpha * growth)
    return np.asarray(np.maximum(turn2, 0.0))[()]


def mean_inverse_norm2_lion(before2: Real, after2: Real, fall: Real) -> Array:
    """Mean of 1 / |w|^2 between two norms that relax towards a fixed one, W' = -k W + steps.

    W = A + C e^(-k t) with A = (W_n - W_0 e^-fall) / (1 - e^-fall) has the mean
    (1 + ln(W_n / W_0) / fall) / A. Derived in docs/theory.md §5 [smdlens-theory].

    Args:
        before2: W_0.
        after2: W_n.
        fall: k n, the fall of ln W by decay alone.
    """
    before2, after2, fall = as_floats(before2, after2, fall)
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.log(after2 / before2)
        towards = before2 - (after2 - before2) / np.expm1(-fall)
        relaxing = (1.0 + change / fall) / towards
        # Without steps it falls by decay alone: both are zero, and 1 / W grows exponentially.
        falling = (1.0 / before2 - 1.0 / after2) / change
        decayed = np.abs(1.0 + change / fall) < _NO_STEPS
        return np.asarray(np.where(decayed, falling, relaxing))[()]


def norm_sgd(lr: Real, decay: Real, unit_gradient2: Real, momentum: Real = 0.0) -> Array:
    """|w*| with |w*|^4 = L lr / (decay (1-a) (2 - decay lr / (1+a))) [Wan2021, Thm 1-2].

    L = E h~, the second moment of the unit gradient (E |g~|^2 for plain SGD); Nesterov shares it to
    leading order. One invariance group: sum the groups' |w|^2 for a tensor. NaN where L < 0.
    """
    lr, decay, L, a = as_floats(lr, decay, unit_gradient2, momentum)
    with np.errstate(invalid="ignore"):
        norm4 = L * lr / (decay * (1.0 - a) * (2.0 - decay * lr / (1.0 + a)))
        return np.asarray(norm4**0.25)[()]


def norm_sgdw(lr: Real, decay: Real, unit_gradient2: Real, momentum: Real) -> Array:
    """|w*| under decoupled decay: |w*|^4 = lr L / (2 decay (1 - a)^2).

    Leading order; derived in docs/theory.md §5 [smdlens-theory].
    """
    lr, decay, L, a = as_floats(lr, decay, unit_gradient2, momentum)
    return np.asarray((lr * L / (2.0 * decay * (1.0 - a) ** 2)) ** 0.25)[()]


def norm_adamw(lr: Real, decay: Real, numel: Real) -> Array:
    """|w*| of AdamW: RMS entry sqrt(lr / (2 decay)) whatever beta1 [Kosson2024]."""
    lr, decay, numel = as_floats(lr, decay, numel)
    return _root(numel * lr / (2.0 * decay))


def norm_adam_l2(lr: Real, decay: Real, numel: Real, unit_gradient_norm: Real) -> Array:
    """|w*| of Adam with L2: |w*|^3 = lr sqrt(d) G / (2 decay).

    Leading order; derived in docs/theory.md §5 [smdlens-theory].
    """
    lr, decay, d, norm = as_floats(lr, decay, numel, unit_gradient_norm)
    return np.asarray(np.cbrt(lr * np.sqrt(d) * norm / (2.0 * decay)))[()]


def norm_lion(lr: Real, decay: Real, beta1: Real, beta2: Real, numel: Real) -> Array:
    """|w*| of Lion, see `angular_update_lion`; RMS entry sqrt(lr / (pi decay X)) to leading order.

    The update is [Chen2023, Alg 2]; derived in docs/theory.md §5 [smdlens-theory].
    """
    square = _lion(lr, decay, beta1, beta2)[3]
    return _root(as_floats(numel)[0] * square)
