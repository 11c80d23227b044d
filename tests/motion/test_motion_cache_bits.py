"""What is measured piecemeal, with the cache between, is bit by bit what one cold run measures.

Each case has something that one part of a run has and the other has not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from motion_helpers import Saved, groups_of, hyper_of, symmetry_of, write_series
from test_motion_cache import assert_equal, run

from smdlens.symmetry.records import ScaleGroups

pytestmark = pytest.mark.usefixtures("_old_files")
BLOCK = 8192
HYPER = hyper_of(names=("w",))


@pytest.fixture
def _old_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smdlens.motion.fingerprint._SETTLED_NS", -1)
    monkeypatch.setattr("smdlens.motion.device.CPU_BLOCK", BLOCK)


def uneven_walk(shape: tuple[int, ...], count: int, moves: Sequence[float]) -> list[torch.Tensor]:
    """Weights of which each run of `BLOCK` elements takes steps of its own length."""
    g = torch.Generator().manual_seed(3)
    step = torch.tensor(moves, dtype=torch.float64).repeat_interleave(BLOCK)
    w = torch.randn(len(step), dtype=torch.float64, generator=g)
    found = []
    for _ in range(count):
        found.append(w.float().reshape(shape))
        w = w + step * torch.randn(len(step), dtype=torch.float64, generator=g)
    return found


def assert_same_in_parts(
    folder: Path, entries: Sequence[Saved], whole: ScaleGroups, part: ScaleGroups, first: int
) -> None:
    """Measure `part` of the first snapshots, then all with that cache, and all without one."""
    (folder / "run").mkdir()
    series = write_series(folder / "run", entries)
    run(replace(series, snapshots=series.snapshots[:first]), folder / "cache", HYPER, part)
    warm = run(series, folder / "cache", HYPER, whole)
    assert "known from the cache" in warm.cost.note
    assert_equal(warm, run(series, None, HYPER, whole))


@pytest.mark.parametrize("late", ["nan", "buffers"])
def test_blocks_unlike_the_first_beside_a_snapshot_unlike_the_others(
    tmp_path: Path, late: str
) -> None:
    """Which differences are formed does not depend on what other snapshots hold."""
    ws = uneven_walk((4, BLOCK), 4, (1e-4, 0.3, 0.02, 1e-4))
    entries = [Saved(k, {"w": w}) for k, w in enumerate(ws)]
    if late == "nan":
        ws[3][0, 0] = math.nan
    else:
        entries[3].slots = {"w": {"momentum": ws[3]}}
    groups = groups_of(symmetry_of("w", (4, BLOCK), axis=None))
    assert_same_in_parts(tmp_path, entries, groups, groups, 3)


def test_how_many_blocks_a_panel_has_beside_few_snapshots_and_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smdlens.motion.walk._KEPT", 1 << 11)
    shape = (10 * BLOCK // 128, 4, 32)  # rows of 32 elements, 256 in a block
    ws = uneven_walk(shape, 5, (1e-4, *(0.3 for _ in range(9))))
    entries = [Saved(k, {"w": w}) for k, w in enumerate(ws)]
    groups = groups_of(symmetry_of("w", shape, axis=1))
    assert_same_in_parts(tmp_path, entries, groups, groups, 4)


@pytest.mark.parametrize("alone", range(5))
def test_a_small_tensor_alone_and_among_others(tmp_path: Path, alone: int) -> None:
    """As after --include, and after an --exclude of all but its neighbours."""
    g = torch.Generator().manual_seed(5)
    shapes = [(5, 7), (8, 40), (1, 20), (3, 1000), (64, 64)]
    entries = [
        Saved(k, {f"w{n}": torch.randn(s, generator=g) for n, s in enumerate(shapes)})
        for k in range(3)
    ]
    every = [symmetry_of(f"w{n}", s) for n, s in enumerate(shapes)]
    for kept in ([every[alone]], [each for each in every if each is not every[alone]]):
        folder = tmp_path / str(len(kept))
        folder.mkdir()
        assert_same_in_parts(folder, entries, groups_of(*every), groups_of(*kept), 3)
