"""Holds a checkpoint against what its framework read: bit for bit, slots at their weights.

Expected arrays lie in an .npz file as "weight NAME" and "SLOT NAME" under the framework's names.
A weight is found by its content, with its axes in whatever order we show them; its buffers must
then be those of that tensor, in the same order.
"""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import torch

import smdlens

Axes = tuple[int, ...]


def expected(path: Path) -> dict[str, np.ndarray]:
    """What the framework holds, beside a checkpoint."""
    with np.load(path) as archive:
        return {key: archive[key] for key in archive.files}


def assert_held(checkpoint: smdlens.Checkpoint, truth: dict[str, np.ndarray]) -> None:
    """Every expected weight and buffer, and no other, is in the checkpoint, bit for bit."""
    ours = {name: _bits(checkpoint.read(name)) for name in checkpoint.tensors}
    places: dict[str, tuple[str, Axes]] = {}
    for key, value in truth.items():
        kind, _, name = key.partition(" ")
        if kind == "weight":
            places[name] = _found(name, value, ours, {p[0] for p in places.values()})
    assert {name for name, _ in places.values()} == set(ours)
    held = {name: checkpoint.slots(name) for name in ours}
    for key, value in truth.items():
        kind, _, name = key.partition(" ")
        if kind != "weight":
            own, axes = places[name]
            _assert_slot(held[own].pop(kind), np.transpose(value, axes), f"{kind} of {name}")
    assert not any(held.values()), {name: list(s) for name, s in held.items() if s}


def _found(
    name: str, value: np.ndarray, ours: dict[str, np.ndarray], taken: set[str]
) -> tuple[str, Axes]:
    bits = value if value.dtype == np.uint16 else value.view(f"u{value.dtype.itemsize}")
    for own, tensor in ours.items():
        if own in taken or tensor.dtype != bits.dtype:
            continue
        for axes in permutations(range(value.ndim)):
            turned = np.transpose(bits, axes)
            if turned.shape == tensor.shape and np.array_equal(turned, tensor):
                return own, axes
    raise AssertionError(f"no tensor has the content of {name}")


def _assert_slot(found: torch.Tensor, value: np.ndarray, what: str) -> None:
    if value.dtype == np.float64 and found.dtype == torch.float32:  # one with a factor
        np.testing.assert_allclose(found.numpy(), value, rtol=2e-7, err_msg=what)
    else:
        bits = value if value.dtype == np.uint16 else value.view(f"u{value.dtype.itemsize}")
        assert np.array_equal(_bits(found), bits), what


def _bits(tensor: torch.Tensor) -> np.ndarray:
    kinds = {1: torch.uint8, 2: torch.uint16, 4: torch.uint32, 8: torch.uint64}
    return tensor.contiguous().view(kinds[tensor.element_size()]).numpy()
