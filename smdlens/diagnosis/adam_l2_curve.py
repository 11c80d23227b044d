"""What an undisturbed tensor would do under Adam with L2 decay, from where each stage starts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.adam_l2 import remembered_norm
from smdlens.diagnosis.measure_group import GroupMeasurement
from smdlens.diagnosis.records import Stage
from smdlens.theory.relaxation import relax_adam_l2

Array = NDArray[np.float64]

# Pieces of an interval in which rates are taken as constant.
_PIECES = 32
_ROUNDS = 30


def adam_l2_curve(
    part: GroupMeasurement, stages: tuple[Stage, ...], owner: NDArray[np.int64]
) -> Array:
    """Squared ratio of the relaxation curve per tensor and interval, [T, I] (docs/theory.md §8).

    The unit gradient is taken as steady; the second moment follows the norm with its memory. Each
    stage starts where the one before it ended, the first from its first measured ratio; NaN where
    the moments are not saved.
    """
    q = part.ratios.q
    curve = np.full_like(q, np.nan)
    ending: tuple[Array, float] | None = None
    for stage in stages:
        own = np.flatnonzero(owner == stage.index)
        rates = [_pieces(part, int(i)) for i in own]
        if not rates or any(piece is None for piece in rates):
            ending = None
            continue
        known = [piece for piece in rates if piece is not None]
        first, scale = int(own[0]), known[0][0, 0] / known[0][1, 0]
        rate = _rate(part, first, known[0])
        memory = _Memory.at(part, first)
        if ending is None:
            level = _start(known[0], rate, q[:, first], memory)
        else:
            # The norm is what it was; r*^3 goes as lr / decay.
            level = ending[0] * ending[1] / scale
        for interval, piece in zip(own, known, strict=True):
            curve[:, interval], level, memory = _through(piece, rate, level, known[0], memory)
        at_end = _measured_level(part, int(own[-1]), known[-1], known[0])
        ending = np.where(np.isfinite(at_end), at_end, level), scale
    return curve


@dataclass(frozen=True)
class _Memory:
    """What the second moment remembers: r_m / r, [T], and how much of it has been filled."""

    share: Array
    filled: float
    beta2: float

    @classmethod
    def at(cls, part: GroupMeasurement, interval: int) -> _Memory:
        """As it is when an interval begins."""
        steps = part.tracks.steps
        beta2 = ((part.law and part.law.betas) or (0.9, 0.999))[1]
        filled = 1.0 if steps[0] > 0 else 1.0 - beta2 ** float(steps[interval])
        share = remembered_norm(part.tracks, part.law)[:, interval]
        return cls(np.ones_like(share) if filled == 0.0 else share, filled, beta2)

    def after(self, n: float, growth: Array) -> _Memory:
        """After n updates in which the norm grew by a factor."""
        kept = self.beta2**n
        filled = kept * self.filled + 1.0 - kept
        # In units of the new norm: what is remembered of old ones, and the mean of both ends.
        old2 = (self.share / growth) ** -2.0
        new2 = (1.0 + growth**2) / 2.0
        mean2 = (kept * self.filled * old2 + (1.0 - kept) * new2) / filled
        return _Memory(mean2**-0.5, filled, self.beta2)


def _pieces(part: GroupMeasurement, interval: int) -> Array | None:
    """Learning rate, weight decay and updates of each piece of an interval, [3, pieces]."""
    n = int(part.rates.count[interval])
    lr, decay = part.rates.lr[:n, interval], part.rates.decay[:n, interval]
    if n == 0 or not (lr > 0.0).any() or not (decay > 0.0).all():
        return None
    edges = np.unique(np.linspace(0, n, min(n, _PIECES) + 1).round().astype(int))
    counts = np.diff(edges)
    rows = [np.add.reduceat(x, edges[:-1]) / counts for x in (lr, decay)]
    return np.stack([*rows, counts.astype(np.float64)])


def _rate(part: GroupMeasurement, interval: int, piece: Array) -> Array:
    """Lr l* at the stage's first rates, [T]: the decay that acts in its equilibrium, per update."""
    acting = piece[1].mean() / part.tracks.between["s_mean"][:, interval]
    memory = remembered_norm(part.tracks, part.law)[:, interval]
    with np.errstate(invalid="ignore"):
        return np.asarray(piece[0, 0] * acting * np.sqrt(part.ratios.q[:, interval]) / memory**2)


def _through(
    piece: Array, rate: Array, level: Array, first: Array, memory: _Memory
) -> tuple[Array, Array, _Memory]:
    """Mean squared ratio over an interval; (r / r*)^3, of the stage's start, and memory after."""
    total, weight = np.zeros_like(level), 0.0
    for lr, decay, n in piece.T:
        target = (lr / decay) / (first[0, 0] / first[1, 0])
        speed = rate * lr * decay / (first[0, 0] * first[1, 0])
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            after = relax_adam_l2(level, speed * memory.share, target * memory.share, n)
            then = memory.after(n, np.cbrt(after / level))
            squared = (target / np.sqrt(level * after)) ** (2.0 / 3.0) * memory.share * then.share
        memory = then
        # Equilibrium turn2 goes as (lr^2 decay)^(2/3).
        share = n * (lr**2 * decay) ** (2.0 / 3.0)
        total, weight, level = total + share * squared, weight + share, after
    mean = total / weight if weight > 0.0 else np.full_like(level, np.nan)
    return mean, level, memory


def _start(piece: Array, rate: Array, q: Array, memory: _Memory) -> Array:
    """Level at the start of an interval whose mean squared ratio is q, [T]."""
    low, high = np.full(len(q), -9.0), np.full(len(q), 9.0)
    for _ in range(_ROUNDS):
        middle = (low + high) / 2.0
        mean, _, _ = _through(piece, rate, np.exp(middle), piece, memory)
        too_small = mean < q
        low, high = np.where(too_small, low, middle), np.where(too_small, middle, high)
    return np.where(np.isfinite(q), np.exp((low + high) / 2.0), np.nan)


def _measured_level(part: GroupMeasurement, interval: int, piece: Array, first: Array) -> Array:
    """(r / r*)^3 over an interval as measured, r* of the stage's start, [T]: q = (r*/r)^2 m^2."""
    target = (piece[0].mean() / piece[1].mean()) / (first[0, 0] / first[1, 0])
    with np.errstate(divide="ignore", invalid="ignore"):
        memory = remembered_norm(part.tracks, part.law)[:, interval]
        return np.asarray(target * memory**3 * part.ratios.q[:, interval] ** -1.5)
