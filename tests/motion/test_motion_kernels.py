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

from smdlens.motion.files import FilePool
from smdlens.motion.geometry import Float, geometry_of
from smdlens.motion.kernels import one_reference_ratio, reference_ratio, residual
from smdlens.motion.layout import Block, Layout, Stripe, blocks
from smdlens.motion.pairs import Chords
from smdlens.motion.plan import SnapshotSources, Task, TensorPlan
from smdlens.motion.sums import TensorSums, sums_for
from smdlens.motion.walk import run_task
from smdlens.motion.workspace import Workspace
from smdlens.snapshots.records import Extent, TensorRef
from smdlens.theory.angles import angle as angle_of

mpmath.mp.dps = 40


def pair_sums(
    a: torch.Tensor,
    b: torch.Tensor,
    layout: Layout,
    size: int,
    tmp: Path,
    *,
    clock: bool = True,
) -> TensorSums:
    """Run the kernels over files that hold a and b, in blocks of `size` elements."""
    sources = []
    for name, t in (("a", a), ("b", b)):
        path = tmp / f"{name}.bin"
        path.write_bytes(t.contiguous().view(torch.uint8).numpy().tobytes())
        extent = Extent(str(path), 0, t.numel() * t.element_size())
        dtype = str(t.dtype).removeprefix("torch.")
        sources.append(SnapshotSources(TensorRef("w", tuple(t.shape), dtype, (extent,))))
    plan = TensorPlan("w", layout, clock, tuple(sources), (None,))
    covered = tuple(blocks(layout, size))
    total: TensorSums | None = None
    with FilePool() as pool:
        space = Workspace(pool, torch.device("cpu"))
        for first in range(0, len(covered), 3):
            part = run_task(Task((0,), plan, covered[first : first + 3]), space)
            if total is None:
                total = sums_for(layout, 2, clock, part.sums.sample.shape[1])
            total.add(part.sums, part.channel, part.clock)
    assert total is not None
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


@pytest.mark.parametrize("scale", [1e-140, 1e-80, 1e80, 1e140])
@pytest.mark.parametrize("angle", [1e-6, 1e-3, 0.3])
def test_float64_weights_whose_fourth_power_is_no_number(
    tmp_path: Path, angle: float, scale: float
) -> None:
    """Near or not is told from sums of squares, whose products overflow or vanish here."""
    a, b = (scale * end for end in rotated(480, angle, 0.1, 7, torch.float64))
    sums = pair_sums(a, b, Layout(1, 12, 40), 96, tmp_path)
    chord2, _ = exact_chord2(a, b)
    assert abs(sums.chord.total_chord2()[0] / chord2 - 1) < 2e-12


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("growth", [1e-3, 0.1])
def test_every_difference_is_correctly_rounded(dtype: torch.dtype, growth: float) -> None:
    """Without exact products the smallest of these would lose nine digits."""
    a, b = rotated(300, 1e-7, growth, 3, dtype)
    block = Block(0, len(a), (Stripe(0, (1, 1, len(a))),))
    geometry = geometry_of(block, torch.device("cpu"))
    x, y, out = (geometry.slab(t) for t in (a.double(), b.double(), torch.empty_like(a).double()))
    a2, b2 = (float(z.flat @ z.flat) for z in (x, y))
    ratio = one_reference_ratio(a2, b2)
    assert ratio == reference_ratio(np.array([a2]), np.array([b2]))[0]
    residual(x, y, ratio, out, wide=dtype == torch.float64)
    r = mpmath.mpf(ratio)
    for u, v, got in zip(a.double().tolist(), b.double().tolist(), out.flat.tolist(), strict=True):
        exact = mpmath.mpf(v) - r * mpmath.mpf(u)
        assert abs(mpmath.mpf(got) - exact) <= 2.3e-16 * abs(exact) + 1e-24 * abs(v)


@pytest.mark.parametrize(
    ("angles", "late"),
    [
        ((0.3, 1e-5, 1e-7), [1, 0]),
        ((1e-5, 0.3, 2e-6), [0, 0]),
        ((0.3, 0.028, 0.5), [0, 0]),
        ((0.3, 0.3, 1e-3), [0, 1]),
    ],
)
def test_blocks_that_move_unlike_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, angles: tuple[float, ...], late: list[int]
) -> None:
    """What the first block needs is taken for what the others do; the sums show where it is not."""
    found: list[int] = []
    overlooked = Chords.overlooked

    def counted(self: Chords, block: int, norm2: Float) -> list[int]:
        pairs = overlooked(self, block, norm2)
        found.append(len(pairs))
        return pairs

    monkeypatch.setattr(Chords, "overlooked", counted)
    moved = [rotated(8192, t, 1e-3, k, torch.float32) for k, t in enumerate(angles)]
    a, b = (torch.cat(ends) for ends in zip(*moved, strict=True))
    sums = pair_sums(a, b, Layout(1, 3, 8192), 8192, tmp_path, clock=False)
    assert found == late
    for channel, (start, end) in enumerate(moved):
        exact, _ = exact_chord2(start, end)
        assert abs(sums.chord.chord2()[0, channel] / exact - 1) < 2e-11
    whole, _ = exact_chord2(a, b)
    assert abs(sums.chord.total_chord2()[0] / whole - 1) < 2e-12


def test_rows_longer_than_the_fused_product_takes(tmp_path: Path) -> None:
    a, b = rotated(3 * 9000, 0.3, 0.1, 5, torch.float32)
    long = pair_sums(a, b, Layout(1, 3, 9000), 1 << 17, tmp_path)
    short = pair_sums(a, b, Layout(1, 3, 9000), 4000, tmp_path)
    assert long.w2 == pytest.approx(short.w2, rel=1e-13)
    assert long.chord.chord2() == pytest.approx(short.chord.chord2(), rel=1e-12)


SEEDS = st.integers(0, 2**31)
SETTINGS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
Draw = Callable[..., object]


@st.composite
def pairs(draw: Draw) -> tuple[torch.Tensor, torch.Tensor, Layout]:
    """Two float32 tensors of one small layout, at any angle and norm ratio."""
    shape = tuple(draw(st.integers(1, 6)) for _ in range(3))
    n = math.prod(shape)  # type: ignore[arg-type]
    angle = 10 ** draw(st.floats(-7, 0.4))  # type: ignore[operator]
    growth = draw(st.floats(-0.5, 1.0))
    if n < 2:
        angle = 0.0
    a, b = rotated(max(n, 2), angle, growth, draw(SEEDS), torch.float32)
    return a[:n].clone(), b[:n].clone(), Layout(*shape)


@SETTINGS
@given(pair=pairs(), size=st.integers(1, 220))
def test_chord_is_exact_for_any_cut(
    tmp_path: Path, pair: tuple[torch.Tensor, torch.Tensor, Layout], size: int
) -> None:
    a, b, layout = pair
    sums = pair_sums(a, b, layout, size, tmp_path)
    chord2, exact = exact_chord2(a, b)
    # Absolute, because two float32 vectors may be parallel but for their last digits.
    limit = 2e-12 if exact >= 1e-6 else 2e-9
    norm2 = float(b.double().square().sum())
    assert abs(sums.chord.total_chord2()[0] - chord2) <= limit * chord2 + 1e-30 * norm2


@SETTINGS
@given(pair=pairs(), size=st.integers(1, 220), power=st.integers(-20, 20))
def test_scaling_either_end_by_a_power_of_two_scales_the_chord(
    tmp_path: Path, pair: tuple[torch.Tensor, torch.Tensor, Layout], size: int, power: int
) -> None:
    a, b, layout = pair
    base = pair_sums(a, b, layout, size, tmp_path).chord.total_chord2()[0]
    first = pair_sums(a * 2.0**power, b, layout, size, tmp_path).chord.total_chord2()[0]
    second = pair_sums(a, b * 2.0**power, layout, size, tmp_path).chord.total_chord2()[0]
    tiny = 1e-29 * float(b.double().square().sum())
    assert first == pytest.approx(base, rel=1e-9, abs=tiny)
    assert second == pytest.approx(base * 4.0**power, rel=1e-9, abs=tiny * 4.0**power)


@SETTINGS
@given(pair=pairs(), size=st.integers(1, 220), seed=SEEDS)
def test_permuting_elements_changes_nothing(
    tmp_path: Path, pair: tuple[torch.Tensor, torch.Tensor, Layout], size: int, seed: int
) -> None:
    a, b, layout = pair
    order = torch.randperm(a.numel(), generator=torch.Generator().manual_seed(seed))
    base = pair_sums(a, b, layout, size, tmp_path).chord
    mixed = pair_sums(a[order], b[order], layout, size, tmp_path).chord
    tiny = 1e-29 * float(b.double().square().sum())
    expected = pytest.approx(base.total_chord2(), rel=1e-9, abs=tiny)
    assert mixed.total_chord2() == expected
    assert mixed.dot().sum() == pytest.approx(base.dot().sum(), rel=1e-12)


@SETTINGS
@given(pair=pairs(), size=st.integers(1, 220))
def test_the_angle_is_the_same_both_ways(
    tmp_path: Path, pair: tuple[torch.Tensor, torch.Tensor, Layout], size: int
) -> None:
    a, b, layout = pair
    there = pair_sums(a, b, layout, size, tmp_path)
    back = pair_sums(b, a, layout, size, tmp_path)
    a2, b2 = there.w2.sum(1)
    expected = there.chord.total_chord2()[0] / b2
    assert back.chord.total_chord2()[0] / a2 == pytest.approx(expected, rel=1e-9, abs=1e-29)


@SETTINGS
@given(pair=pairs(), size=st.integers(1, 220), power=st.integers(-3, 3))
def test_parallel_tensors_have_no_chord(
    tmp_path: Path, pair: tuple[torch.Tensor, torch.Tensor, Layout], size: int, power: int
) -> None:
    a, _, layout = pair
    sums = pair_sums(a, a * 2.0**power, layout, size, tmp_path)
    assert sums.chord.total_chord2()[0] == 0.0
    assert (sums.chord.chord2()[sums.chord.aa > 0] == 0.0).all()
