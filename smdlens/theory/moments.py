"""The one recursion behind everything: second moments of a linear optimizer on a sphere.

`advance` runs it along a schedule (measurement), `steady_state` solves it for its fixed point
(expectation). Derivation: docs/theory.md §4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smdlens.theory.arrays import Array, Real, as_floats, broadcast


@dataclass(frozen=True, slots=True)
class UpdateRule:
    """A linear optimizer: v = a v' + c h, u = p v + q h, w+ = (1 - lr decoupled) w - lr u.

    h = g + coupled w, g the gradient of a scale-invariant loss (<g, w> = 0).

    Attributes:
        a: Weight of the old buffer v' (momentum, beta1).
        c: Weight of the gradient as it enters the buffer (1 - dampening, 1 - beta1).
        p: Weight of the new buffer v in the step u.
        q: Weight of the raw gradient in the step u (Nesterov: 1).
        normalised: The gradient's second moment is G itself (Adam family: each entry divided by
            its own root mean square) instead of G / |w|^2 (SGD family: the gradient scales as
            1 / |w|).
        correlation: E<v', g> / E|g|^2 between the buffer before a step and its gradient. Only
            Nesterov needs it; heavy ball and AdamW have it inside G.
    """

    a: float
    c: float
    p: float
    q: float
    normalised: bool
    correlation: float = 0.0

    @property
    def norm_power(self) -> int:
        """|w| to this power relaxes linearly: 4 (SGD family) or 2 (normalised)."""
        return 2 if self.normalised else 4


def heavy_ball(momentum: float, dampening: float = 0.0) -> UpdateRule:
    """SGD with Polyak momentum as in PyTorch, [Wan2021, Eq 10-11]; momentum 0 is plain SGD.

    Dampening multiplies gradient and decay alike; the very first update, which PyTorch does not
    dampen, is not modelled. Decoupled decay (SGDW) is the `decoupled` argument of `advance`.
    """
    if momentum == 0.0:
        return UpdateRule(a=0.0, c=1.0, p=1.0, q=0.0, normalised=False)
    return UpdateRule(a=momentum, c=1.0 - dampening, p=1.0, q=0.0, normalised=False)


def nesterov(momentum: float, correlation: float = 0.0) -> UpdateRule:
    """SGD with Nesterov momentum as PyTorch writes it: u = h + a v [Sutskever2013, Eq 3-4].

    The moment recursion then needs the correlation of gradients with the buffer, which heavy ball
    does not: docs/theory.md §4. White gradients have none.
    """
    if momentum == 0.0:
        return heavy_ball(0.0)
    return UpdateRule(
        a=momentum, c=1.0, p=momentum, q=1.0, normalised=False, correlation=correlation
    )


def adam_direction(beta1: float) -> UpdateRule:
    """Adam's first moment of normalised gradients [Loshchilov2019, Alg 2], [Kosson2024].

    The second moment is taken as constant over 1 / (1 - beta1) updates, so G is the squared norm
    of g / sqrt(v): the number of entries when every entry has its own scale.
    """
    return UpdateRule(a=beta1, c=1.0 - beta1, p=1.0, q=0.0, normalised=True)


@dataclass(frozen=True, slots=True)
class Ratios:
    """One step of the recursion in ratios, every term of `tangent` and `energy` non-negative.

    Attributes:
        radial: Length of w+ along w, in units of |w|.
        energy: |tangential part of the step u|^2 / |w|^2.
        growth: |w+|^2 / |w|^2.
        lean: <w+, v> / |w+|^2.
        tangent: (|v|^2 |w+|^2 - <w+, v>^2) / |w+|^4, the buffer's part across w+.
    """

    radial: Array
    energy: Array
    growth: Array
    lean: Array
    tangent: Array


def step_ratios(
    rule: UpdateRule,
    lean: Array,
    tangent: Array,
    gradient: Array,
    lr: Array,
    coupled: Array,
    decoupled: Array,
) -> Ratios:
    """One step in the ratios P / W, (V - P^2 / W) / W and gg / W: sums of positive terms only.

    Splitting the buffer along and across w makes pure decay (no gradient, buffer along w) turn by
    exactly 0 rather than by what cancels. Derived in docs/theory.md §4 [smdlens-theory].
    """
    a, c, p, q = rule.a, rule.c, rule.p, rule.q
    keep = 1.0 - lr * decoupled
    drive = a * lean + c * coupled
    radial = keep - lr * (p * drive + q * coupled)
    along = rule.correlation * gradient  # <v', g> / W
    energy = (p * a) ** 2 * tangent + (p * c + q) ** 2 * gradient + 2 * p * a * (p * c + q) * along
    growth = radial**2 + lr**2 * energy
    across = p * a**2 * tangent + (p * c + q) * c * gradient + a * (2 * p * c + q) * along
    kept = keep - lr * q * coupled
    area = (
        (kept * a) ** 2 * tangent
        + gradient * (c * kept + lr * q * drive) ** 2
        + (lr * a * q) ** 2 * (tangent * gradient - along**2)
        + 2.0 * kept * a * (c * kept + lr * q * drive) * along
    )
    return Ratios(
        radial=radial,
        energy=energy,
        growth=growth,
        lean=(radial * drive - lr * across) / growth,
        tangent=area / growth**2,
    )


def advance(
    rule: UpdateRule,
    W: Real,
    P: Real,
    V: Real,
    G: Real,
    lr: Real,
    coupled: Real,
    decoupled: Real,
) -> tuple[Array, Array, Array, Array]:
    """One update of the moments W = |w|^2, P = <w, v'>, V = |v'|^2 (v' the buffer before it).

    Exact in the mean for any gradients with <g, w> = 0 and <g, v'> = 0; for heavy ball and AdamW
    without the second condition when G is the second moment of h~ = (|g|^2 + 2 a <v', g>) |w|^2
    [Wan2021, Thm 2]. Derived in docs/theory.md §4 [smdlens-theory].

    Args:
        rule: The optimizer.
        W: |w|^2, any shape; positive.
        P: <w, v'>, same shape.
        V: |v'|^2, at least P^2 / W.
        G: Second moment of the unit gradient |w| g (or of the normalised gradient).
        lr: Learning rate of this update.
        coupled: Decay inside the gradient: L2 coefficient plus any epsilon leak kappa.
        decoupled: Decay applied to the weights directly, as a multiple of lr.

    Returns:
        W, P, V one update later and turn2 = 2 (1 - cos Delta) of the update, broadcast shape,
        turn2 = 2 lr^2 |u_across|^2 / (|w+| (|w+| + w+_along)), free of cancellation.
    """
    W, P, V, G = as_floats(W, P, V, G)
    lr, coupled, decoupled = as_floats(lr, coupled, decoupled)
    lean = P / W
    step = step_ratios(
        rule,
        lean,
        np.maximum(V / W - lean**2, 0.0),
        G / W if rule.normalised else G / W**2,
        lr,
        coupled,
        decoupled,
    )
    grown = np.sqrt(step.growth)
    turn2 = 2.0 * lr**2 * step.energy / (grown * (grown + step.radial))
    W_next = W * step.growth
    return W_next, step.lean * W_next, (step.tangent + step.lean**2) * W_next, turn2


@dataclass(frozen=True, slots=True)
class SteadyState:
    """Fixed point of the recursion.

    Attributes:
        turn2: 2 (1 - cos Delta*) of every update.
        w_over_g: |w*|^2 / sqrt(G) (SGD family) or |w*|^2 / G (normalised); infinite without decay.
        P_over_W: <w, v'> / |w|^2.
        V_over_W: |v'|^2 / |w|^2.
    """

    turn2: Array
    w_over_g: Array
    P_over_W: Array
    V_over_W: Array


def steady_state(rule: UpdateRule, lr: Real, coupled: Real, decoupled: Real) -> SteadyState:
    """Where the norm stands still: the 3x3 linear system for P, lr V and lr gg at W = 1.

    Reproduces [Wan2021, Thm 2] to rounding; exact at any lr decay, where the rows of
    `equilibrium` are leading order. Derived in docs/theory.md §5 [smdlens-theory].

    Args:
        rule: The optimizer.
        lr: Learning rate, any shape; positive for finite moments.
        coupled: Decay inside the gradient.
        decoupled: Decay applied to the weights directly.

    Returns:
        The fixed point, broadcast shape. Not meaningful where the decay is negative in sum.
    """
    lr, coupled, decoupled = broadcast(lr, coupled, decoupled)
    a, c, p, q = rule.a, rule.c, rule.p, rule.q
    keep = 1.0 - lr * decoupled
    rho = rule.correlation
    own = q * q + 2.0 * p * q * c
    raw = own + 2.0 * p * q * a * rho
    # Unknowns P, lr V, lr gg are all of the size of the decay: the system is well scaled.
    matrix = np.empty((*lr.shape, 3, 3))
    right = np.empty((*lr.shape, 3, 1))
    matrix[..., 0, 0] = -2.0 * a * c * coupled * lr
    matrix[..., 0, 1] = 1.0 - a * a
    matrix[..., 0, 2] = -c * (c + 2.0 * a * rho)
    right[..., 0, 0] = lr * (c * coupled) ** 2
    matrix[..., 1, 0] = 2.0 * a * p * (keep - q * lr * coupled)
    matrix[..., 1, 1] = -p * p
    matrix[..., 1, 2] = -raw
    right[..., 1, 0] = (
        -decoupled * (1.0 + keep) - 2.0 * keep * (p * c + q) * coupled + own * lr * coupled**2
    )
    matrix[..., 2, 0] = 1.0 - a * keep + q * a * lr * coupled
    matrix[..., 2, 1] = p
    matrix[..., 2, 2] = q * (c + a * rho)
    right[..., 2, 0] = c * coupled * (keep - q * lr * coupled)
    lean, lr_buffer, lr_gradient = np.moveaxis(np.linalg.solve(matrix, right)[..., 0], -1, 0)
    kick = (p * c + q) * (p * c + q + 2.0 * p * a * rho)
    lr_energy = (p * a) ** 2 * (lr_buffer - lr * lean**2) + kick * lr_gradient
    radial = keep - lr * (p * (a * lean + c * coupled) + q * coupled)
    with np.errstate(divide="ignore", invalid="ignore"):
        w_over_g = lr / (lr_gradient + 0.0)  # never a negative zero
        if not rule.normalised:
            w_over_g = np.sqrt(w_over_g)
        buffer = lr_buffer / lr
    return SteadyState(
        turn2=(2.0 * lr * lr_energy / (1.0 + radial))[()],
        w_over_g=w_over_g[()],
        P_over_W=lean[()],
        V_over_W=buffer[()],
    )
