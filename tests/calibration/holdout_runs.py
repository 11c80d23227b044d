"""Real training runs held out from the estimators' development, every update logged.

`python tests/calibration/holdout_runs.py FOLDER` trains all of them; `holdout_scores.py` holds the
analysis of a run against its log. A run's folder has `state/` (weights and optimizer state, in the
run's dtype), `weights/` (weights alone), `truth.npz` and `schedule.csv`.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "oracles")]

import torch  # noqa: E402
from holdout_networks import Perceptron, Separable, Wide, digits, taught  # noqa: E402
from run_specs import cosine, stepwise  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from truth_log import TruthLog  # noqa: E402


@dataclass(frozen=True)
class HeldOut:
    """One run; `lr` gives the rate of update t; `dtype` is how weights are saved."""

    network: Callable[[], nn.Module]
    batches: Callable[[int, int], Iterator[tuple[Tensor, Tensor]]]
    example: str
    optimizer: str
    lr: Callable[[int], float]
    weight_decay: float
    steps: int
    gap: int
    batch: int
    seed: int
    momentum: float = 0.0
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    jumps: tuple[int, ...] = ()
    dtype: torch.dtype = torch.float32


RUNS = {
    "momentum .95, depthwise": HeldOut(
        Separable, digits, "2x1x8x8", "sgd", stepwise((0, 0.06), (1200, 0.015), (2100, 0.003)),
        weight_decay=4e-3, steps=3000, gap=150, batch=96, seed=21, momentum=0.95,
        jumps=(1200, 2100),
    ),
    "Nesterov at a high rate, perceptron": HeldOut(
        Perceptron, taught, "2x32", "sgd", stepwise((0, 0.4), (2500, 0.1)),
        weight_decay=2e-3, steps=5000, gap=250, batch=16, seed=22, momentum=0.9, nesterov=True,
        jumps=(2500,),
    ),
    "Nesterov .8, cosine, wide": HeldOut(
        Wide, digits, "2x1x8x8", "sgd", cosine(0.1, 3000, warm_up=200),
        weight_decay=5e-3, steps=3000, gap=200, batch=48, seed=23, momentum=0.8, nesterov=True,
    ),
    "AdamW .85/.98, perceptron": HeldOut(
        Perceptron, taught, "2x32", "adamw", stepwise((0, 3e-3), (2400, 6e-4)),
        weight_decay=0.3, steps=4800, gap=240, batch=64, seed=24, betas=(0.85, 0.98),
        jumps=(2400,),
    ),
    "AdamW, cosine, wide": HeldOut(
        Wide, digits, "2x1x8x8", "adamw", cosine(2e-3, 3000, warm_up=300),
        weight_decay=0.5, steps=3000, gap=200, batch=24, seed=25,
    ),
    "momentum .9 saved as bf16, wide": HeldOut(
        Wide, digits, "2x1x8x8", "sgd", stepwise((0, 0.08), (1500, 0.016)),
        weight_decay=4e-3, steps=3000, gap=250, batch=64, seed=26, momentum=0.9,
        jumps=(1500,), dtype=torch.bfloat16,
    ),
    "plain SGD, depthwise": HeldOut(
        Separable, digits, "2x1x8x8", "sgd", stepwise((0, 0.4), (1500, 0.1)),
        weight_decay=3e-3, steps=3000, gap=250, batch=32, seed=27, jumps=(1500,),
    ),
}  # fmt: skip


def train(run: HeldOut, folder: Path) -> None:
    """Trains `run` and writes its folder."""
    for name in ("state", "weights"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    torch.manual_seed(run.seed)
    model = run.network()
    matrices = {n: p for n, p in model.named_parameters() if p.ndim > 1 and n != "head.weight"}
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    groups = [
        {"params": decayed, "weight_decay": run.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer: torch.optim.Optimizer
    if run.optimizer == "adamw":
        optimizer = torch.optim.AdamW(groups, lr=run.lr(0), betas=run.betas)
    else:
        optimizer = torch.optim.SGD(
            groups, lr=run.lr(0), momentum=run.momentum, nesterov=run.nesterov
        )
    log = TruthLog(matrices, optimizer, run.momentum)
    batches = run.batches(run.batch, run.seed)
    _save(folder, 0, model, optimizer, run.dtype)
    for step in range(run.steps):
        for group in optimizer.param_groups:
            group["lr"] = run.lr(step)
        inputs, labels = next(batches)
        loss = F.cross_entropy(model(inputs), labels, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        log.before_update()
        optimizer.step()
        log.after_update()
        if (step + 1) % run.gap == 0:
            log.close_interval(step + 1)
            _save(folder, step + 1, model, optimizer, run.dtype)
    changes = [t for t in range(run.steps) if t == 0 or run.lr(t) != run.lr(t - 1)]
    with (folder / "schedule.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("step", "lr"))
        writer.writerows((t, repr(run.lr(t))) for t in changes)
    log.truth().save(folder / "truth.npz")


def _save(
    folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, dtype: torch.dtype
) -> None:
    weights = {
        k: t.to(dtype) if t.is_floating_point() else t for k, t in model.state_dict().items()
    }
    content = {"model": weights, "optimizer": optimizer.state_dict(), "step": step}
    torch.save(content, folder / "state" / f"ckpt_{step}.pt")
    save_file(weights, folder / "weights" / f"model-step{step}.safetensors")


def folder_of(name: str, root: Path) -> Path:
    """Folder of a run, trained now unless it is there."""
    folder = root / name.replace(" ", "_").replace(",", "").replace("/", "_")
    if not (folder / "truth.npz").exists():
        torch.set_num_threads(1)
        train(RUNS[name], folder)
    return folder


if __name__ == "__main__":
    for name in RUNS:
        print(folder_of(name, Path(sys.argv[1])), flush=True)
