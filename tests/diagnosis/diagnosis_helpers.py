"""Simulated runs of known truth, written as ordinary torch checkpoints.

Every tensor is scale-invariant by construction: its gradient is a random vector orthogonal to the
weights, of length G / |w| on average, G being its unit gradient. What every single update did is
kept, so that a report can be held against it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

import smdlens

CHANNELS = 16
EPSILON = 1e-5


@dataclass(frozen=True)
class Rule:
    """An optimizer as torch has it."""

    kind: str = "sgd"
    momentum: float = 0.9
    dampening: float = 0.0
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


@dataclass(frozen=True)
class Part:
    """One tensor.

    Attributes:
        gradient: Unit gradient at update t.
        norm: Norm at the start.
        decay: Weight decay relative to the run's (0: in the group without decay).
        hold: Restore the norm after each update, or leave the weights alone ("frozen").
        leak: kappa / decay that epsilon of its batch norm causes.
    """

    gradient: Callable[[int], float] = lambda t: 1.0
    norm: float = 4.0
    decay: float = 1.0
    hold: str = ""
    leak: float = 0.0


@dataclass
class Run:
    """A simulated run: snapshots, buffers at the snapshots, and what each update did."""

    rule: Rule
    lr: Callable[[int], float]
    decay: float
    parts: Mapping[str, Part]
    steps: list[int]
    weights: dict[str, list[np.ndarray]]
    slots: dict[str, dict[str, list[np.ndarray]]]
    gammas: dict[str, list[np.ndarray]]
    gamma_buffers: dict[str, list[np.ndarray]]
    running_var: dict[str, float]
    turn2: np.ndarray  # [updates, tensors]
    gradient2: np.ndarray  # |g|^2 |w|^2 of each update
    names: list[str] = field(default_factory=list)

    def rms_angle(self, name):
        """RMS one-step angle of each interval."""
        at = self.names.index(name)
        return np.array(
            [np.sqrt(self.turn2[a:b, at].mean()) for a, b in zip(self.steps, self.steps[1:])]
        )

    def last_angle(self, name):
        at = self.names.index(name)
        return np.sqrt(self.turn2[np.array(self.steps[1:]) - 1, at])

    def rms_gradient(self, name):
        at = self.names.index(name)
        return np.array(
            [np.sqrt(self.gradient2[a:b, at].mean()) for a, b in zip(self.steps, self.steps[1:])]
        )


def stepwise(*stages):
    return lambda t: [lr for start, lr in stages if t >= start][-1]


def simulate(rule, lr, decay, parts, *, total, gap, size=512, seed=0, saves=None,
             spread=0.0):  # fmt: skip
    """Runs `total` updates of all parts side by side; snapshots every `gap` (or at `saves`).

    Gradients of the entries differ in size by exp(spread * normal).
    """
    rng = np.random.default_rng(seed)
    sizes = np.exp(spread * np.random.default_rng(seed + 1000).standard_normal(size))
    sizes /= np.sqrt((sizes**2).mean())
    names = list(parts)
    own = [parts[n] for n in names]
    count = len(own)
    w = rng.standard_normal((count, size))
    w *= (np.array([p.norm for p in own]) / np.linalg.norm(w, axis=1))[:, None]
    wd = decay * np.array([p.decay for p in own])[:, None]
    leak = np.array([p.leak for p in own])[:, None] * decay
    free = np.array([p.hold != "frozen" for p in own])[:, None]
    held = np.array([p.hold == "norm" for p in own])
    start_norm = np.linalg.norm(w, axis=1)
    first, second = np.zeros_like(w), np.zeros_like(w)
    # Gains move so that gamma dL/dgamma shows the leak: <w_c, g_c> = f gamma dL/dgamma.
    gamma = np.where(leak != 0.0, 30.0, 1.0) * np.ones((count, CHANNELS))
    gamma_buffer = np.zeros((count, CHANNELS))
    variance = np.where(leak[:, 0] != 0.0, 10 * EPSILON, 1.0)
    share = EPSILON / (variance + EPSILON)
    saves = set(range(0, total + 1, gap)) if saves is None else set(saves)
    steps, weights, slots, gammas, gamma_buffers = [], [], [], [], []
    turn2, gradient2 = np.zeros((total, count)), np.zeros((total, count))

    def save(t):
        steps.append(t)
        weights.append(w.copy())
        slots.append((first.copy(), second.copy()))
        gammas.append(gamma.copy())
        gamma_buffers.append(gamma_buffer.copy())

    for t in range(total):
        if t in saves:
            save(t)
        w2 = (w * w).sum(axis=1, keepdims=True)
        z = rng.standard_normal(w.shape) * sizes
        z -= (z * w).sum(axis=1, keepdims=True) / w2 * w
        unit = np.array([p.gradient(t) for p in own])[:, None]
        g = z * unit / np.sqrt(size * w2)
        gradient2[t] = (g * g).sum(axis=1) * w2[:, 0]
        channel2 = (w.reshape(count, CHANNELS, -1) ** 2).sum(axis=2)
        gain_gradient = leak * channel2 / (share[:, None] * gamma)
        g = g + leak * w
        eta = lr(t)
        step, new = _update(rule, g, w, wd, first, second, eta, t), w
        new = np.where(free, step, w)
        if held.any():
            norm = np.linalg.norm(new, axis=1)
            new = np.where(held[:, None], new * (start_norm / norm)[:, None], new)
        dot = (w * new).sum(axis=1)
        new2 = (new * new).sum(axis=1)
        turn2[t] = 2 * np.maximum(1 - dot / np.sqrt(w2[:, 0] * new2), 0.0)
        w = new
        gamma_buffer = rule.momentum * gamma_buffer + gain_gradient
        gamma = gamma - eta * gamma_buffer
    if total in saves:
        save(total)
    return Run(
        rule, lr, decay, parts, steps,
        {n: [x[i] for x in weights] for i, n in enumerate(names)},
        {n: {"first": [x[0][i] for x in slots], "second": [x[1][i] for x in slots]}
         for i, n in enumerate(names)},
        {n: [x[i] for x in gammas] for i, n in enumerate(names)},
        {n: [x[i] for x in gamma_buffers] for i, n in enumerate(names)},
        dict(zip(names, variance.tolist())), turn2, gradient2, names,
    )  # fmt: skip


def _update(rule, g, w, wd, first, second, eta, t):
    """Weights after one update; moments change in place. torch's formulas."""
    if rule.kind in ("sgd", "sgdw"):
        pull = g if rule.kind == "sgdw" else g + wd * w
        first *= rule.momentum
        first += pull if t == 0 else (1 - rule.dampening) * pull
        step = pull + rule.momentum * first if rule.nesterov else first
        return (1 - eta * wd if rule.kind == "sgdw" else 1) * w - eta * step
    b1, b2 = rule.betas
    if rule.kind == "lion":
        direction = np.sign(b1 * first + (1 - b1) * g)
        first *= b2
        first += (1 - b2) * g
        return (1 - eta * wd) * w - eta * direction
    pull = g + wd * w if rule.kind == "adam" else g
    first *= b1
    first += (1 - b1) * pull
    second *= b2
    second += (1 - b2) * pull**2
    denominator = np.sqrt(second / (1 - b2 ** (t + 1))) + rule.eps
    step = first / (1 - b1 ** (t + 1)) / denominator
    return (1 if rule.kind == "adam" else 1 - eta * wd) * w - eta * step


def write(run: Run, folder: Path, *, state=True, dtype=torch.float32, next_rate=False,
          frozen_norm=False, epochs=False, extra=None, skip=()):  # fmt: skip
    """Writes `ckpt_<step>.pt` files as a trainer would.

    Args:
        run: The simulation.
        folder: Where to.
        state: With optimizer state (weights alone otherwise).
        dtype: Storage of the weights.
        next_rate: A scheduler stepped before saving.
        frozen_norm: Running statistics stay what they are.
        epochs: Files know epochs instead of steps.
        extra: More tensors per snapshot index, as a function.
        skip: Steps that are not saved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for i, step in enumerate(run.steps):
        if step in skip:
            continue
        model: dict[str, torch.Tensor] = {}
        for name in run.names:
            kernel = torch.tensor(run.weights[name][i]).reshape(CHANNELS, -1, 1, 1)
            model[f"{name}.conv.weight"] = kernel.to(dtype)
            model[f"{name}.bn.weight"] = torch.tensor(run.gammas[name][i], dtype=torch.float32)
            model[f"{name}.bn.bias"] = torch.zeros(CHANNELS)
            wobble = 0.0 if frozen_norm else 1e-3 * i
            model[f"{name}.bn.running_mean"] = torch.full((CHANNELS,), wobble)
            variance = run.running_var[name] * (1 + 0.01 * wobble)
            model[f"{name}.bn.running_var"] = torch.full((CHANNELS,), variance)
        if extra is not None:
            model |= extra(i, step)
        content: dict[str, object] = {"model": model}
        if epochs:
            content["epoch"] = step
        else:
            content["step"] = step
        if state:
            content["optimizer"] = _optimizer_state(run, i, step, next_rate, extra)
        torch.save(content, folder / (f"epoch_{step}.pt" if epochs else f"ckpt_{step}.pt"))
    return folder


def _optimizer_state(run, i, step, next_rate, extra):
    rule = run.rule
    decayed = [n for n in run.names if run.parts[n].decay > 0]
    plain = [n for n in run.names if run.parts[n].decay == 0]
    others = list(extra(i, step)) if extra is not None else []
    members = [
        [f"{n}.conv.weight" for n in decayed] + others,
        [f"{n}.conv.weight" for n in plain]
        + [f"{n}.bn.{part}" for n in run.names for part in ("weight", "bias")],
    ]
    rate = run.lr(step) if next_rate else run.lr(max(step - 1, 0))
    shared: dict[str, object] = {"lr": rate, "maximize": False}
    if next_rate:
        shared["initial_lr"] = run.lr(0)
    if rule.kind in ("sgd", "sgdw"):
        shared |= {"momentum": rule.momentum, "dampening": rule.dampening,
                   "nesterov": rule.nesterov}  # fmt: skip
    elif rule.kind == "lion":
        shared |= {"betas": rule.betas}
    else:
        shared |= {"betas": rule.betas, "eps": rule.eps, "amsgrad": False,
                   "decoupled_weight_decay": rule.kind == "adamw"}  # fmt: skip
    groups, state, at = [], {}, 0
    for names, decay in zip(members, (run.decay, 0.0)):
        groups.append({**shared, "weight_decay": decay, "param_names": names,
                       "params": list(range(at, at + len(names)))})  # fmt: skip
        for name in names:
            if step > 0 and (slots := _slots(run, name, i, step)):
                state[at] = slots
            at += 1
    return {"state": state, "param_groups": groups}


def _slots(run, name, i, step):
    part, _, leaf = name.partition(".")
    if part not in run.names:
        return {}
    if leaf == "conv.weight":
        first, second = (run.slots[part][k][i] for k in ("first", "second"))
        first = torch.tensor(first, dtype=torch.float32).reshape(CHANNELS, -1, 1, 1)
        second = torch.tensor(second, dtype=torch.float32).reshape(CHANNELS, -1, 1, 1)
    elif leaf == "bn.weight" and run.rule.kind == "sgd":
        first = second = torch.tensor(run.gamma_buffers[part][i], dtype=torch.float32)
    else:
        return {}
    if run.rule.kind in ("sgd", "sgdw"):
        return {"momentum_buffer": first} if run.rule.momentum else {}
    if run.rule.kind == "lion":
        return {"exp_avg": first}
    return {"exp_avg": first, "exp_avg_sq": second, "step": torch.tensor(float(step))}


def analyze(folder, **options):
    return smdlens.analyze(folder, device="cpu", **options)


def states(report, name):
    """State per stage of one simulated tensor."""
    rows = report.stages.filter(tensor=f"{name}.conv.weight").sort("stage")
    return rows.get_column("state").to_list()


def stage_row(report, name, stage):
    (row,) = report.stages.filter(tensor=f"{name}.conv.weight", stage=stage).to_dicts()
    return row


def intervals(report, name):
    return report.intervals.filter(tensor=f"{name}.conv.weight").sort("step_from")


def with_rule(run, **changes):
    return replace(run, rule=replace(run.rule, **changes))
