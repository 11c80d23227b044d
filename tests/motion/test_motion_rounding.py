"""The rounding variance against the gap between neighbouring values of each storage format."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from smdlens.motion.rounding import careful_rounding_variance, rounding_variance
from smdlens.motion.workspace import Scratch

SMALL = [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


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
        got = careful_rounding_variance(torch.tensor([value, -value]).to(dtype), None)
        assert got == 2 * gap**2 / 12, (dtype, value)


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
        assert careful_rounding_variance(one.view(1), None) == gap**2 / 12


@pytest.mark.parametrize("dtype", [*SMALL, torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 2.0**-6])
def test_quick_sum_agrees_with_the_careful_one(dtype: torch.dtype, scale: float) -> None:
    values = (torch.randn(40_000, generator=torch.Generator().manual_seed(1)) * scale).to(dtype)
    values[::7] = 0
    spare = Scratch(torch.empty(40_000, dtype=torch.float64), (1, 1, 40_000))
    wide = values if dtype == torch.float64 else values.float()
    got = rounding_variance(wide, dtype, spare)
    exact = careful_rounding_variance(values, None)
    # Zeros count with the smallest ulp, which float32 squares to nothing: both are far below.
    assert got == pytest.approx(exact, rel=1e-4)


def test_left_out_values_do_not_count() -> None:
    values = torch.tensor([1.0, math.inf, math.nan, 2.0])
    bad = ~torch.isfinite(values)
    expected = (2.0**-46 + 2.0**-44) / 12
    assert careful_rounding_variance(values, bad) == expected


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
        root = math.sqrt(careful_rounding_variance(stored, None))
        assert root / norm == pytest.approx(floor, rel=0.1), dtype
        actual = float((stored.double() - values.double()).norm()) if dtype.itemsize < 4 else root
        assert root == pytest.approx(actual, rel=0.05), dtype
