"""The real runs that serve as oracles: networks, optimizers and schedules by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class RunSpec:
    """One run; `lr` gives the rate of update t.

    Attributes:
        jumps: First updates at a new rate.
        scheduler: Drive the rate with torch's MultiStepLR (a tenth at each jump), stepped before
            saving, so that the saved rate is already the next; otherwise it is set in the loop and
            the saved rate is the one that made the last step.
        decay_gains: Weight decay on norm parameters and biases too.
        named: Give the optimizer named parameters, so that it saves `param_names`.
    """

    name: str
    optimizer: str
    lr: Callable[[int], float]
    weight_decay: float
    steps: int
    gap: int
    widths: tuple[int, ...]
    residual: bool
    seed: int
    momentum: float = 0.0
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    batch: int = 32
    label_smoothing: float = 0.1
    noise: float = 0.5
    jumps: tuple[int, ...] = ()
    scheduler: bool = False
    decay_gains: bool = False
    named: bool = False


def stepwise(*rates: tuple[int, float]) -> Callable[[int], float]:
    """Piecewise constant: (first update, rate), in order."""
    return lambda t: [lr for start, lr in rates if t >= start][-1]


def cosine(peak: float, steps: int, warm_up: int = 0) -> Callable[[int], float]:
    """Linear warm-up to `peak`, then half a cosine down to a hundredth of it at `steps`.

    Not to 0: an update at the very end would be lost in the rounding of float32 weights, and the
    truth with it.
    """

    def rate(t: int) -> float:
        if t < warm_up:
            return peak * (t + 1) / warm_up
        phase = math.pi * (t - warm_up) / (steps - warm_up)
        return peak * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(phase)))

    return rate


RUNS = {
    spec.name: spec
    for spec in (
        RunSpec(
            "heavy_ball",
            "sgd",
            stepwise((0, 0.1), (1400, 0.02), (2600, 0.002)),
            jumps=(1400, 2600),
            weight_decay=5e-3,
            steps=3400,
            gap=200,
            widths=(12, 16, 24, 24),
            residual=False,
            seed=1,
            momentum=0.9,
        ),
        RunSpec(
            "heavy_ball_scheduler",
            "sgd",
            stepwise((0, 0.2), (1400, 0.02), (2800, 0.002)),
            weight_decay=3e-3,
            steps=3600,
            gap=200,
            widths=(8, 16, 16, 16),
            residual=False,
            seed=2,
            momentum=0.9,
            batch=64,
            jumps=(1400, 2800),
            scheduler=True,
            decay_gains=True,
        ),
        RunSpec(
            "heavy_ball_inside",
            "sgd",
            stepwise((0, 0.1), (1330, 0.02), (2710, 0.004)),
            jumps=(1330, 2710),
            weight_decay=5e-3,
            steps=4000,
            gap=400,
            widths=(8, 12, 16),
            residual=True,
            seed=3,
            momentum=0.9,
        ),
        RunSpec(
            "nesterov_cosine",
            "sgd",
            cosine(0.1, 3000),
            weight_decay=5e-3,
            steps=3000,
            gap=250,
            widths=(12, 12, 20),
            residual=True,
            seed=4,
            momentum=0.9,
            nesterov=True,
        ),
        RunSpec(
            "adamw",
            "adamw",
            stepwise((0, 4e-3), (1850, 8e-4)),
            jumps=(1850,),
            weight_decay=0.2,
            steps=3500,
            gap=250,
            widths=(12, 16, 24, 24),
            residual=False,
            seed=5,
            named=True,
        ),
        RunSpec(
            "plain_sgd",
            "sgd",
            stepwise((0, 0.5), (2000, 0.1)),
            jumps=(2000,),
            weight_decay=4e-3,
            steps=4000,
            gap=400,
            widths=(12, 16, 16, 24),
            residual=False,
            seed=6,
        ),
        RunSpec(
            "warmup_cosine",
            "sgd",
            cosine(0.15, 3500, warm_up=500),
            weight_decay=4e-3,
            steps=3500,
            gap=250,
            widths=(10, 16, 20, 20),
            residual=False,
            seed=7,
            momentum=0.9,
        ),
        # No noise and strong decay: weights shrink until batch norm's epsilon pulls at them.
        RunSpec(
            "epsilon_leak",
            "sgd",
            stepwise((0, 0.1), (1000, 0.01), (2600, 0.001)),
            jumps=(1000, 2600),
            weight_decay=2e-2,
            steps=3400,
            gap=200,
            widths=(8, 12, 20),
            residual=True,
            seed=8,
            momentum=0.9,
            label_smoothing=0.0,
            noise=0.0,
            decay_gains=True,
        ),
    )
}
