"""What really happened at every update of a run: the oracle for what smdlens estimates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Truth:
    """Per-update quantities summed up per interval, float64 [tensors, intervals].

    Attributes:
        tensors: Names of the convolution weights.
        steps: Steps of the snapshots, [intervals + 1].
        rms_angle: RMS one-step angle, radians.
        last_angle: Angle of the last update, radians.
        unit_gradient: RMS of |g| |w|.
        sqrt_h: Square root of the mean of (|g|^2 + 2a <v_prev, g>) |w|^2 (a = 0 for Adam).
        kappa: Mean of <g, w> / |w|^2.
    """

    tensors: NDArray[np.str_]
    steps: NDArray[np.int64]
    rms_angle: Array
    last_angle: Array
    unit_gradient: Array
    sqrt_h: Array
    kappa: Array

    def save(self, path: Path) -> None:
        """Write as .npz."""
        np.savez(path, **{f.name: getattr(self, f.name) for f in fields(self)})

    @staticmethod
    def load(path: Path) -> Truth:
        """Read what `save` wrote."""
        with np.load(path) as stored:
            return Truth(**{f.name: stored[f.name] for f in fields(Truth)})


class TruthLog:
    """Watches an optimizer, update by update, in float64."""

    def __init__(
        self, weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, momentum: float
    ) -> None:
        self.weights, self.optimizer, self.momentum = weights, optimizer, momentum
        self.steps = [0]
        self.rows: list[Array] = []
        self._sums = np.zeros((len(weights), 4))
        self._last = np.zeros(len(weights))

    def before_update(self) -> None:
        """Call when gradients are there and the optimizer has not stepped."""
        self._old = [p.detach().double().clone() for p in self.weights.values()]
        found = []
        for p, w in zip(self.weights.values(), self._old, strict=True):
            assert p.grad is not None
            g = p.grad.double()
            g2, w2 = float((g * g).sum()), float((w * w).sum())
            buffer = self.optimizer.state[p].get("momentum_buffer")
            gv = 0.0 if buffer is None else float((g * buffer.double()).sum())
            h = g2 + 2.0 * self.momentum * gv
            found.append((g2 * w2, h * w2, float((g * w).sum()) / w2))
        self._found = np.array(found)

    def after_update(self) -> None:
        """Call when the optimizer has stepped."""
        for i, (p, old) in enumerate(zip(self.weights.values(), self._old, strict=True)):
            u, v = old / old.norm(), p.detach().double()
            v = v / v.norm()
            self._last[i] = 2.0 * math.atan2(float((u - v).norm()), float((u + v).norm()))
        self._sums[:, 0] += self._last**2
        self._sums[:, 1:] += self._found

    def close_interval(self, step: int) -> None:
        """Call when the snapshot of `step` is saved."""
        mean = self._sums / (step - self.steps[-1])
        self.rows.append(
            np.stack(
                [
                    np.sqrt(mean[:, 0]),
                    self._last,
                    np.sqrt(mean[:, 1]),
                    np.sqrt(np.maximum(mean[:, 2], 0.0)),
                    mean[:, 3],
                ]
            )
        )
        self.steps.append(step)
        self._sums = np.zeros_like(self._sums)

    def truth(self) -> Truth:
        """Everything logged so far."""
        columns = np.stack(self.rows, axis=-1)
        return Truth(np.array(list(self.weights)), np.array(self.steps, dtype=np.int64), *columns)
