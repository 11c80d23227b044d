"""Angles at long lags from a few weights, held against the same from all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from motion_helpers import Saved, groups_of, hyper_of, symmetry_of, write_series

from smdlens.motion import device as device_module
from smdlens.motion import lag_sample
from smdlens.motion.cache import open_cache
from smdlens.motion.engine import measure
from smdlens.motion.lag_sample import places, slots_of, stride_of
from smdlens.motion.layout import blocks, layout_of
from smdlens.motion.records import Motion
from smdlens.motion.rounding import sampling_step
from smdlens.snapshots.records import SnapshotSeries
from smdlens.symmetry.records import ScaleGroups

SHAPES = {"large": (64, 32, 5, 5), "wide": (100, 300), "small": (8, 9), "tiny": (3, 3)}


def a_run(folder: Path, snapshots: int = 33, turn: float = 0.06) -> SnapshotSeries:
    """Every tensor walks on its sphere while its norm grows, its channels of unlike norms."""
    generator = torch.Generator().manual_seed(5)
    saved, now = [], {}
    for name, shape in SHAPES.items():
        length = torch.linspace(0.2, 3.0, shape[0]).view(-1, *[1] * (len(shape) - 1))
        now[name] = torch.randn(shape, generator=generator) * length, length
    for k in range(snapshots):
        saved.append(Saved(10 * k, {name: w for name, (w, _) in now.items()}))
        for name, (w, length) in now.items():
            step = torch.randn(w.shape, generator=generator) * length
            now[name] = 1.01 * (w * np.cos(turn) + step * np.sin(turn)), length
    return write_series(folder, saved)


def groups() -> ScaleGroups:
    return groups_of(*(symmetry_of(name, shape) for name, shape in SHAPES.items()))


def run(series: SnapshotSeries, **more: object) -> Motion:
    return measure(series, groups(), hyper_of(), device="cpu", **more)  # type: ignore[arg-type]


def test_a_few_weights_tell_the_angles_of_all(tmp_path: Path) -> None:
    """Neighbours and tensors of few weights exactly, others to what 128 of their weights tell."""
    motion = run(a_run(tmp_path), all_pairs=True)
    assert motion.angles is not None
    ends = ["tensor", "snapshot_from", "snapshot_to", "step_from", "step_to"]
    both = motion.lag_angles.join(motion.angles, on=ends, how="inner", suffix="_exact")
    assert both.height == motion.lag_angles.height == 4 * (32 + 31 + 29 + 25 + 17 + 1)
    lag = both["snapshot_to"] - both["snapshot_from"]
    assert set(lag) == {1, 2, 4, 8, 16, 32}
    ratio = both["angle_rad"] / both["angle_rad_exact"]
    exact = (lag == 1) | both["tensor"].is_in(["small", "tiny"])
    assert (ratio.filter(exact) - 1.0).abs().max() < 1e-9
    few = both.with_columns(ratio=ratio, lag=lag).filter(~exact)
    assert 0.01 < few["ratio"].std() < 0.1
    means = few.filter(pl.col("lag") <= 16).group_by("tensor", "lag").agg(pl.col("ratio").mean())
    assert (means["ratio"] - 1.0).abs().max() < 0.1


@pytest.mark.parametrize("block", [97, 1000, 1 << 15])
def test_the_same_weights_are_kept_whatever_the_blocks_and_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    series = a_run(tmp_path, snapshots=4)
    expected = run(series, workers=1).lag_angles
    monkeypatch.setattr(device_module, "CPU_BLOCK", block)
    got = run(series, workers=2).lag_angles
    assert got.drop("angle_rad").equals(expected.drop("angle_rad"))
    np.testing.assert_allclose(got["angle_rad"], expected["angle_rad"], rtol=1e-11)


@pytest.mark.parametrize("numel", [1, 127, 129, 8192, 8193, 100_003, 1_048_576])
@pytest.mark.parametrize("size", [97, 5000, 1 << 20])
def test_every_slot_is_filled_once_with_the_element_it_stands_for(numel: int, size: int) -> None:
    step = 1 if numel <= 8192 else sampling_step(numel)
    stride = stride_of(numel, step)
    filled = np.full(slots_of(numel, step), -1)
    for block in blocks(layout_of((numel,), (0,), None), size):
        sampled = np.arange(block.low, block.high)[-block.low % step :: step]
        chosen, slots = places(block, step, stride)
        assert (filled[slots] == -1).all()
        filled[slots] = sampled[chosen]
    assert filled.tolist() == list(range(0, numel, stride))
    assert len(filled) <= lag_sample.MOST_KEPT


def test_cached_and_cold_runs_keep_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    series = a_run(folder, snapshots=9)
    cold = run(series)
    shorter = SnapshotSeries(series.path, series.snapshots[:6], (), series.axis)
    for part in (shorter, series, series):
        cached = run(part, cache=open_cache(part, tmp_path / "cache"))
    assert cached.lag_angles.equals(cold.lag_angles)
    assert cached.snapshots.equals(cold.snapshots)


def test_a_snapshot_that_is_not_finite_has_no_angles(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    ws = [torch.randn(20, 50, generator=generator) for _ in range(5)]
    ws[2][0, 0] = float("nan")
    series = write_series(tmp_path, [Saved(k, {"w": w}) for k, w in enumerate(ws)])
    found = measure(series, groups_of(symmetry_of("w", (20, 50))), hyper_of(), device="cpu")
    lost = found.lag_angles.filter(pl.col("angle_rad").is_null()).select(
        "snapshot_from", "snapshot_to"
    )
    assert set(lost.rows()) == {(0, 2), (2, 4)}


def test_beyond_a_size_none_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smdlens.motion.select.MOST_ROWS", 4 * 3 - 1)
    assert run(a_run(tmp_path, snapshots=3)).lag_angles.is_empty()
