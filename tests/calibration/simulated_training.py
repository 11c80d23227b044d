"""Training simulated with real weight vectors, every update's angle kept.

T tensors of D entries run side by side. Tensor i sees the gradient of a loss that depends on the
direction u = w / |w| only: noise of covariance C_i (not isotropic), of a length that varies from
update to update and drifts, plus the slope of a quadratic bowl around an anchor on the sphere,
which makes successive gradients oppose each other as those of real networks do; projected across w
and divided by |w|. The optimizers are torch's formulas. Nothing of smdlens is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SIZE = 128
CHANNELS = 16


@dataclass(frozen=True)
class Rule:
    """An optimizer: kind sgd, sgdw, adam, adamw or lion, as torch has it."""

    kind: str = "sgd"
    momentum: float = 0.0
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    @property
    def memory(self) -> float:
        """Momentum, or beta1."""
        return self.betas[0] if self.adaptive else self.momentum

    @property
    def adaptive(self) -> bool:
        return self.kind in ("adam", "adamw", "lion")

    def settled_norm(self, lr: float, decay: float, unit: float, size: int = SIZE) -> float:
        """Equilibrium norm at leading order, to start tensors near or far from it."""
        if self.kind == "adam":
            return float((lr * np.sqrt(size) * unit / (2 * decay)) ** (1 / 3))
        if self.adaptive:
            return float(np.sqrt(size * lr / (2 * decay)))
        held_back = 1 - self.momentum
        power = 2 if self.kind == "sgdw" else 1
        return float((unit**2 * lr / (2 * decay * held_back**power)) ** 0.25)


@dataclass(frozen=True)
class Tensors:
    """What sets T tensors apart; arrays are [T] unless said otherwise.

    Attributes:
        names: Of each.
        norm: At the start.
        amplitude: Length of the unit gradient's noise at each update, [total, T].
        covariance: Of the noise, [T, D], summing to 1 per tensor.
        stiffness: Curvature of the bowl, [T, D], in units of the unit gradient.
        pulled: How far the bowl's bottom lies from the start, [T]: 0 at the start itself.
        decays: Whether weight decay acts.
        hold: "" (free), "norm" (restored after each update) or "frozen".
    """

    names: Sequence[str]
    norm: Array
    amplitude: Array
    covariance: Array
    stiffness: Array
    pulled: Array
    decays: NDArray[np.bool_]
    hold: Sequence[str]


@dataclass
class Simulation:
    """A run: snapshots (buffers included) and what each update did."""

    rule: Rule
    tensors: Tensors
    lr: Array  # [total]
    decay: float
    steps: list[int]
    weights: list[Array] = field(default_factory=list)  # per snapshot [T, D]
    first: list[Array] = field(default_factory=list)
    second: list[Array] = field(default_factory=list)
    turn2: Array = field(default_factory=lambda: np.zeros(0))  # [total, T]

    def rms_angle(self) -> Array:
        """RMS one-step angle per tensor and interval, radians, [T, I]."""
        sums = np.concatenate([np.zeros((1, len(self.tensors.names))), self.turn2.cumsum(axis=0)])
        at = np.array(self.steps)
        mean = np.diff(sums[at], axis=0) / np.diff(at)[:, None]
        return 2.0 * np.arcsin(np.sqrt(mean.T) / 2.0)


def simulate(
    rule: Rule, tensors: Tensors, lr: Array, decay: float, saves: Sequence[int], seed: int
) -> Simulation:
    """Runs len(lr) updates and keeps the snapshots at `saves` (updates done, in order)."""
    draw = np.random.default_rng(seed)
    count, size = tensors.covariance.shape
    w = draw.standard_normal((count, size))
    w *= (tensors.norm / np.linalg.norm(w, axis=1))[:, None]
    # Training has brought steep directions close to what they should be, flat ones not yet.
    steepness = tensors.covariance * size
    anchor = (
        w / np.linalg.norm(w, axis=1, keepdims=True) / (1.0 + tensors.pulled[:, None] * steepness)
    )
    bowl = tensors.stiffness if tensors.stiffness.any() else None
    spread = np.sqrt(tensors.covariance)
    pull = decay * tensors.decays[:, None]
    free = np.array([hold != "frozen" for hold in tensors.hold])[:, None]
    held = np.array([hold == "norm" for hold in tensors.hold])
    first, second = np.zeros_like(w), np.zeros_like(w)
    run = Simulation(rule, tensors, lr, decay, list(saves), turn2=np.zeros((len(lr), count)))
    kept = set(saves)

    def save() -> None:
        run.weights.append(w.copy())
        run.first.append(first.copy())
        run.second.append(second.copy())

    for t in range(len(lr)):
        if t in kept:
            save()
        w2 = np.einsum("td,td->t", w, w)
        r = np.sqrt(w2)[:, None]
        g = draw.standard_normal((count, size), dtype=np.float32) * spread
        g *= tensors.amplitude[t][:, None]
        if bowl is not None:
            g += bowl * (w / r - anchor)
        g -= (np.einsum("td,td->t", g, w) / w2)[:, None] * w
        g /= r
        new = _update(rule, g, w, pull, first, second, float(lr[t]), t)
        if not free.all():
            new = np.where(free, new, w)
        if held.any():
            length = np.linalg.norm(new, axis=1)
            new = np.where(held[:, None], new * (tensors.norm / length)[:, None], new)
        dot = np.einsum("td,td->t", w, new)
        new2 = np.einsum("td,td->t", new, new)
        run.turn2[t] = 2 * np.maximum(1 - dot / np.sqrt(w2 * new2), 0.0)
        w = new
    if len(lr) in kept:
        save()
    return run


def _update(
    rule: Rule, g: Array, w: Array, pull: Array, first: Array, second: Array, lr: float, t: int
) -> Array:
    """Weights after one update; moments change in place."""
    if not rule.adaptive:
        decoupled = rule.kind == "sgdw"
        h = g if decoupled else g + pull * w
        first *= rule.momentum
        first += h
        step = h + rule.momentum * first if rule.nesterov else first
        return (w - (lr * pull) * w if decoupled else w) - lr * step
    b1, b2 = rule.betas
    if rule.kind == "lion":
        direction = np.sign(b1 * first + (1 - b1) * g)
        first *= b2
        first += (1 - b2) * g
        return (1 - lr * pull) * w - lr * direction
    h = g + pull * w if rule.kind == "adam" else g
    first *= b1
    first += (1 - b1) * h
    second *= b2
    second += (1 - b2) * h * h
    denominator = np.sqrt(second / (1 - b2 ** (t + 1))) + rule.eps
    step = first / (1 - b1 ** (t + 1)) / denominator
    return (w if rule.kind == "adam" else (1 - lr * pull) * w) - lr * step
