"""The rounding variance against the gap between neighbouring values of each storage format."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from motion_helpers import Saved, groups_of, hyper_of, symmetry_of, write_series

from smdlens.motion import device as device_module
from smdlens.motion.engine import measure
from smdlens.motion.rounding import leading_powers, sampling_step, variance_of_power

SMALL = [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


def variance(values: torch.Tensor) -> float:
    """Sum of ulp^2 / 12 over values in their storage dtype."""
    power = leading_powers(values.double(), values.dtype)
    return float(power.square().sum()) * variance_of_power(values.dtype)


def gaps(dtype: torch.dtype) -> dict[float, float]:
    """Every finite non-negative value of a format and the gap to the next larger one."""
    if dtype.itemsize == 1:
        values = torch.arange(256, dtype=torch.uint8).view(dtype)
    else:
        values = torch.arange(65536, dtype=torch.int32).to(torch.uint16).view(dtype)
    finite = values.double()
    finite = finite[torch.isfinite(finite) & (finite >= 0)].unique()
    ordered = finite.tolist()
    return dict(zip(ordered[:-1], np.diff(ordered).tolist(), strict=True))


@pytest.mark.parametrize("dtype", SMALL)
def test_every_value_of_small_formats(dtype: torch.dtype) -> None:
    for value, gap in gaps(dtype).items():
        got = variance(torch.tensor([value, -value]).to(dtype))
        assert got == 2 * (gap**2 / 12), (dtype, value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wide_formats_agree_with_numpy(dtype: torch.dtype) -> None:
    generator = np.random.default_rng(0)
    smallest = float(torch.finfo(dtype).smallest_normal)
    values = np.concatenate(
        [
            generator.normal(size=500) * 10.0 ** generator.uniform(-30, 30, 500),
            [0.0, 1.0, -2.0, 1.9999999, smallest, smallest / 4, 5 * smallest],
        ]
    )
    tensor = torch.from_numpy(values).to(dtype)
    for one in tensor:
        gap = float(np.spacing(np.abs(one.numpy())))
        assert variance(one.view(1)) == gap**2 / 12


@pytest.mark.parametrize("numel", [1, 4096, 8191, 8192, 10_000, 64 * 3 * 49, 512 * 512 * 9])
def test_a_sample_meets_every_place_of_a_tensor(numel: int) -> None:
    step = sampling_step(numel)
    assert math.gcd(step, numel) == 1
    assert min(numel, 1500) <= -(-numel // step) <= 8192


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("block", [1000, 1 << 16])
def test_a_sampled_floor_is_near_the_whole(
    tmp_path: Path, dtype: torch.dtype, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Channels of very different size: the ratio to |w|^2 takes most of that out."""
    monkeypatch.setattr(device_module, "CPU_BLOCK", block)
    generator = torch.Generator().manual_seed(4)
    w = torch.randn((64, 3000), generator=generator)
    w = (w * torch.logspace(-2, 1, 64)[:, None]).to(dtype)
    series = write_series(tmp_path, [Saved(0, {"w": w}), Saved(1, {"w": w * 2})])
    motion = measure(series, groups_of(symmetry_of("w", (64, 3000))), hyper_of(), device="cpu")
    assert motion.snapshots["round2"].to_list() == pytest.approx(
        [variance(w), 4 * variance(w)], rel=0.05
    )


def test_left_out_values_do_not_count(tmp_path: Path) -> None:
    values = torch.tensor([[1.0, math.inf, math.nan, 2.0]]).to(torch.float8_e5m2)
    series = write_series(tmp_path, [Saved(0, {"w": values}), Saved(1, {"w": values})])
    motion = measure(series, groups_of(symmetry_of("w", (1, 4))), hyper_of(), device="cpu")
    expected = pytest.approx((2.0**-4 + 2.0**-2) / 12, rel=1e-15)
    assert motion.snapshots["round2"].to_list() == [expected, expected]


def test_floor_of_gaussian_weights_is_that_of_docs_theory() -> None:
    values = torch.randn(1 << 20, generator=torch.Generator().manual_seed(2))
    norm = float(values.double().norm())
    floors = {
        torch.float32: 2.5e-8,
        torch.float16: 2.1e-4,
        torch.bfloat16: 1.7e-3,
        torch.float8_e4m3fn: 2.7e-2,
    }
    for dtype, floor in floors.items():
        stored = values.to(dtype)
        root = math.sqrt(variance(stored))
        assert root / norm == pytest.approx(floor, rel=0.1), dtype
        actual = float((stored.double() - values.double()).norm()) if dtype.itemsize < 4 else root
        assert root == pytest.approx(actual, rel=0.05), dtype
