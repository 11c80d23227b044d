"""The motion sums of one pair against mpmath (40 digits) and against their own symmetries."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from motion_helpers import Saved, groups_of, hyper_of, symmetry_of, write_series

from smdlens.motion.files import FilePool
from smdlens.motion.layout import Layout, blocks
from smdlens.motion.plan import SnapshotSources, Source, Task, TensorPlan
from smdlens.motion.sums import TensorSums, sums_for
from smdlens.motion.walk import run_task
from smdlens.motion.workspace import Workspace
from smdlens.snapshots.records import Extent
from smdlens.theory.angles import angle as angle_of

mpmath.mp.dps = 40


def pair_sums(a: torch.Tensor, b: torch.Tensor, layout: Layout, size: int, tmp: Path) -> TensorSums:
    """Run the kernels over files that hold a and b, in blocks of `size` elements."""
    sources = []
    for name, t in (("a", a), ("b", b)):
        path = tmp / f"{name}.bin"
        path.write_bytes(t.contiguous().view(torch.uint8).numpy().tobytes())
        extent = Extent(str(path), 0, t.numel() * t.element_size())
        sources.append(SnapshotSources(Source((extent,), str(t.dtype).removeprefix("torch."))))
    plan = TensorPlan("w", layout, True, tuple(sources), (None,))
    count = sum(1 for _ in blocks(layout, size))
    total = sums_for(layout, 2, True)
    with FilePool() as pool:
        space = Workspace(pool, torch.device("cpu"))
        for first in range(0, count, 3):
            part = run_task(Task(0, plan, first, min(first + 3, count), size), space)
            total.add(part.sums, part.channel, part.clock)
    return total


def exact_chord2(a: torch.Tensor, b: torch.Tensor) -> tuple[mpmath.mpf, mpmath.mpf]:
    """|b - c a|^2 and the angle in 40 digits."""
    x = [mpmath.mpf(v) for v in a.double().reshape(-1).tolist()]
    y = [mpmath.mpf(v) for v in b.double().reshape(-1).tolist()]
    c = mpmath.sqrt(mpmath.fsum(v * v for v in y) / mpmath.fsum(v * v for v in x))
    chord2 = mpmath.fsum((v - c * u) ** 2 for u, v in zip(x, y, strict=True))
    other2 = mpmath.fsum((v + c * u) ** 2 for u, v in zip(x, y, strict=True))
    return chord2, 2 * mpmath.atan2(mpmath.sqrt(chord2), mpmath.sqrt(other2))


def rotated(
    n: int, angle: float, growth: float, seed: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, dtype=torch.float64, generator=generator)
    p = torch.randn(n, dtype=torch.float64, generator=generator)
    p -= a * (p @ a) / (a @ a)
    p *= a.norm() / p.norm()
    b = (math.cos(angle) * a + math.sin(angle) * p) * (1 + growth)
    return a.to(dtype), b.to(dtype)


ANGLES = [0.0, 1e-7, 3e-7, 1e-6, 1e-5, 1e-3, 0.1, 1.0, 2.0, 3.0, 3.1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("growth", [0.0, 1e-7, 1e-3, -0.1, 0.1])
@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize(("layout", "size"), [((1, 12, 40), 4096), ((1, 12, 40), 96)])
def test_angle_agrees_with_mpmath(
    tmp_path: Path,
    angle: float,
    growth: float,
    dtype: torch.dtype,
    layout: tuple[int, int, int],
    size: int,
) -> None:
    a, b = rotated(480, angle, growth, 7, dtype)
    sums = pair_sums(a, b, Layout(*layout), size, tmp_path)
    chord2, exact = exact_chord2(a, b)
    w2 = sums.w2.sum(1)
    dot = sums.chord.dot().sum(1)
    got = angle_of(w2[:1], w2[1:], sums.chord.total_chord2(), dot)[0]
    limit = 1e-12 if exact >= 1e-6 else 1e-9
    if exact == 0:
        assert got == 0
        return
    if angle == 0.0:
        return  # what float64 rounding of b alone leaves is below what any sum can resolve
    assert abs(got / exact - 1) < limit
    assert abs(sums.chord.total_chord2()[0] / chord2 - 1) < 2 * limit
