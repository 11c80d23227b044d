"""Small real training runs with per-update truth, trained once per cache folder.

A run's folder holds `state/ckpt_<step>.pt` (weights and optimizer state), `weights/` and `bf16/`
(`model-step<step>.safetensors`, weights alone), `schedule.csv` and `truth.npz`.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import digits_networks
import run_specs
import torch
import truth_log
from digits_networks import DigitsNet, noisy_batches
from run_specs import RUNS, RunSpec
from safetensors.torch import save_file
from torch.nn import functional as F
from truth_log import TruthLog


def train(run: RunSpec, folder: Path) -> None:
    """Train `run` and write its folder (see the module's docstring)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(run.seed)
            _train(run, folder)
    finally:
        torch.set_num_threads(threads)


def _train(run: RunSpec, folder: Path) -> None:
    for name in ("state", "weights", "bf16"):
        (folder / name).mkdir(parents=True)
    model = DigitsNet(run.widths, run.residual)
    optimizer = _optimizer(run, model)
    scheduler = None
    if run.scheduler:
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=list(run.jumps))
    convolutions = {n: p for n, p in model.named_parameters() if p.ndim == 4}
    log = TruthLog(convolutions, optimizer, run.momentum)
    batches = noisy_batches(run.batch, run.seed, run.noise)
    _save(folder, 0, model, optimizer, scheduler)
    for step in range(run.steps):
        if scheduler is None:
            for group in optimizer.param_groups:
                group["lr"] = run.lr(step)
        images, labels = next(batches)
        loss = F.cross_entropy(model(images), labels, label_smoothing=run.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        log.before_update()
        optimizer.step()
        log.after_update()
        if scheduler is not None:
            scheduler.step()
        if (step + 1) % run.gap == 0:
            log.close_interval(step + 1)
            _save(folder, step + 1, model, optimizer, scheduler)
    log.truth().save(folder / "truth.npz")
    _write_schedule(run, folder / "schedule.csv")


def _optimizer(run: RunSpec, model: torch.nn.Module) -> torch.optim.Optimizer:
    named = list(model.named_parameters())
    split: list[tuple[list[Any], float]]
    if run.decay_gains:
        split = [(named, run.weight_decay)]
    else:
        split = [
            ([(n, p) for n, p in named if p.ndim > 1], run.weight_decay),
            ([(n, p) for n, p in named if p.ndim == 1], 0.0),
        ]
    groups: list[dict[str, Any]] = [
        {"params": part if run.named else [p for _, p in part], "weight_decay": decay}
        for part, decay in split
    ]
    if run.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=run.lr(0), betas=run.betas)
    return torch.optim.SGD(groups, lr=run.lr(0), momentum=run.momentum, nesterov=run.nesterov)


def _save(
    folder: Path,
    step: int,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None,
) -> None:
    weights = model.state_dict()
    checkpoint = {"model": weights, "optimizer": optimizer.state_dict(), "step": step}
    if scheduler is not None:
        checkpoint["lr_scheduler"] = scheduler.state_dict()
    torch.save(checkpoint, folder / "state" / f"ckpt_{step}.pt")
    name = f"model-step{step}.safetensors"
    save_file(weights, folder / "weights" / name)
    rounded = {k: t.bfloat16() if t.is_floating_point() else t for k, t in weights.items()}
    save_file(rounded, folder / "bf16" / name)


def _write_schedule(run: RunSpec, path: Path) -> None:
    """One row per change of the rate."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("step", "lr", "weight_decay"))
        before = math.nan
        for step in range(run.steps):
            if run.lr(step) != before:
                before = run.lr(step)
                writer.writerow((step, repr(before), run.weight_decay))


def run_folder(name: str, root: Path | None = None) -> Path:
    """Folder of a trained run, trained now unless the cache has it.

    The cache is `root`, else $SMDLENS_TEST_RUNS, else a folder of this user in the system's
    temporary one; it is keyed by the trainer's source and torch's version, and safe to share
    between processes.
    """
    given = os.environ.get("SMDLENS_TEST_RUNS")
    default = Path(tempfile.gettempdir()) / f"smdlens-test-runs-{os.getuid()}"
    cache = (root or (Path(given) if given else default)) / _version()
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = cache / name
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = cache / f"{name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            train(RUNS[name], unfinished)
            unfinished.rename(folder)
    return folder


def _version() -> str:
    sources = (__file__, digits_networks.__file__, run_specs.__file__, truth_log.__file__)
    text = b"".join(Path(str(source)).read_bytes() for source in sources)
    return hashlib.sha256(text + torch.__version__.encode()).hexdigest()[:12]
