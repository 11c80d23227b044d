"""The population of tensors, schedules and ways of saving that intervals are calibrated on.

Ranges are those of small real networks: relative scatter of the squared gradient from 0.2 to 1, in
three of ten tensors correlated over a few updates (between snapshots 150 to 250 updates apart, the
angles of seven real runs scattered as if it were 0.3 to 1.4, once 2.7); slow drifts of the unit
gradient, a fall by up to 2 at a cut; noise that is not isotropic; a bowl whose steep directions
make gradients oppose the momentum (under Nesterov momentum by up to 0.25 of their square) and whose
bottom lies away from the start, so that the first updates are directed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter
from simulated_training import SIZE, Array, Rule, Tensors

OPTIMIZERS = {
    "SGD": (Rule(), Rule()),
    "momentum": (Rule(momentum=0.9), Rule(momentum=0.95), Rule(momentum=0.8)),
    "Nesterov": (Rule(momentum=0.9, nesterov=True), Rule(momentum=0.8, nesterov=True)),
    "AdamW": (Rule("adamw"), Rule("adamw", betas=(0.85, 0.98)), Rule("adamw", betas=(0.9, 0.99))),
}
SCHEDULES = ("constant", "step", "cosine", "warm-up")
GAPS = (1, 5, 20, 100, 400, 1500, 5000)
# Snapshots of each run: few where a gap is long, so that a run stays below 40,000 updates.
_INTERVALS = {1: 13, 5: 13, 20: 13, 100: 13, 400: 13, 1500: 9, 5000: 7}
_LONGEST_BURN_IN = 1200
# Effective learning rate times curvature: of the steepest direction, and on average over the noise.
_STEEPEST, _MEAN_STEEPNESS = 0.4, 0.17


@dataclass(frozen=True)
class Design:
    """One run of the population; everything follows from it and its seed."""

    optimizer: str
    schedule: str
    gap: int
    dtype: str  # "float32" or "bfloat16"
    state: bool
    seed: int
    count: int = 16

    @property
    def label(self) -> str:
        state = "state" if self.state else "weights"
        return f"{self.optimizer}-{self.schedule}-{self.gap}-{self.dtype}-{state}-{self.seed}"


@dataclass(frozen=True)
class Drawn:
    """A run ready to simulate."""

    rule: Rule
    tensors: Tensors
    lr: Array
    decay: float
    saves: list[int]


def draw_run(design: Design) -> Drawn:
    """Draws rates, tensors and snapshots of a run."""
    draw = np.random.default_rng([design.seed, GAPS.index(design.gap)])
    rules = OPTIMIZERS[design.optimizer]
    rule = rules[int(draw.integers(len(rules)))]
    window = design.gap * _INTERVALS[design.gap]
    # Short gaps look into the middle of a longer run.
    start = 0 if design.gap >= 400 else int(draw.integers(300, _LONGEST_BURN_IN))
    total = start + window
    # lr decay over (1 - a): how far decay alone would take ln |w| in one update.
    pull = float(np.exp(draw.uniform(np.log(6e-5), np.log(4e-3))))
    if rule.adaptive:
        peak, decay = 2e-3, pull / 2e-3
    else:
        peak = 0.1
        decay = pull * (1 - rule.momentum) / peak
    if design.schedule == "step" and start > 0:
        at = start + window // 2
    else:
        at = int(total * draw.uniform(0.35, 0.65))
    lr = rates(design.schedule, peak, total, at, float(draw.choice([2.0, 5.0, 10.0])))
    tensors = draw_tensors(draw, rule, design.count, lr, decay, [at] * (design.schedule == "step"))
    saves = list(range(start, total + 1, design.gap))
    return Drawn(rule, tensors, lr, decay, saves)


def rates(schedule: str, peak: float, total: int, cut: int, factor: float) -> Array:
    """Rate of each update, [total]."""
    t = np.arange(total)
    if schedule == "constant":
        return np.full(total, peak)
    if schedule == "step":
        return np.where(t < cut, peak, peak / factor)
    up = 0 if schedule == "cosine" else total // 8
    phase = np.pi * np.maximum(t - up, 0) / max(total - up, 1)
    rate = peak * (0.01 + 0.99 * 0.5 * (1 + np.cos(phase)))
    return np.where(t < up, peak * (t + 1) / max(up, 1), rate)


def draw_tensors(
    draw: np.random.Generator, rule: Rule, count: int, lr: Array, decay: float, cuts: list[int]
) -> Tensors:
    """Tensors with gradients of the population, from half to twice their settled norm."""
    unit = np.exp(draw.uniform(-1.0, 1.0, count))
    settled = np.array([rule.settled_norm(lr.max(), decay, g) for g in unit])
    norm = settled * np.exp(draw.uniform(-0.4, 0.4, count))
    steepness = draw.uniform(0.0, 0.4, count)[:, None]
    covariance = np.arange(1, SIZE + 1)[None] ** (-2.0 * steepness)
    covariance /= covariance.sum(axis=1, keepdims=True)
    covariance = np.stack([draw.permutation(row) for row in covariance])
    amplitude = unit * draw_amplitude(draw, count, len(lr), cuts)
    sharpness = draw.uniform(0.0, 1.0, count) ** 2
    stiffness = bowl(rule, float(lr.max()), unit, settled, covariance, sharpness)
    return Tensors(
        [f"t{i}" for i in range(count)], norm, amplitude, covariance, stiffness,
        draw.uniform(0.0, 0.5, count), np.ones(count, dtype=bool), [""] * count,
    )  # fmt: skip


def bowl(
    rule: Rule, lr: float, unit: Array, settled: Array, covariance: Array, sharpness: Array
) -> Array:
    """Curvature, steep where there is much noise as in trained networks, and steeper than it.

    At `sharpness` 1 the curvature times the effective learning rate is `_MEAN_STEEPNESS` on average
    over the noise, `_STEEPEST` at most: the gradients of Nesterov momentum then have a correlation
    of about -0.2 with it.
    """
    shape = (covariance / covariance.max(axis=1, keepdims=True)) ** 2
    mean = (covariance * shape).sum(axis=1)
    steepest = np.minimum(_MEAN_STEEPNESS / mean, _STEEPEST) * sharpness
    if rule.adaptive:
        # The entries that steer most have the largest second moments, too.
        gain = unit * settled * np.sqrt(covariance.max(axis=1)) / (1 - rule.memory)
    else:
        gain = settled**2
    return (steepest * gain / lr)[:, None] * shape


def draw_amplitude(
    draw: np.random.Generator, count: int, total: int, cuts: list[int], slow_drift: float = 0.2
) -> Array:
    """Length of the gradient's noise relative to its base, [total, T].

    `slow_drift` is the largest standard deviation of the logarithm of its slow part.
    """
    scatter = draw.uniform(0.1, 0.42, count)
    quick = np.where(draw.uniform(size=count) < 0.7, 0.0, draw.uniform(0.2, 0.8, count))
    slow = np.exp(-1.0 / np.exp(draw.uniform(np.log(500.0), np.log(4000.0), count)))
    drift = draw.uniform(0.0, slow_drift, count)
    log = scatter * _autoregressive(draw, quick, total) + drift * _autoregressive(draw, slow, total)
    for cut in cuts:
        fall, back = draw.uniform(0.5, 1.0, count), draw.uniform(300.0, 2000.0, count)
        since = np.maximum(np.arange(total) - cut, 0)[:, None]
        here = (np.arange(total) >= cut)[:, None]
        log += here * np.log(fall) * np.exp(-since / back)
    return np.exp(log)


def _autoregressive(draw: np.random.Generator, memory: Array, total: int) -> Array:
    """Unit-variance AR(1) per column, [total, T]."""
    kick = draw.standard_normal((total, len(memory))) * np.sqrt(1 - memory**2)
    kick[0] = draw.standard_normal(len(memory))
    columns = [lfilter([1.0], [1.0, -a], kick[:, i]) for i, a in enumerate(memory)]
    return np.stack(columns, axis=1)
