"""Direct simulation of optimizers on a scale-invariant loss with random gradients (numpy only)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smdlens.theory.moments import UpdateRule


@dataclass
class Walk:
    """Moments of many replicas, [n + 1, replicas], and the angle of every update, [n, replicas]."""

    W: np.ndarray
    P: np.ndarray
    V: np.ndarray
    turn2: np.ndarray
    weights: np.ndarray
    buffers: np.ndarray
    gradients: np.ndarray


def tangent_gradient(rng, w, norm, drift=None):
    """Isotropic gradient across w with unit-gradient norm `norm`; `drift` makes it correlated."""
    g = rng.standard_normal(w.shape)
    if drift is not None:
        g = g + drift
    g -= (np.sum(g * w, -1) / np.sum(w * w, -1))[..., None] * w
    g *= norm / np.sqrt(np.sum(g * g, -1))[..., None]
    return g


def walk(
    rule: UpdateRule,
    lr,
    coupled: float,
    decoupled: float,
    *,
    dim: int = 60,
    replicas: int = 40,
    norm: float = 1.0,
    start: float = 1.0,
    seed: int = 0,
    drift: float = 0.0,
    keep_vectors: bool = False,
) -> Walk:
    """Run the optimizer of `rule` itself on vectors, replica by replica in one batch."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((replicas, dim))
    w *= start / np.linalg.norm(w, axis=1, keepdims=True)
    v = np.zeros_like(w)
    push = drift * rng.standard_normal((replicas, dim)) if drift else None
    W, P, V, turn2 = [np.sum(w * w, 1)], [np.zeros(replicas)], [np.zeros(replicas)], []
    vectors, buffers, gradients = [w], [v], []
    for eta in np.asarray(lr):
        g = tangent_gradient(rng, w, norm, push)
        if not rule.normalised:
            g /= np.linalg.norm(w, axis=1, keepdims=True)
        h = g + coupled * w
        v = rule.a * v + rule.c * h
        u = rule.p * v + rule.q * h
        new = (1 - eta * decoupled) * w - eta * u
        a = w / np.linalg.norm(w, axis=1, keepdims=True)
        b = new / np.linalg.norm(new, axis=1, keepdims=True)
        turn2.append(np.sum((a - b) ** 2, 1))
        w = new
        W.append(np.sum(w * w, 1))
        P.append(np.sum(w * v, 1))
        V.append(np.sum(v * v, 1))
        if keep_vectors:
            vectors.append(w)
            buffers.append(v)
            gradients.append(g)
    return Walk(*(np.array(x) for x in (W, P, V, turn2, vectors, buffers, gradients)))


def close_in_mean(samples, expected, errors: float = 3.0, floor: float = 0.0) -> bool:
    """Whether the mean over replicas is within `errors` standard errors of `expected`."""
    samples = np.asarray(samples)
    spread = samples.std(ddof=1) / np.sqrt(samples.size)
    return abs(samples.mean() - expected) <= errors * spread + floor * abs(expected)
