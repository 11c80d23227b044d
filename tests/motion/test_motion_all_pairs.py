"""The angle between any two snapshots, against 40 digits; what it costs and what it survives."""

from __future__ import annotations

from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from motion_helpers import Saved, groups_of, hyper_of, symmetry_of, write_series

from smdlens.motion import cache_file, gram
from smdlens.motion.all_pairs import MOST_SNAPSHOTS, spread
from smdlens.motion.cache import open_cache
from smdlens.motion.engine import measure
from smdlens.motion.records import ANGLE_SCHEMA
from smdlens.vocabulary import Role

GROUPS = groups_of(
    symmetry_of("a", (4, 9)), symmetry_of("b", (3, 5), role=Role.NOT_SCALE_INVARIANT)
)


def angles_of(folder: Path, tensors: list[torch.Tensor], **more):
    saved = [Saved(10 * k, {"a": t, "b": torch.ones(3, 5)}) for k, t in enumerate(tensors)]
    series = write_series(folder, saved)
    motion = measure(series, GROUPS, hyper_of(), device="cpu", all_pairs=True, **more)
    assert motion.angles is not None
    assert dict(motion.angles.schema) == ANGLE_SCHEMA
    return motion.angles


def exact_angle(a: torch.Tensor, b: torch.Tensor) -> float:
    with mpmath.workdps(40):
        x, y = ([mpmath.mpf(v) for v in t.double().flatten().tolist()] for t in (a, b))
        dot, xx, yy = (mpmath.fdot(p, q) for p, q in ((x, y), (x, x), (y, y)))
        return float(mpmath.acos(dot / mpmath.sqrt(xx * yy)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("step", [1e-6, 1e-3, 1.0])
def test_angles_against_many_digits(
    tmp_path: Path, dtype: torch.dtype, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gram, "_BLOCK", 7 * 6)
    g = torch.Generator().manual_seed(3)
    base = torch.randn(4, 9, generator=g, dtype=torch.float64)
    tensors = [
        # The length changes much more than the direction: what a plain difference would show.
        ((1 + 0.1 * k) * (base + step * torch.randn(4, 9, generator=g).double())).to(dtype)
        for k in range(6)
    ]
    angles = angles_of(tmp_path, tensors)
    assert angles["tensor"].unique().to_list() == ["a"]
    assert angles.height == 15
    for row in angles.to_dicts():
        i, j = row["snapshot_from"], row["snapshot_to"]
        assert (row["step_from"], row["step_to"]) == (10 * i, 10 * j)
        exact = exact_angle(tensors[i], tensors[j])
        # What cancels is of the size of the change of length, here 0.1.
        assert row["angle_rad"] == pytest.approx(exact, rel=1e-12 + 1e-15 / max(exact, 1e-9) ** 2)


def test_neighbours_agree_with_the_pair_table(tmp_path: Path) -> None:
    g = torch.Generator().manual_seed(4)
    tensors = [torch.randn(4, 9, generator=g) for _ in range(4)]
    angles = angles_of(tmp_path, tensors)
    for row in angles.filter(angles["snapshot_to"] == angles["snapshot_from"] + 1).to_dicts():
        i = row["snapshot_from"]
        cosine = torch.nn.functional.cosine_similarity(
            tensors[i].double().flatten(), tensors[i + 1].double().flatten(), dim=0
        )
        assert np.cos(row["angle_rad"]) == pytest.approx(float(cosine), rel=1e-12)


def test_what_is_not_finite_is_lost_and_nothing_else(tmp_path: Path) -> None:
    g = torch.Generator().manual_seed(5)
    tensors = [torch.randn(4, 9, generator=g) for _ in range(4)]
    tensors[1][2, 3] = float("inf")
    tensors[3] = torch.zeros(4, 9)
    known = angles_of(tmp_path, tensors).drop_nulls()
    assert known.select("snapshot_from", "snapshot_to").rows() == [(0, 2)]
    assert known.item(0, "angle_rad") == pytest.approx(exact_angle(tensors[0], tensors[2]), 1e-12)


def test_workers_change_no_bit_and_a_second_analysis_reads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smdlens.motion.fingerprint._SETTLED_NS", -1)
    monkeypatch.setattr(gram, "_BLOCK", 12)
    monkeypatch.setattr(gram, "_TASK_BLOCKS", 2)
    g = torch.Generator().manual_seed(6)
    tensors = [torch.randn(4, 9, generator=g) for _ in range(5)]
    (tmp_path / "run").mkdir()
    one = angles_of(tmp_path / "run", tensors, workers=1)
    assert one.equals(angles_of(tmp_path / "run", tensors, workers=3))
    saved = [Saved(10 * k, {"a": t, "b": torch.ones(3, 5)}) for k, t in enumerate(tensors)]
    series = write_series(tmp_path / "run", saved)
    for expected in (False, True):
        cache = open_cache(series, tmp_path / "cache")
        motion = measure(series, GROUPS, hyper_of(), device="cpu", all_pairs=True, cache=cache)
        assert motion.angles is not None and motion.angles.equals(one)
        assert (motion.cost.bytes_read == 0) is expected


@pytest.mark.parametrize("count", [1, 2, 3, 63, 64, 65, 127, 128, 129, 1000, 100_000])
def test_snapshots_are_spread_evenly_over_the_run(count: int) -> None:
    at = spread(count)
    assert len(at) <= MOST_SNAPSHOTS
    assert at[-1] == count - 1
    assert len(set(np.diff(at))) <= 1
    assert at[0] < (count / MOST_SNAPSHOTS) + 1
    if count <= MOST_SNAPSHOTS:
        assert at == tuple(range(count))
    elif count > 2 * MOST_SNAPSHOTS:
        assert len(at) > 0.6 * MOST_SNAPSHOTS


def test_what_rounding_beside_a_much_longer_snapshot_hides_is_not_known(tmp_path: Path) -> None:
    """All are taken of what they differ from the middle one by; neighbours' chords are exact."""
    g = torch.Generator().manual_seed(4)
    ws = [torch.randn(4, 9, generator=g) * 0.01 + torch.eye(4, 9) for _ in range(5)]
    ws[2] *= 1e6
    assert angles_of(tmp_path, ws)["angle_rad"].null_count() == 10
    ws[2] /= 1e4
    for row in angles_of(tmp_path, ws).to_dicts():
        i, j = row["snapshot_from"], row["snapshot_to"]
        assert row["angle_rad"] == pytest.approx(exact_angle(ws[i], ws[j]), rel=0.02)


def test_the_cache_does_not_keep_the_pairs_of_every_length_a_run_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smdlens.motion.cache._MOST_LISTED", 8)
    (tmp_path / "run").mkdir()
    g = torch.Generator().manual_seed(4)
    ws = [torch.randn(4, 9, generator=g) for _ in range(6)]
    for count, kept in ((2, 1), (3, 2), (4, 1), (6, 1)):  # of 1, 3, 6 and 15 pairs
        series = write_series(
            tmp_path / "run", [Saved(k, {"a": w}) for k, w in enumerate(ws[:count])]
        )
        for _ in range(2):
            cache = open_cache(series, tmp_path / "cache")
            assert cache is not None
            motion = measure(series, GROUPS, hyper_of(), device="cpu", all_pairs=True, cache=cache)
        assert motion.cost.bytes_read == 0
        assert cache_file.read(cache.path)["values"].height == kept
