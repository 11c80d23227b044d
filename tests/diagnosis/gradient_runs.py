"""A small real network trained on digits, every update saved and every gradient logged."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "oracles"))
from digits_networks import DigitsNet, noisy_batches

LR, DECAY, SEEN = 0.05, 5e-3, 32


@dataclass(frozen=True)
class Logged:
    """What every update of the saved stretch really did; arrays [updates] per tensor, float64."""

    start: int
    w2: dict[str, np.ndarray]
    grad2: dict[str, np.ndarray]
    grad_w: dict[str, np.ndarray]
    grad_v: dict[str, np.ndarray]


@dataclass(frozen=True)
class Saving:
    """How a run is trained and saved.

    Attributes:
        before: Updates before the first snapshot.
        updates: Updates from the first snapshot to the last; they are logged.
        every: Updates between snapshots.
        weights_only: Leave the optimizer state out.
        dtype: Storage of the weights.
        buffers: Storage of the optimizer's buffers.
        eps: Epsilon of the batch norms.
        seed: Of everything.
        penalty: Parameters by name -> what is added to the loss.
        tamper: Called with (parameters by name, update) after each update.
        rename: Parameter name -> the name it is saved under.
        average: Save an exponential average with this memory in place of the weights.
    """

    before: int = 40
    updates: int = SEEN
    every: int = 1
    weights_only: bool = False
    dtype: torch.dtype | None = None
    buffers: torch.dtype | None = None
    eps: float = 1e-5
    seed: int = 0
    penalty: Callable[[dict[str, torch.Tensor]], torch.Tensor] | None = None
    tamper: Callable[[dict[str, torch.Tensor], int], None] | None = None
    rename: Callable[[str], str] = str
    average: float | None = None


def train(folder: Path, make: Any, **saving: Any) -> Logged:
    """Trains the network with the optimizer that `make` gives for two parameter groups."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            how = Saving(**saving)
            torch.manual_seed(how.seed)
            return _train(folder, make, how)
    finally:
        torch.set_num_threads(threads)


def _train(folder: Path, make: Any, how: Saving) -> Logged:
    folder.mkdir(parents=True)
    model = DigitsNet((8, 12, 16), residual=False)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = how.eps
    named = dict(model.named_parameters())
    matrices = {n: p for n, p in named.items() if p.ndim > 1}
    vectors = [p for p in named.values() if p.ndim == 1]
    optimizer = make(
        [
            {"params": list(matrices.values()), "weight_decay": DECAY},
            {"params": vectors, "weight_decay": 0.0},
        ]
    )
    log: dict[str, dict[str, list[float]]] = {
        key: {n: [] for n in matrices} for key in ("w2", "grad2", "grad_w", "grad_v")
    }
    average = copy.deepcopy(model.state_dict())
    batches = noisy_batches(32, how.seed)
    for step in range(how.before + how.updates + 1):
        seen = step - how.before
        if seen >= 0 and seen % how.every == 0:
            weights = model.state_dict() if how.average is None else average
            _save(folder, step, weights, optimizer, how)
        if seen == how.updates:
            break
        images, labels = next(batches)
        loss = F.cross_entropy(model(images), labels, label_smoothing=0.1)
        if how.penalty is not None:
            loss = loss + how.penalty(named)
        optimizer.zero_grad()
        loss.backward()
        if seen >= 0:
            for name, p in matrices.items():
                w, g = p.detach().double(), p.grad.double()
                v = optimizer.state.get(p, {}).get("momentum_buffer")
                log["w2"][name].append(float((w * w).sum()))
                log["grad2"][name].append(float((g * g).sum()))
                log["grad_w"][name].append(float((g * w).sum()))
                log["grad_v"][name].append(0.0 if v is None else float((g * v.double()).sum()))
        optimizer.step()
        if how.tamper is not None:
            with torch.no_grad():
                how.tamper(named, step)
        for name, value in model.state_dict().items():
            if how.average is not None and value.is_floating_point():
                average[name].lerp_(value, 1.0 - how.average)
            else:
                average[name].copy_(value)
    arrays = ({n: np.array(x) for n, x in log[key].items()} for key in log)
    return Logged(how.before, *arrays)


def _save(folder: Path, step: int, weights: Any, optimizer: Any, how: Saving) -> None:
    def stored(tensor: torch.Tensor, kind: torch.dtype | None) -> torch.Tensor:
        clone = tensor.detach().clone()
        return clone.to(kind) if kind is not None and clone.is_floating_point() else clone

    content: dict[str, Any] = {
        "model": {how.rename(k): stored(t, how.dtype) for k, t in weights.items()},
        "step": step,
    }
    if not how.weights_only:
        state = optimizer.state_dict()
        content["optimizer"] = {
            "param_groups": state["param_groups"],
            "state": {
                i: {k: stored(t, how.buffers) if torch.is_tensor(t) and t.ndim else t
                    for k, t in slots.items()}
                for i, slots in state["state"].items()
            },
        }  # fmt: skip
    torch.save(content, folder / f"ckpt_{step}.pt")
