"""Small real training runs with one thing wrong in each: what a user may not know of his own run.

A run's folder holds `state/ckpt_<step>.pt` (weights and optimizer state) and
`weights/model-step<step>.safetensors` (weights alone); `schedule.csv` holds what the trainer was
told, which in faulty runs is not what it did.
"""

from __future__ import annotations

import copy
import csv
import fcntl
import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import digits_networks
import torch
from digits_networks import DigitsNet, noisy_batches
from safetensors.torch import save_file
from torch.nn import functional as F

FAULTS = (
    "none", "decay_off", "rate_times_3", "other_decay", "averaged", "frozen_norm", "norm_stops",
)  # fmt: skip
STEPS, GAP, CUT, HALF = 2400, 60, 1600, 1200
# The first update with a batch norm that stops half-way; no snapshot lies there.
NORM_STOP = 1217
WIDTHS = (8, 12, 16)
# The tensor or layer that a fault befalls, and the size of the faults that have one.
VICTIM, VICTIM_NORM = "stages.1.body.conv.weight", "stages.1.body.norm"
RATE_FACTOR, DECAY_FACTOR, EMA = 3.0, 3.0, 0.999


@dataclass(frozen=True)
class FaultRun:
    """Optimizer, what is wrong, and the seed of weights and batches.

    The last three are no faults but remedies: updates in all, multiple of the weight decay after
    the cut, and what convolutions are divided by at the cut (their momentum is multiplied by it).
    """

    optimizer: str
    fault: str
    seed: int
    widths: tuple[int, ...] = WIDTHS
    steps: int = STEPS
    decay_after: float = 1.0
    divide: float = 1.0

    @property
    def name(self) -> str:
        name = f"{self.optimizer}-{self.fault}-{self.seed}"
        if self.widths != WIDTHS:
            name += "-" + "x".join(map(str, self.widths))
        if (self.steps, self.decay_after, self.divide) == (STEPS, 1.0, 1.0):
            return name
        return f"{name}-{self.steps}-{self.decay_after:.4g}-{self.divide:.4g}"

    @property
    def rates(self) -> tuple[float, float]:
        """Learning rates before and after the cut."""
        return (0.1, 0.01) if self.optimizer == "sgd" else (4e-3, 4e-4)

    @property
    def decay(self) -> float:
        """The weight decay that is recorded."""
        return 5e-3 if self.optimizer == "sgd" else 0.5


class _Trainer:
    def __init__(self, run: FaultRun) -> None:
        self.run = run
        self.model = DigitsNet(run.widths, residual=False)
        named = list(self.model.named_parameters())
        used = run.decay * (DECAY_FACTOR if run.fault == "other_decay" else 1.0)
        groups = [
            {"params": [p for _, p in named if p.ndim > 1], "weight_decay": used},
            {"params": [p for _, p in named if p.ndim == 1], "weight_decay": 0.0},
        ]
        self.optimizer: torch.optim.Optimizer
        if run.optimizer == "sgd":
            self.optimizer = torch.optim.SGD(groups, lr=run.rates[0], momentum=0.9)
        else:
            self.optimizer = torch.optim.AdamW(groups, lr=run.rates[0])
        self.average = copy.deepcopy(self.model.state_dict())
        self.victim = dict(named)[VICTIM]
        self.recorded = run.decay

    def update(self, step: int, images: torch.Tensor, labels: torch.Tensor) -> None:
        run, lr = self.run, self.run.rates[step >= CUT]
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if step == CUT:
            self._remedies()
        self.model.train()
        if run.fault == "frozen_norm" or (run.fault == "norm_stops" and step >= NORM_STOP):
            self.model.get_submodule(VICTIM_NORM).eval()
        loss = F.cross_entropy(self.model(images), labels, label_smoothing=0.1)
        self.optimizer.zero_grad()
        loss.backward()
        victim, before = self.victim, self.victim.detach().clone()
        if run.fault == "decay_off" and step >= HALF:
            if run.optimizer == "sgd":
                assert victim.grad is not None
                victim.grad.sub_(run.decay * before)
            else:
                with torch.no_grad():
                    victim.div_(1.0 - lr * run.decay)
        self.optimizer.step()
        if run.fault == "rate_times_3":
            with torch.no_grad():
                victim.copy_(before + RATE_FACTOR * (victim - before))
        if run.fault != "averaged":
            return
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1.0 - EMA)
            else:
                self.average[name].copy_(value)

    @torch.no_grad()
    def _remedies(self) -> None:
        group = self.optimizer.param_groups[0]
        group["weight_decay"] *= self.run.decay_after
        self.recorded = self.run.decay * self.run.decay_after
        for parameter in group["params"]:
            if parameter.ndim == 4 and self.run.divide != 1.0:
                parameter.div_(self.run.divide)
                self.optimizer.state[parameter]["momentum_buffer"].mul_(self.run.divide)

    def save(self, folder: Path, step: int) -> None:
        shown = self.average if self.run.fault == "averaged" else self.model.state_dict()
        state = self.optimizer.state_dict()
        # The record says what the trainer was told.
        state["param_groups"] = [
            {**g, "weight_decay": self.recorded if i == 0 else 0.0}
            for i, g in enumerate(state["param_groups"])
        ]
        torch.save(
            {"model": shown, "optimizer": state, "step": step},
            folder / "state" / f"ckpt_{step}.pt",
        )
        save_file(shown, folder / "weights" / f"model-step{step}.safetensors")


def train(run: FaultRun, folder: Path) -> None:
    """Train `run` and write its folder (see the module's docstring)."""
    for name in ("state", "weights"):
        (folder / name).mkdir(parents=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(run.seed)
            trainer = _Trainer(run)
            trainer.save(folder, 0)
            batches = noisy_batches(32, run.seed)
            for step in range(run.steps):
                trainer.update(step, *next(batches))
                if (step + 1) % GAP == 0:
                    trainer.save(folder, step + 1)
    finally:
        torch.set_num_threads(threads)
    with (folder / "schedule.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("step", "lr"))
        writer.writerows(zip((0, CUT), run.rates, strict=True))


def fault_folder(run: FaultRun) -> Path:
    """Folder of a trained run, trained now unless the cache of `real_runs` has it."""
    given = os.environ.get("SMDLENS_TEST_RUNS")
    default = Path(tempfile.gettempdir()) / f"smdlens-test-runs-{os.getuid()}"
    cache = (Path(given) if given else default) / f"faults-{_version()}"
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = cache / run.name
    with (cache / f"{run.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = cache / f"{run.name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            train(run, unfinished)
            unfinished.rename(folder)
    return folder


def evidence_options(run: FaultRun, folder: Path, evidence: str) -> tuple[Path, dict[str, object]]:
    """Path and options of an analysis that has the optimizer's state, or weights alone."""
    if evidence == "state":
        return folder / "state", {}
    kind: dict[str, object] = {"momentum": 0.9} if run.optimizer == "sgd" else {}
    return folder / "weights", {
        "optimizer": run.optimizer,
        "weight_decay": run.decay,
        "schedule": folder / "schedule.csv",
        **kind,
    }


def _version() -> str:
    text = b"".join(Path(str(f)).read_bytes() for f in (__file__, digits_networks.__file__))
    return hashlib.sha256(text + torch.__version__.encode()).hexdigest()[:12]
