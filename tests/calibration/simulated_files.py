"""Simulated runs as ordinary checkpoints, and what a user would declare to read them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from simulated_training import CHANNELS, Array, Simulation


def write(run: Simulation, folder: Path, *, state: bool, dtype: torch.dtype) -> Path:
    """`ckpt_<step>.pt` with optimizer state, or `model-step<step>.safetensors` without.

    `schedule.csv` beside the folder holds the rates, as a user would declare them.
    """
    folder.mkdir(parents=True)
    for i, step in enumerate(run.steps):
        model = _weights(run, i, dtype)
        if state:
            content = {"model": model, "optimizer": _optimizer(run, i, step), "step": step}
            torch.save(content, folder / f"ckpt_{step}.pt")
        else:
            save_file(model, folder / f"model-step{step}.safetensors")
    with folder.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("step", "lr"))
        changes = np.flatnonzero(np.diff(run.lr, prepend=np.nan) != 0.0)
        writer.writerows((int(t), repr(float(run.lr[t]))) for t in changes)
    return folder


def declared(run: Simulation, folder: Path, *, state: bool) -> dict[str, Any]:
    """Options of `smdlens.analyze` for a run written by `write`."""
    # Files with optimizer state carry everything but the rates between snapshots.
    known: dict[str, Any] = {"schedule": folder.with_suffix(".csv")}
    if state:
        return known
    known |= {"optimizer": run.rule.kind, "weight_decay": run.decay}
    if run.rule.adaptive:
        return known | {"betas": run.rule.betas}
    return known | {"momentum": run.rule.momentum, "nesterov": run.rule.nesterov}


def _weights(run: Simulation, i: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    model: dict[str, torch.Tensor] = {}
    for row, name in enumerate(run.tensors.names):
        kernel = torch.from_numpy(run.weights[i][row]).reshape(CHANNELS, -1, 1, 1)
        model[f"{name}.conv.weight"] = kernel.to(dtype)
        model[f"{name}.bn.weight"] = torch.ones(CHANNELS)
        model[f"{name}.bn.bias"] = torch.zeros(CHANNELS)
        model[f"{name}.bn.running_mean"] = torch.full((CHANNELS,), 1e-3 * i)
        model[f"{name}.bn.running_var"] = torch.full((CHANNELS,), 1.0 + 1e-5 * i)
    return model


def _optimizer(run: Simulation, i: int, step: int) -> dict[str, Any]:
    rule, names = run.rule, run.tensors.names
    gains = [f"{name}.bn.{leaf}" for name in names for leaf in ("weight", "bias")]
    split = [
        ([n for n, d in zip(names, run.tensors.decays, strict=True) if d], run.decay),
        ([n for n, d in zip(names, run.tensors.decays, strict=True) if not d], 0.0),
    ]
    rate = float(run.lr[max(step - 1, 0)])
    shared: dict[str, Any] = {"lr": rate, "maximize": False}
    if not rule.adaptive:
        shared |= {"momentum": rule.momentum, "dampening": 0.0, "nesterov": rule.nesterov}
    elif rule.kind == "lion":
        shared |= {"betas": rule.betas}
    else:
        shared |= {"betas": rule.betas, "eps": rule.eps, "amsgrad": False,
                   "decoupled_weight_decay": rule.kind == "adamw"}  # fmt: skip
    groups, state, at = [], {}, 0
    for own, decay in split:
        members = [f"{n}.conv.weight" for n in own] + (gains if decay == 0.0 else [])
        groups.append({**shared, "weight_decay": decay, "param_names": members,
                       "params": list(range(at, at + len(members)))})  # fmt: skip
        for member in members:
            if step > 0 and member.endswith("conv.weight"):
                row = list(names).index(member.removesuffix(".conv.weight"))
                slots = _slots(run, i, row, step)
                if slots:
                    state[at] = slots
            at += 1
    return {"state": state, "param_groups": groups}


def _slots(run: Simulation, i: int, row: int, step: int) -> dict[str, torch.Tensor]:
    def stored(values: list[Array]) -> torch.Tensor:
        return torch.from_numpy(values[i][row]).float().reshape(CHANNELS, -1, 1, 1)

    if not run.rule.adaptive:
        return {"momentum_buffer": stored(run.first)} if run.rule.momentum else {}
    if run.rule.kind == "lion":
        return {"exp_avg": stored(run.first)}
    moments = {"exp_avg": stored(run.first), "exp_avg_sq": stored(run.second)}
    return {**moments, "step": torch.tensor(float(step))}
