"""What only a GPU is given, without one: its branches on the CPU, and the choice of device.

`cpu:0` is a device that is not `cpu` itself, so every branch for memory that numpy does not see is
taken, and torch still does the sums.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from motion_helpers import Saved, groups_of, hyper_of, symmetry_of, write_series
from test_motion_engine import assert_same
from test_motion_measure import walk

from smdlens.motion import device as device_module
from smdlens.motion import geometry, workspace
from smdlens.motion.device import Device, choose_device
from smdlens.motion.engine import measure
from smdlens.motion.rounding import RoundingSample
from smdlens.vocabulary import OptimizerKind

SHAPES = {"tiny": (5, 7), "long": (2, 9001), "wide": (300, 90), "few": (2000, 9)}
CPU = torch.device("cpu")
ADAM = hyper_of(kind=OptimizerKind.ADAM, names=tuple(SHAPES), momentum=None, betas=(0.9, 0.999))


class Copies:
    """Stands in for `Uploads`: two host buffers take turns, and what is uploaded is a copy."""

    def __init__(self, device: torch.device) -> None:
        self._turn = 0

    def next_buffer(self) -> str:
        self._turn = 1 - self._turn
        return f"raw{self._turn}"

    def start(self, values: torch.Tensor) -> torch.Tensor:
        return values.clone()


@pytest.fixture
def _like_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    begin, sample, empty = workspace.Workspace.__init__, RoundingSample.__init__, torch.empty

    def with_uploads(self: workspace.Workspace, pool, device, notes=None) -> None:
        begin(self, pool, device, notes)
        self._uploads = None if device == CPU else Copies(device)

    def unseen(self: RoundingSample, *args) -> None:
        sample(self, *args)
        self._values = None

    monkeypatch.setattr(workspace.Workspace, "__init__", with_uploads)
    monkeypatch.setattr(RoundingSample, "__init__", unseen)
    monkeypatch.setattr(geometry, "_CPU", torch.device("meta"))
    monkeypatch.setattr(
        torch, "empty", lambda *args, pin_memory=False, **more: empty(*args, **more)
    )
    monkeypatch.setattr(
        "smdlens.motion.engine.choose_device", lambda _: Device(torch.device("cpu:0"), 1 << 15)
    )
    geometry._geometry.cache_clear()
    yield
    geometry._geometry.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("clock", [False, True])
def test_the_branches_for_a_gpu_give_the_same_sums(
    tmp_path: Path, dtype: torch.dtype, clock: bool, request: pytest.FixtureRequest
) -> None:
    walks = {name: walk(shape, 4, k) for k, (name, shape) in enumerate(SHAPES.items())}
    walks["wide"][2][3, 4] = math.nan
    saved = []
    for step in range(4):
        tensors = {name: ws[step].to(dtype) for name, ws in walks.items()}
        slots = {
            name: {"first_moment": w * 0.1, "second_moment": w * w} for name, w in tensors.items()
        }
        saved.append(Saved(step + 1, tensors, slots))
    series = write_series(tmp_path, saved, pieces=2)
    groups = groups_of(*(symmetry_of(n, s, clock=clock) for n, s in SHAPES.items()))
    expected = measure(series, groups, ADAM, device="cpu", all_pairs=True)
    request.getfixturevalue("_like_a_gpu")
    got = measure(series, groups, ADAM, device="cuda", all_pairs=True)
    assert got.cost.device == "cpu:0"
    assert_same(got, expected, 1e-10)
    pairs = (motion.angles["angle_rad"].to_list() for motion in (got, expected))
    for mine, theirs in zip(*pairs, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-10) if theirs else mine == theirs


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_a_gpu_that_cannot_be_used_is_not_chosen(
    error: type[RuntimeError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(values: torch.Tensor, device: torch.device) -> float:
        if device.type == "cuda":
            raise error("CUDA error: out of memory")
        return 1.0

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device_module, "_trial", full)
    chosen = choose_device("auto")
    assert chosen.torch_device == CPU
    assert "failed" in chosen.note
