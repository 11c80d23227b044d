"""What the reference estimator takes from checkpoints, with torch's own reader, in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from run_specs import RunSpec

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Ends:
    """One interval's two ends, each `[tensors]`: |w|^2, <w, v>, |v|^2 in the norm that is used."""

    W: tuple[Array, Array]
    P: tuple[Array, Array]
    V: tuple[Array, Array]
    to_plain: Array  # Delta^2 = Delta_used^2 * to_plain
    gradient2: Array  # squared unit gradient where the state holds it, else NaN


def load(folder: Path, steps: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Checkpoints of a run with optimizer state, weights as float64 by name."""
    loaded = []
    for step in steps:
        raw = torch.load(folder / "state" / f"ckpt_{step}.pt", weights_only=True)
        model = {k: t.double() for k, t in raw["model"].items()}
        names = [k for k in model if not k.rsplit(".", 1)[1].startswith(("running", "num_"))]
        groups = raw["optimizer"]["param_groups"]
        if len(groups) == 2:  # the trainer puts matrices in the first, vectors in the second
            names = [k for k in names if model[k].ndim > 1] + [
                k for k in names if model[k].ndim == 1
            ]
        state = {names[i]: s for i, s in raw["optimizer"]["state"].items()}
        loaded.append({"w": model, "state": state, "lr": groups[0]["lr"]})
    return loaded


def mean_leak(run: RunSpec, tensor: str, a: dict[str, Any], b: dict[str, Any], lr: Array) -> float:
    """kappa of one interval: batch norm's epsilon, from the motion of its gains."""
    norm = tensor.replace("conv.weight", "norm")
    gamma = [x["w"][f"{norm}.weight"] for x in (a, b)]
    none = torch.zeros_like(gamma[0])
    buffers = [x["state"].get(f"{norm}.weight", {}).get("momentum_buffer") for x in (a, b)]
    first, last = (none if x is None else x.double() for x in buffers)
    fraction = sum(1e-5 / (x["w"][f"{norm}.running_var"] + 1e-5) for x in (a, b)) / 2
    m = run.momentum**2 if run.nesterov else run.momentum
    shift = (1 - run.momentum) * (gamma[0] - gamma[1])
    gradient = (shift + m * (lr[-1] * last - lr[0] * first)) / lr.sum()
    middle = (gamma[0] + gamma[1]) / 2
    gradient = gradient - (run.weight_decay if run.decay_gains else 0.0) * middle
    norms = [float((x["w"][tensor] ** 2).sum()) for x in (a, b)]
    return float((fraction * middle * gradient).sum()) / math.sqrt(norms[0] * norms[1])


def sgd_ends(tensors: list[str], a: dict[str, Any], b: dict[str, Any]) -> Ends:
    """Plain norms and, where saved, momentum buffers."""
    rows = []
    for name in tensors:
        for x in (a, b):
            w = x["w"][name]
            v = x["state"].get(name, {}).get("momentum_buffer")
            v = torch.zeros_like(w) if v is None else v.double()
            rows.append([float((p * q).sum()) for p, q in ((w, w), (w, v), (v, v))])
    table = np.array(rows).reshape(len(tensors), 2, 3)
    W, P, V = ((table[:, 0, k], table[:, 1, k]) for k in range(3))
    return Ends(W, P, V, np.ones(len(tensors)), np.full(len(tensors), np.nan))


def adam_ends(run: RunSpec, tensors: list[str], a: dict[str, Any], b: dict[str, Any]) -> Ends:
    """Norms weighted by sqrt(vhat), geometric mean of both ends."""
    rows, plain, gradient2 = [], [], []
    for name in tensors:
        moments: list[tuple[Any, Any] | None] = []
        for x in (a, b):
            s = x["state"].get(name)
            if s is None:
                moments.append(None)
                continue
            k = float(s["step"])
            root = (s["exp_avg_sq"].double() / (1 - run.betas[1] ** k)).sqrt() + 1e-8
            moments.append((s["exp_avg"].double() / (1 - run.betas[0] ** k) / root, root))
        roots = [m[1] for m in moments if m is not None]
        scale = torch.stack(roots).log().mean(0).exp()
        gradient2.append(np.exp(np.mean([np.log(float((root**2).sum())) for root in roots])))
        scale = scale / scale.mean()
        for x, m in zip((a, b), moments, strict=True):
            w = x["w"][name]
            u = torch.zeros_like(w) if m is None else m[0]
            rows.append([float((scale * p * q).sum()) for p, q in ((w, w), (w, u), (u, u))])
            plain.append(float((w * w).sum()))
    table = np.array(rows).reshape(len(tensors), 2, 3)
    W, P, V = ((table[:, 0, k], table[:, 1, k]) for k in range(3))
    middle = np.sqrt(np.array(plain).reshape(-1, 2).prod(axis=1))
    return Ends(W, P, V, np.sqrt(W[0] * W[1]) / middle, np.array(gradient2) * middle)
