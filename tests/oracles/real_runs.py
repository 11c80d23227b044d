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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import digits_networks
import torch
import truth_log
from digits_networks import DigitsNet, noisy_batches
from safetensors.torch import save_file
from torch.nn import functional as F
from truth_log import TruthLog


@dataclass(frozen=True)
class RunSpec:
    """One run; `lr` gives the rate of update t.

    Attributes:
        jumps: First updates at a new rate.
        scheduler: Drive the rate with torch's MultiStepLR (a tenth at each jump), stepped before
            saving, so that the saved rate is already the next; otherwise it is set in the loop and
            the saved rate is the one that made the last step.
        decay_gains: Weight decay on norm parameters and biases too.
        named: Give the optimizer named parameters, so that it saves `param_names`.
    """

    name: str
    optimizer: str
    lr: Callable[[int], float]
    weight_decay: float
    steps: int
    gap: int
    widths: tuple[int, ...]
    residual: bool
    seed: int
    momentum: float = 0.0
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    batch: int = 32
    label_smoothing: float = 0.1
    noise: float = 0.5
    jumps: tuple[int, ...] = ()
    scheduler: bool = False
    decay_gains: bool = False
    named: bool = False


def stepwise(*rates: tuple[int, float]) -> Callable[[int], float]:
    """Piecewise constant: (first update, rate), in order."""
    return lambda t: [lr for start, lr in rates if t >= start][-1]


def cosine(peak: float, steps: int, warm_up: int = 0) -> Callable[[int], float]:
    """Linear warm-up to `peak`, then half a cosine down to a hundredth of it at `steps`.

    Not to 0: an update at the very end would be lost in the rounding of float32 weights, and the
    truth with it.
    """

    def rate(t: int) -> float:
        if t < warm_up:
            return peak * (t + 1) / warm_up
        phase = math.pi * (t - warm_up) / (steps - warm_up)
        return peak * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(phase)))

    return rate


RUNS = {
    spec.name: spec
    for spec in (
        RunSpec(
            "heavy_ball",
            "sgd",
            stepwise((0, 0.1), (1400, 0.02), (2600, 0.002)),
            jumps=(1400, 2600),
            weight_decay=5e-3,
            steps=3400,
            gap=200,
            widths=(12, 16, 24, 24),
            residual=False,
            seed=1,
            momentum=0.9,
        ),
        RunSpec(
            "heavy_ball_scheduler",
            "sgd",
            stepwise((0, 0.2), (1400, 0.02), (2800, 0.002)),
            weight_decay=3e-3,
            steps=3600,
            gap=200,
            widths=(8, 16, 16, 16),
            residual=False,
            seed=2,
            momentum=0.9,
            batch=64,
            jumps=(1400, 2800),
            scheduler=True,
            decay_gains=True,
        ),
        RunSpec(
            "heavy_ball_inside",
            "sgd",
            stepwise((0, 0.1), (1330, 0.02), (2710, 0.004)),
            jumps=(1330, 2710),
            weight_decay=5e-3,
            steps=4000,
            gap=400,
            widths=(8, 12, 16),
            residual=True,
            seed=3,
            momentum=0.9,
        ),
        RunSpec(
            "nesterov_cosine",
            "sgd",
            cosine(0.1, 3000),
            weight_decay=5e-3,
            steps=3000,
            gap=250,
            widths=(12, 12, 20),
            residual=True,
            seed=4,
            momentum=0.9,
            nesterov=True,
        ),
        RunSpec(
            "adamw",
            "adamw",
            stepwise((0, 4e-3), (1850, 8e-4)),
            jumps=(1850,),
            weight_decay=0.2,
            steps=3500,
            gap=250,
            widths=(12, 16, 24, 24),
            residual=False,
            seed=5,
            named=True,
        ),
        RunSpec(
            "plain_sgd",
            "sgd",
            stepwise((0, 0.5), (2000, 0.1)),
            jumps=(2000,),
            weight_decay=4e-3,
            steps=4000,
            gap=400,
            widths=(12, 16, 16, 24),
            residual=False,
            seed=6,
        ),
        RunSpec(
            "warmup_cosine",
            "sgd",
            cosine(0.15, 3500, warm_up=500),
            weight_decay=4e-3,
            steps=3500,
            gap=250,
            widths=(10, 16, 20, 20),
            residual=False,
            seed=7,
            momentum=0.9,
        ),
        # No noise and strong decay: weights shrink until batch norm's epsilon pulls at them.
        RunSpec(
            "epsilon_leak",
            "sgd",
            stepwise((0, 0.1), (1000, 0.01), (2600, 0.001)),
            jumps=(1000, 2600),
            weight_decay=2e-2,
            steps=3400,
            gap=200,
            widths=(8, 12, 20),
            residual=True,
            seed=8,
            momentum=0.9,
            label_smoothing=0.0,
            noise=0.0,
            decay_gains=True,
        ),
    )
}


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
    sources = (__file__, digits_networks.__file__, truth_log.__file__)
    text = b"".join(Path(str(source)).read_bytes() for source in sources)
    return hashlib.sha256(text + torch.__version__.encode()).hexdigest()[:12]
