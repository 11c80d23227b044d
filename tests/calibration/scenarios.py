"""Runs built to end in a known state, and runs of which nothing can be known.

The truth of a tensor is what its own updates did: its ratio over the last third of the stage, and
what it was built to do. Within 0.03 of a border either neighbour counts as right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from populations import Drawn, bowl, draw_amplitude, rates
from simulated_training import SIZE, Array, Rule, Tensors

from smdlens.vocabulary import State

TOLERANCE, BORDER = 0.1, 0.03
# Tensors of each kind in a run.
_COPIES = 4

# What a run's tensors are built to do; the last word of each picks their gradients and norms.
SETTLED = ("equilibrium", "leaving down", "leaving up", "periodic", "fixed norm", "frozen", "dead")
SETTLED_ADAM = ("equilibrium", "fixed norm", "frozen", "dead", "broken")
APPROACHING = ("from below", "from above", "diverging", "broken")
APPROACHING_ADAM = ("from below", "from above", "broken")
# States that need no ratio: right whatever the angles are.
_FIXED = {
    "periodic": State.PERIODIC,
    "fixed norm": State.FIXED_NORM,
    "frozen": State.FROZEN,
    "dead": State.PURE_DECAY,
    "diverging": State.DIVERGING,
    "broken": State.DIVERGING,
    "undecayed": State.NO_DECAY,
}


@dataclass(frozen=True)
class Scenario:
    """A run of one family.

    Attributes:
        family: "settled", "approaching", "smooth" (cosine), "warm-up", "cut", "coarse" or
            "undecayed".
        intervals: Snapshots of the run, less one.
    """

    family: str
    optimizer: str
    rule: Rule
    gap: int
    intervals: int
    dtype: str
    state: bool
    seed: int

    @property
    def label(self) -> str:
        source = "state" if self.state else "weights"
        where = f"{self.family}-{self.optimizer}-{self.gap}-{self.dtype}-{source}"
        return f"{where}-{self.seed}".replace(" ", "_")


@dataclass(frozen=True)
class Built:
    """A scenario ready to simulate, with what each tensor is."""

    drawn: Drawn
    kinds: Sequence[str]
    cuts: Sequence[int]


# Updates in units of the relaxation time of r^4 (r^2 for Adam) that a family's stage lasts.
_RELAXATIONS = {
    "settled": 14.0,
    "approaching": 0.5,
    "smooth": 5.0,
    "warm-up": 2.0,
    "cut": 8.0,
    "coarse": 3.0,
    "undecayed": 6.0,
}
# Short windows look at the end of a run of this many updates.
_WINDOW_AFTER = 2000


def build(scenario: Scenario) -> Built:
    """Draws everything of a scenario from its seed."""
    draw = np.random.default_rng([scenario.seed, scenario.gap])
    rule, window = scenario.rule, scenario.gap * scenario.intervals
    start = 0 if window >= _WINDOW_AFTER else _WINDOW_AFTER - window
    total = start + window
    relaxation = _RELAXATIONS[scenario.family] * float(draw.uniform(0.85, 1.2))
    power = 2.0 if rule.adaptive else 4.0
    pull = relaxation / (power * total)
    peak = 2e-3 if rule.adaptive else 0.1
    decay = pull / peak * (1.0 if rule.adaptive else 1.0 - rule.momentum)
    schedule = {"smooth": "cosine", "warm-up": "warm-up", "cut": "step"}.get(
        scenario.family, "constant"
    )
    # A short second stage, its cut at a snapshot.
    cut = start + scenario.gap * int(scenario.intervals * draw.uniform(0.5, 0.7))
    lr = rates(schedule, peak, total, cut, 10.0)
    kinds = [kind for kind in _kinds(scenario) for _ in range(_COPIES)]
    tensors = _tensors(draw, scenario, kinds, lr, decay, power * pull, start)
    saves = list(range(start, total + 1, scenario.gap))
    drawn = Drawn(rule, tensors, lr, decay, saves)
    return Built(drawn, kinds, [cut] if schedule == "step" else [])


def _kinds(scenario: Scenario) -> Sequence[str]:
    adaptive, short = scenario.rule.adaptive, scenario.gap < 100
    if scenario.family == "settled":
        # No sawtooth and no drift fits into a short window.
        return SETTLED_ADAM if adaptive or short else SETTLED
    if scenario.family == "approaching":
        return APPROACHING_ADAM if adaptive or short else APPROACHING
    if scenario.family in ("smooth", "warm-up"):
        return ("lagging",)
    if scenario.family == "cut":
        return ("cut",)
    if scenario.family == "undecayed":
        return ("undecayed", "equilibrium")
    return ("equilibrium", "from below", "from above")


def _tensors(
    draw: np.random.Generator,
    scenario: Scenario,
    kinds: Sequence[str],
    lr: Array,
    decay: float,
    relaxation: float,
    start: int,
) -> Tensors:
    rule, count, total = scenario.rule, len(kinds), len(lr)
    unit = np.exp(draw.uniform(-0.5, 0.5, count))
    settled = np.array([rule.settled_norm(lr.max(), decay, g) for g in unit])
    factor = np.exp(np.array([_START[kind](draw) if kind in _START else 0.0 for kind in kinds]))
    steepness = draw.uniform(0.0, 0.4, count)[:, None]
    covariance = np.arange(1, SIZE + 1)[None] ** (-2.0 * steepness)
    covariance /= covariance.sum(axis=1, keepdims=True)
    # Lagging means to follow the relaxation law of a steady unit gradient.
    drift = 0.0 if scenario.family in ("smooth", "warm-up") else 0.2
    noise = draw_amplitude(draw, count, total, [], drift)
    t = np.arange(total)
    shape = np.ones((total, count))
    for at, kind in enumerate(kinds):
        if kind in _SHAPE:
            shape[:, at] = _SHAPE[kind](t, start, relaxation, scenario.gap)
    sharpness = draw.uniform(0.0, 1.0, count) ** 2 * (drift > 0.0)
    stiffness = bowl(rule, float(lr.max()), unit, settled * factor, covariance, sharpness)
    # A dead tensor has no bowl either.
    stiffness[np.array([kind == "dead" for kind in kinds])] = 0.0
    holds = {"fixed norm": "norm", "frozen": "frozen"}
    return Tensors(
        [f"t{i}" for i in range(count)], settled * factor, unit * noise * shape, covariance,
        stiffness, draw.uniform(0.0, 0.5, count), np.array([kind != "undecayed" for kind in kinds]),
        [holds.get(kind, "") for kind in kinds],
    )  # fmt: skip


# ln of the starting norm over the settled one.
_START: dict[str, Callable[[np.random.Generator], float]] = {
    "from below": lambda draw: draw.uniform(0.3, 0.7),
    "from above": lambda draw: draw.uniform(-0.6, -0.35),
}


def _drift(rate: float) -> Callable[[Array, int, float, int], Array]:
    """Unit gradient whose square changes by `rate` per relaxation time from half-way on."""
    return lambda t, start, relaxation, gap: np.exp(
        rate * relaxation * np.maximum(t - len(t) / 2, 0) / 2
    )


def _sawtooth(t: Array, start: int, relaxation: float, gap: int) -> Array:
    """Five quiet intervals while the norm falls, one wild one; three where there are few.

    One tooth is no period: every run has two.
    """
    quiet = 5 if (len(t) - start) // gap >= 12 else 3
    return np.where((t - start) // gap % (quiet + 1) < quiet, 0.02, 2.0)


_SHAPE: dict[str, Callable[[Array, int, float, int], Array]] = {
    "leaving down": _drift(-0.5),
    "leaving up": _drift(0.9),
    "periodic": _sawtooth,
    "diverging": lambda t, start, relaxation, gap: np.exp(30.0 * (t / len(t)) ** 3),
    "dead": lambda t, start, relaxation, gap: 0.0 * t,
}


def was_held(ratios: Array) -> bool:
    """Three intervals in a row within the tolerance and the border: what can be left, [I]."""
    near = np.abs(ratios - 1.0) <= TOLERANCE + BORDER
    return bool((near[:-2] & near[1:-1] & near[2:]).any())


def right_states(kind: str, ratio: float, *, smooth: bool, held: bool = True) -> frozenset[State]:
    """States that are true of a tensor of this kind whose last third has this ratio.

    `held` says whether it was in equilibrium before: what was not cannot have left it.
    """
    if kind in _FIXED:
        return frozenset({_FIXED[kind]})
    below = State.LAGGING if smooth else State.APPROACHING_FROM_BELOW
    above = State.LAGGING if smooth else State.APPROACHING_FROM_ABOVE
    if kind.startswith("leaving") and held:
        below = above = State.LEAVING
    right = set()
    if abs(ratio - 1.0) <= TOLERANCE + BORDER:
        right.add(State.EQUILIBRIUM)
    if ratio < 1.0 - TOLERANCE + BORDER:
        right.add(below)
    if ratio > 1.0 + TOLERANCE - BORDER:
        right.add(above)
    if kind in ("equilibrium", "cut") or kind.startswith("leaving"):
        # Its unit gradient drifts: outside at the end, it has left.
        right |= {State.LEAVING} if right & {below, above} else set()
    if abs(abs(ratio - 1.0) - TOLERANCE) <= BORDER:
        right.add(State.UNDETERMINED)
    return frozenset(right)
