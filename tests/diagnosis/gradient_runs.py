"""A small real network trained on digits, every update saved and every gradient logged."""

from __future__ import annotations

import sys
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


def train(folder: Path, make: Any, *, before=40, updates=SEEN, weights_only=False, dtype=None,
          eps=1e-5, seed=0, tamper=None, buffers=None) -> Logged:  # fmt: skip
    """Trains `before` updates unseen, then saves after every one of `updates` more.

    Args:
        folder: Where the checkpoints go.
        make: Parameter groups -> optimizer.
        before: Updates before the first snapshot.
        updates: Updates that are saved and logged.
        weights_only: Leave the optimizer state out.
        dtype: Storage of the weights.
        eps: Epsilon of the batch norms.
        seed: Of everything.
        tamper: Called with (model, update) after each update.
        buffers: Storage of the optimizer's buffers.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return _train(folder, make, before, updates, weights_only, dtype, eps, seed, tamper,
                          buffers)  # fmt: skip
    finally:
        torch.set_num_threads(threads)


def _train(folder, make, before, updates, weights_only, dtype, eps, seed, tamper, buffers):
    folder.mkdir(parents=True)
    model = DigitsNet((8, 12, 16), residual=False)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = eps
    matrices = [(n, p) for n, p in model.named_parameters() if p.ndim > 1]
    vectors = [(n, p) for n, p in model.named_parameters() if p.ndim == 1]
    optimizer = make(
        [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}]
    )
    log: dict[str, dict[str, list[float]]] = {
        key: {n: [] for n, _ in matrices} for key in ("w2", "grad2", "grad_w", "grad_v")
    }
    batches = noisy_batches(32, seed)
    for step in range(before + updates + 1):
        if step >= before:
            _save(folder, step, model, optimizer, weights_only, dtype, buffers)
        if step == before + updates:
            break
        images, labels = next(batches)
        loss = F.cross_entropy(model(images), labels, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        if step >= before:
            for name, p in matrices:
                w, g = p.detach().double(), p.grad.double()
                v = optimizer.state.get(p, {}).get("momentum_buffer")
                log["w2"][name].append(float((w * w).sum()))
                log["grad2"][name].append(float((g * g).sum()))
                log["grad_w"][name].append(float((g * w).sum()))
                log["grad_v"][name].append(0.0 if v is None else float((g * v.double()).sum()))
        optimizer.step()
        if tamper is not None:
            tamper(model, step)
    arrays = ({n: np.array(x) for n, x in log[key].items()} for key in log)
    return Logged(before, *arrays)


def _save(folder, step, model, optimizer, weights_only, dtype, buffers):
    def stored(tensor, kind):
        clone = tensor.detach().clone()
        return clone.to(kind) if kind is not None and clone.is_floating_point() else clone

    content: dict[str, Any] = {
        "model": {k: stored(t, dtype) for k, t in model.state_dict().items()},
        "step": step,
    }
    if not weights_only:
        state = optimizer.state_dict()
        content["optimizer"] = {
            "param_groups": state["param_groups"],
            "state": {
                i: {k: stored(t, buffers) if torch.is_tensor(t) and t.ndim else t
                    for k, t in slots.items()}
                for i, slots in state["state"].items()
            },
        }  # fmt: skip
    torch.save(content, folder / f"ckpt_{step}.pt")
