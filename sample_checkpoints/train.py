"""Train the sample run: a small batch-normalised residual network on scikit-learn's digits.

Writes `ckpt_<step>.pt` (weights and optimizer state) and `truth.csv` (what happened at every
single update, which the checkpoints alone do not show) beside this file, or into --out.

    python sample_checkpoints/train.py --out /tmp/sample

The run is seeded and single-threaded: the same torch build gives the same bits. One minute.
"""

from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad, relu

SEED = 20
BATCH = 32
GAP = 240  # updates between two checkpoints; both cuts fall on a checkpoint
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-3
LABEL_SMOOTHING = 0.1
PIXEL_NOISE = 0.5  # with the random shifts and dropout it keeps the gradients alive to the end
# First update of each stage and its learning rate. To come within 5 % of equilibrium after a
# fivefold cut takes 900 updates at the second rate and 4500 at the third: more than are left.
STAGES = ((0, 0.1), (2400, 0.02), (6000, 0.004))
LAST_STEP = 7920

TRUTH_COLUMNS = (
    "tensor",
    "step_from",
    "step_to",
    "lr",
    "rms_one_step_angle_rad",
    "last_one_step_angle_rad",
    "expected_one_step_angle_rad",
    "unit_gradient_rms",
    "h_tilde_mean_sqrt",
)


def learning_rate(step: int) -> float:
    """Rate of the update that leads from `step` to `step + 1`."""
    return [lr for start, lr in STAGES if step >= start][-1]


class Block(nn.Module):
    """Two 3x3 convolutions, each with batch norm, beside an identity or 1x1 shortcut."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or width_in != width_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(width_in, width_out, 1, stride, bias=False), nn.BatchNorm2d(width_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[N, width_in, H, W] -> [N, width_out, H / stride, W / stride]."""
        y = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        return relu(y + self.shortcut(x))


class DigitsResNet(nn.Module):
    """Stem, two residual blocks, global average pooling, linear classifier: 14 000 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(16)
        self.block1 = Block(16, 16, stride=1)
        self.block2 = Block(16, 24, stride=2)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, 8, 8] -> logits [N, 10]."""
        y = relu(self.stem_bn(self.stem(x)))
        logits: Tensor = self.fc(self.dropout(self.block2(self.block1(y)).mean((2, 3))))
        return logits


def random_shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image of [N, 1, 8, 8] by -1, 0 or 1 pixel along both axes."""
    n = len(images)
    padded = pad(images, (1, 1, 1, 1))
    rows = torch.randint(0, 3, (n, 1), generator=generator) + torch.arange(8)
    columns = torch.randint(0, 3, (n, 1), generator=generator) + torch.arange(8)
    return padded[torch.arange(n)[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]


def angle(u: Tensor, v: Tensor) -> float:
    """Angle in radians between two float64 tensors, exact down to 1e-15."""
    u, v = u / u.norm(), v / v.norm()
    return 2.0 * math.atan2(float((u - v).norm()), float((u + v).norm()))


class TruthLog:
    """Per-update angles and gradients of the convolutions, summed up per checkpoint interval."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.SGD) -> None:
        self.weights = {n: p for n, p in model.named_parameters() if p.ndim == 4}
        self.optimizer = optimizer
        self.rows: list[dict[str, object]] = []
        self._restart(0)

    def _restart(self, step: int) -> None:
        self.step_from = step
        self.sums = {name: torch.zeros(3, dtype=torch.float64) for name in self.weights}
        self.last = dict.fromkeys(self.weights, 0.0)

    def before_update(self) -> None:
        """Remember the weights and what their gradients say."""
        self.old = {name: p.detach().double().clone() for name, p in self.weights.items()}
        self.found = {}
        for name, p in self.weights.items():
            assert p.grad is not None
            gradient, norm2 = p.grad.double(), float(self.old[name].square().sum())
            buffer = self.optimizer.state[p].get("momentum_buffer")
            along = 0.0 if buffer is None else float((gradient * buffer.double()).sum())
            grad2 = float(gradient.square().sum())
            self.found[name] = (grad2 * norm2, (grad2 + 2 * MOMENTUM * along) * norm2)

    def after_update(self) -> None:
        """Add the angle that the update turned each tensor by."""
        for name, p in self.weights.items():
            self.last[name] = angle(self.old[name], p.detach().double())
            self.sums[name] += torch.tensor(
                (self.last[name] ** 2, *self.found[name]), dtype=torch.float64
            )

    def close_interval(self, step: int) -> None:
        """Turn the sums since the last checkpoint into one row per tensor."""
        lr = learning_rate(step - 1)
        expected = math.sqrt(2 * lr * WEIGHT_DECAY / (1 + MOMENTUM))
        for name, sums in self.sums.items():
            angle2, gradient2, h = (sums / (step - self.step_from)).tolist()
            values = (math.sqrt(angle2), self.last[name], expected, math.sqrt(gradient2))
            numbers = (lr, *values, math.sqrt(max(h, 0.0)))
            row = (name, self.step_from, step, *(f"{x:.10g}" for x in numbers))
            self.rows.append(dict(zip(TRUTH_COLUMNS, row, strict=True)))
        self._restart(step)

    def write(self, path: Path) -> None:
        """Write all rows, ordered by tensor and interval."""
        order = list(self.weights)
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, TRUTH_COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(sorted(self.rows, key=lambda row: order.index(str(row["tensor"]))))


def train(out: Path) -> None:
    """Train, writing checkpoints and the truth into the folder `out`."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    generator = torch.Generator().manual_seed(SEED)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8.0 - 1.0
    labels = torch.tensor(digits.target)

    model = DigitsResNet()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed}, {"params": others, "weight_decay": 0.0}],
        lr=learning_rate(0),
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
    )
    truth = TruthLog(model, optimizer)
    out.mkdir(parents=True, exist_ok=True)

    def save(step: int) -> None:
        checkpoint = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "epoch": step * BATCH / len(images),
        }
        torch.save(checkpoint, out / f"ckpt_{step}.pt")

    save(0)
    for step in range(LAST_STEP):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        chosen = torch.randint(0, len(images), (BATCH,), generator=generator)
        shifted = random_shift(images[chosen], generator)
        noise = PIXEL_NOISE * torch.randn(shifted.shape, generator=generator)
        logits = model(shifted + noise)
        loss = cross_entropy(logits, labels[chosen], label_smoothing=LABEL_SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        truth.before_update()
        optimizer.step()
        truth.after_update()
        if (step + 1) % GAP == 0:
            truth.close_interval(step + 1)
            save(step + 1)
            print(f"step {step + 1:5d}  lr {learning_rate(step):<6g}  loss {loss.item():.3f}")
    truth.write(out / "truth.csv")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    train(parser.parse_args().out)
