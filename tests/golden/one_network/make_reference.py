"""Makes reference.npz: the one training run that every format in this folder holds.

Run once, with torch and scikit-learn; the other scripts here put its numbers into the networks and
optimizers of their framework and let that save them:

    python make_reference.py

Two convolutions (one of them grouped, none of them square) with batch norm on scikit-learn's
digits; SGD with momentum 0.9 and weight decay 0.005, learning rate 1/16 and after 120 updates 1/64.
"""

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

STEPS = (40, 80, 120, 160, 161, 200)
CUT = 120


def learning_rate(step):
    """Rate of the update that leads from `step` to `step + 1`."""
    return 0.0625 if step < CUT else 0.015625


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, (3, 2), padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 8, (3, 2), padding=1, groups=2, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return self.head(x.mean((2, 3)))


def main():
    torch.manual_seed(3)
    torch.set_num_threads(1)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(digits.target)
    net = Net()
    sgd = torch.optim.SGD(net.parameters(), lr=0.0625, momentum=0.9, weight_decay=5e-3)
    arrays = {"steps": np.array(STEPS)}
    for step in range(1, STEPS[-1] + 1):
        sgd.param_groups[0]["lr"] = learning_rate(step - 1)
        batch = torch.randint(0, len(labels), (64,))
        sgd.zero_grad()
        cross_entropy(net(images[batch]), labels[batch]).backward()
        sgd.step()
        if step in STEPS:
            for name, value in net.state_dict().items():
                if "num_batches" not in name:
                    arrays[f"{step}/weights/{name}"] = value.numpy().copy()
            for name, parameter in net.named_parameters():
                momentum = sgd.state[parameter]["momentum_buffer"]
                arrays[f"{step}/momentum/{name}"] = momentum.numpy().copy()
    np.savez(Path(__file__).parent / "reference.npz", **arrays)


if __name__ == "__main__":
    main()
