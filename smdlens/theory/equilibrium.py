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


def _lion_correlation(beta1: Array, beta2: Array) -> Array:
    return np.asarray((1.0 - beta1) ** 2 + beta1**2 * (1.0 - beta2) / (1.0 + beta2))


def angular_update_lion(lr: Real, decay: Real, beta1: Real, beta2: Real) -> Array:
    """Lion: Delta*^2 = pi lr decay X, X = (1-b1)^2 + b1^2 (1-b2)/(1+b2) [Kosson2024].

    Radians; Gaussian gradients; replaces the sum of arcsines of sign correlations by its linear
    term (2 %).
    """
    lr, decay, b1, b2 = as_floats(lr, decay, beta1, beta2)
    return _root(np.pi * lr * decay * _lion_correlation(b1, b2))


def step_angle_lion(lr: Real, numel: Real, norm: Real) -> Array:
    """Angle of one Lion update away from equilibrium too: sqrt(lr^2 numel) / |w|, radians.

    Every entry moves by lr [Chen2023, Alg 2]; the part along w is left out (0.4 %).
    """
    lr, numel, norm = as_floats(lr, numel, norm)
    return np.asarray(lr * np.sqrt(numel) / norm)[()]


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
    """|w*| of Lion: RMS entry sqrt(lr / (pi decay X)), X as in `angular_update_lion`.

    [Kosson2024].
    """
    lr, decay, b1, b2, d = as_floats(lr, decay, beta1, beta2, numel)
    return _root(d * lr / (np.pi * decay * _lion_correlation(b1, b2)))
