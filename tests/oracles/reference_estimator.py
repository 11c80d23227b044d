"""A second, independent estimator of one-step angles: slow loops over float64 numpy, torch files.

Follows docs/theory.md literally and shares no code with smdlens. Everything is [tensors] per
interval; intervals are done in order, so that the moments of the velocity carry over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from reference_tracks import Array, Ends, adam_ends, load, mean_leak, sgd_ends
from run_specs import RunSpec


@dataclass(frozen=True)
class Options:
    """What to use of what is known; the defaults are the best."""

    state: bool = True
    leak: float = 0.95  # six runs of this trainer: 0.93 to 1.00
    closed_form: bool = False
    shape: bool = True  # let the shot trajectory weigh the exact boundary terms
    nesterov_gain: float = 1.012  # its gradients lean against the velocity, which shooting ignores


@dataclass(frozen=True)
class Rule:
    """v = a v' + c (g + l w), u = p v + q (g + l w), w+ = (1 - eta decoupled) w - eta u."""

    a: float
    c: float
    p: float
    q: float
    adaptive: bool


def rule_of(run: RunSpec) -> Rule:
    if run.optimizer == "adamw":
        return Rule(run.betas[0], 1 - run.betas[0], 1.0, 0.0, True)
    return Rule(run.momentum, 1.0, *((run.momentum, 1.0) if run.nesterov else (1.0, 0.0)), False)


@dataclass(frozen=True)
class Shot:
    """A trajectory of mean moments that ends at the measured norm, each `[tensors]`.

    Mean 2 (1 - cos Delta) and mean eta^2 |u|^2 / |w|^2; G; P and V at the end; and the sums
    eta^2 |u|^2, eta l |w|^2 and (eta_t - eta_(t-1)) P_t.
    """

    turned: Array
    step2: Array
    G: Array
    P: Array
    V: Array
    energy: Array
    work: Array
    jumps: Array


def shoot(
    rule: Rule, lr: Array, decay: float, kappa: Array, W0: Array, P0: Array, V0: Array, W1: Array
) -> Shot:
    """Find the G whose trajectory ends at W1, by bisection."""
    coupled = kappa if rule.adaptive else decay + kappa
    keep = 1.0 - lr * decay if rule.adaptive else np.ones_like(lr)
    zero = np.zeros_like(W0)

    def run(G: Array) -> tuple[Array, Shot]:
        W, P, V = W0, P0, V0
        turned, step2, energy, work, jumps = zero, zero, zero, zero, zero
        for eta, before, al in zip(lr, (lr[0], *lr[:-1]), keep, strict=True):
            gg = (G if rule.adaptive else G / W) + coupled**2 * W
            d = rule.a * P + rule.c * coupled * W
            Vn = rule.a**2 * V + rule.c**2 * gg + 2 * rule.a * rule.c * coupled * P
            x = rule.a * coupled * P + rule.c * gg
            e = rule.p * d + rule.q * coupled * W
            U = rule.p**2 * Vn + rule.q**2 * gg + 2 * rule.p * rule.q * x
            y = rule.p * Vn + rule.q * x
            Wn = al**2 * W - 2 * eta * al * e + eta**2 * U
            turned = turned + 2 * (1 - (al * W - eta * e) / np.sqrt(W * Wn))
            step2 = step2 + eta**2 * U / W
            energy = energy + eta**2 * U
            work = work + eta * coupled * W
            jumps = jumps + (eta - before) * P
            P = al * d - eta * y
            W, V = Wn, Vn
        return W, Shot(turned / len(lr), step2 / len(lr), G, P, V, energy, work, jumps)

    scale = W0 if rule.adaptive else W0**2
    low, high = np.log(1e-12 * scale / lr.mean() ** 2), np.log(1e2 * scale / lr.mean() ** 2)
    for _ in range(48):
        middle = (low + high) / 2
        with np.errstate(over="ignore", invalid="ignore"):
            above = ~(run(np.exp(middle))[0] < W1)
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return run(np.exp((low + high) / 2))[1]


def closed_form(rule: Rule, lr: float, decay: Array, s: Array) -> Array:
    """2 (1 - cos Delta) of a steady trend s of ln |w|^2, heavy ball, plain SGD or AdamW."""
    a, g = rule.a, -s if not rule.adaptive else np.zeros_like(s)
    if rule.adaptive:
        growth = np.exp(s) / (1 - lr * decay) ** 2
        x = np.exp(s / 2) / (1 - lr * decay)
        delta2 = (growth - 1) * (np.exp(g) - a) / (np.exp(g) + a)
        return np.asarray(np.maximum(delta2 - (x - 1) ** 2, 0.0))
    push = 2 * lr * decay * np.exp(s) / (np.exp(s) - a)
    delta2 = (np.expm1(s) + push) * (np.exp(g) - a) / (np.exp(g) + a)
    return np.asarray(np.maximum((delta2 - np.expm1(s / 2) ** 2) * np.exp(-s / 2), 0.0))


def from_buffers(rule: Rule, lr: Array, decay: Array, ends: Ends) -> Array:
    """Heavy ball at a constant rate: the norm balance with exact boundary terms."""
    W0, W1 = ends.W
    n, s = len(lr), np.log(W1 / W0)
    mean = (W1 - W0) / s
    gain = (1 - rule.a) * (W1 - W0) + 2 * lr[0] * decay * n * mean
    gain -= 2 * rule.a * lr[0] * (ends.P[1] - ends.P[0])
    delta2 = gain / ((1 + rule.a) * n * mean)
    return np.asarray(np.maximum((delta2 - np.expm1(s / n / 2) ** 2) * np.exp(-s / n / 2), 0.0))


def from_buffers_and_shot(rule: Rule, lr: Array, ends: Ends, shot: Shot) -> Array:
    """Heavy ball, any schedule: the exact sum of squared steps, weighed as in the shot trajectory.

    (1 + a) sum eta^2 |v|^2 = (1 - a)(W1 - W0) + 2 sum eta l W - 2a (eta_last P1 - eta_first P0
    - sum (eta_t - eta_(t-1)) P_t). The trajectory supplies the two sums that no snapshot holds, and
    the mean of eta^2 |v|^2 / |w|^2, which is not the quotient of the means when the norm moves.
    """
    W0, W1 = ends.W
    boundary = lr[-1] * ends.P[1] - lr[0] * ends.P[0] - shot.jumps
    energy = (1 - rule.a) * (W1 - W0) + 2 * shot.work - 2 * rule.a * boundary
    energy /= 1 + rule.a
    return np.asarray(np.maximum(shot.turned + shot.step2 * (energy / shot.energy - 1), 0.0))


def expected_turn2(run: RunSpec, lr: Array) -> float:
    """Mean equilibrium value over the rates of an interval."""
    rule, pull = rule_of(run), 2 * float(lr.mean()) * run.weight_decay
    a = rule.a
    if rule.adaptive:
        return pull * (1 - a) / (1 + a)
    return pull * (((1 - a) * (1 + a) ** 3 + a**4) if run.nesterov else 1.0) / (1 + a)


def estimate(
    run: RunSpec,
    folder: Path,
    steps: NDArray[np.int64],
    tensors: list[str],
    options: Options = Options(),
    kappa_of: Callable[[int], Array] | None = None,
) -> pl.DataFrame:
    """Interval table of a run: tensor, steps, angles, ratio, unit gradient.

    Args:
        run: Its specification (the recorded rates).
        folder: As `real_runs.run_folder` gives it.
        steps: Steps of its snapshots.
        tensors: Convolution weights.
        options: What to use.
        kappa_of: True leak by interval, to see how much a wrong one costs.
    """
    rule, loaded = rule_of(run), load(folder, steps)
    has_buffers = options.state and (rule.adaptive or run.momentum > 0)
    P, V = np.zeros(len(tensors)), np.zeros(len(tensors))
    rows = []
    for i, (start, stop) in enumerate(zip(steps[:-1].tolist(), steps[1:].tolist(), strict=True)):
        a, b, n = loaded[i], loaded[i + 1], stop - start
        lr = np.array([run.lr(t) for t in range(start, stop)])
        weighted = rule.adaptive and options.state
        ends = adam_ends(run, tensors, a, b) if weighted else sgd_ends(tensors, a, b)
        kappa = np.zeros(len(tensors))
        if kappa_of is not None:
            kappa = kappa_of(i)
        elif options.leak and not rule.adaptive:
            kappa = options.leak * np.array([mean_leak(run, t, a, b, lr) for t in tensors])
        if has_buffers:
            P, V = ends.P[0], ends.V[0]
        shot = shoot(rule, lr, run.weight_decay, kappa, ends.W[0], P, V, ends.W[1])
        turned, G, P, V = shot.turned, shot.G, shot.P, shot.V
        constant = bool((lr == lr[0]).all())
        trend = np.log(ends.W[1] / ends.W[0]) / n
        if options.closed_form:
            turned = closed_form(rule, float(lr.mean()), run.weight_decay + kappa, trend)
        elif constant and rule.a == 0.0:
            chord = trend - 2 * np.log1p(-lr[0] * (run.weight_decay + kappa))
            turned = -2 * np.expm1(-chord / 2)
        elif has_buffers and not rule.adaptive and not run.nesterov and i:
            balance = turned
            if options.shape:
                balance = from_buffers_and_shot(rule, lr, ends, shot)
            elif constant:
                balance = from_buffers(rule, lr, run.weight_decay + kappa, ends)
            G, turned = G * balance / turned, balance
        if rule.adaptive:
            G = ends.gradient2
        turned = turned * ends.to_plain
        if run.nesterov:
            turned = turned * options.nesterov_gain**2
        expected = 2 * np.arcsin(np.sqrt(expected_turn2(run, lr)) / 2)
        angle = 2 * np.arcsin(np.sqrt(turned) / 2)
        for k, name in enumerate(tensors):
            rows.append((name, start, stop, angle[k], expected, angle[k] / expected, np.sqrt(G[k])))
    columns = ["tensor", "step_from", "step_to", "one_step_angle_rad"]
    columns += ["expected_one_step_angle_rad", "ratio", "unit_gradient_rms"]
    return pl.DataFrame(rows, schema=columns, orient="row").fill_nan(None)
