"""The engine: workers, block sizes, storage formats and layouts do not change what is measured."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from motion_helpers import Saved, groups_of, hyper_of, rows, symmetry_of, write_series
from test_motion_measure import walk, wide

from smdlens.motion import device as device_module
from smdlens.motion.engine import measure
from smdlens.motion.records import Motion
from smdlens.snapshots.records import MEASURED_DTYPES, SnapshotSeries
from smdlens.symmetry.records import ScaleGroups, TensorPart
from smdlens.vocabulary import Granularity, Role


def run(series: SnapshotSeries, groups: ScaleGroups, **more: int) -> Motion:
    return measure(series, groups, hyper_of(names=["w"]), device="cpu", **more)


def assert_same(a: Motion, b: Motion, rel: float = 1e-12) -> None:
    for left, right in ((a.snapshots, b.snapshots), (a.pairs, b.pairs)):
        for x, y in zip(left.to_dicts(), right.to_dicts(), strict=True):
            for name in x:
                if isinstance(x[name], float):
                    # A channel of one element has no angle but for the rounding of how it grew.
                    least = 1e-9 if name.startswith("angle") else 1e-300
                    assert y[name] == pytest.approx(x[name], rel=rel, abs=least), name
                else:
                    assert x[name] == y[name], name


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "CPU_BLOCK", 97)


def test_workers_do_not_change_a_bit(tmp_path: Path, small_blocks: None) -> None:
    shapes = [(16, 8, 3, 3), (40, 30), (7, 500), (5, 5), (3, 3)] * 3
    walks = [walk(shape, 3, i) for i, shape in enumerate(shapes)]
    saved = [
        Saved(
            i,
            {f"t{k}": w[i] for k, w in enumerate(walks)},
            {f"t{k}": {"momentum": w[i]} for k, w in enumerate(walks)},
        )
        for i in range(3)
    ]
    series = write_series(tmp_path, saved, pieces=2)
    groups = groups_of(*(symmetry_of(f"t{k}", s) for k, s in enumerate(shapes)))
    runs = [run(series, groups, workers=n) for n in (1, 2, 5)]
    for other in runs[1:]:
        assert other.snapshots.equals(runs[0].snapshots)
        assert other.pairs.equals(runs[0].pairs)


def test_threads_are_given_back(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    series = write_series(tmp_path, [Saved(i, {"w": w}) for i, w in enumerate(walk((4, 4), 2, 1))])
    run(series, groups_of(symmetry_of("w", (4, 4))), workers=3)
    assert torch.get_num_threads() == before
    assert not [t for t in threading.enumerate() if t.name.startswith("smdlens")]


def test_progress_ends_at_the_total(tmp_path: Path, small_blocks: None) -> None:
    saved = [
        Saved(i, {"w": w, "x": w}, {"w": {"momentum": w}})
        for i, w in enumerate(walk((40, 50), 3, 1))
    ]
    seen: list[tuple[int, int]] = []
    groups = groups_of(symmetry_of("w", (40, 50)), symmetry_of("x", (40, 50)))
    motion = measure(
        write_series(tmp_path, saved),
        groups,
        hyper_of(),
        device="cpu",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1][0] == seen[-1][1] == motion.cost.bytes_read == 40 * 50 * 4 * 9
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize("block", [1, 13, 97, 1000, 1 << 17])
@pytest.mark.parametrize("axis", [0, 1, 2, 3, None])
def test_block_size_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, axis: int | None
) -> None:
    ws = walk((6, 5, 3, 4), 3, 9)
    series = write_series(
        tmp_path,
        [Saved(i, {"w": w}, {"w": {"momentum": w.flip(0)}}) for i, w in enumerate(ws)],
        pieces=2,
    )
    groups = groups_of(symmetry_of("w", (6, 5, 3, 4), axis=axis, clock=True))
    reference = run(series, groups)
    monkeypatch.setattr(device_module, "CPU_BLOCK", block)
    assert_same(reference, run(series, groups))
    if axis is not None:
        dims = [d for d in range(4) if d != axis]
        a, b = ws[0].double(), ws[1].double()
        growth = (b.square().sum(dims) / a.square().sum(dims)).log().median()
        expected = float(np.quantile((b.square().sum(dims) / a.square().sum(dims)).log(), 0.5))
        assert reference.pairs["growth_p50"][0] == pytest.approx(expected, rel=1e-9)
        assert math.isfinite(float(growth))
        clock = [float(w.double().sum(axis).square().sum()) for w in ws]
        assert reference.snapshots["clock2"].to_list() == pytest.approx(clock)


@pytest.mark.parametrize("name", sorted(MEASURED_DTYPES))
@pytest.mark.parametrize("block", [50, 1 << 17])
def test_every_storage_dtype(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, block: int
) -> None:
    monkeypatch.setattr(device_module, "CPU_BLOCK", block)
    dtype = getattr(torch, name)
    ws = [w.to(dtype) for w in walk((8, 20), 3, 3)]
    saved = [Saved(i, {"w": w}, {"w": {"momentum": w}}) for i, w in enumerate(ws)]
    motion = run(write_series(tmp_path, saved), groups_of(symmetry_of("w", (8, 20))))
    for row, w in zip(motion.snapshots.to_dicts(), ws, strict=True):
        assert row["w2"] == pytest.approx(float((wide(w) ** 2).sum()), rel=1e-13)
        assert row["wv"] == pytest.approx(row["w2"], rel=1e-13)
    for row, a, b in zip(motion.pairs.to_dicts(), ws[:-1], ws[1:], strict=True):
        x, y = wide(a), wide(b)
        c = np.sqrt((y**2).sum() / (x**2).sum())
        assert row["chord2"] == pytest.approx(float(((y - c * x) ** 2).sum()), rel=1e-12)


def test_snapshots_of_different_dtype_meet(tmp_path: Path) -> None:
    a, b = walk((8, 20), 2, 3)
    saved = [Saved(0, {"w": a.half()}), Saved(1, {"w": b.double()}), Saved(2, {"w": b.bfloat16()})]
    motion = run(write_series(tmp_path, saved), groups_of(symmetry_of("w", (8, 20))))
    dots = [(wide(a.half()) * wide(b)).sum(), (wide(b) * wide(b.bfloat16())).sum()]
    assert motion.pairs["dot"].to_list() == pytest.approx([float(d) for d in dots], rel=1e-13)


def test_channels_last_and_gathered_tensors_agree_with_row_major_ones(tmp_path: Path) -> None:
    ws = walk((6, 5, 3, 4), 3, 2)
    groups = groups_of(symmetry_of("w", (6, 5, 3, 4), clock=True))
    last = [w.to(memory_format=torch.channels_last) for w in ws]
    every_other = [torch.stack((w, w + 1), -1)[..., 0] for w in ws]
    mixed = [ws[0], last[1], every_other[2]]
    results = []
    for name, variant in {"plain": ws, "last": last, "gaps": every_other, "mixed": mixed}.items():
        folder = tmp_path / name
        folder.mkdir()
        saved = [Saved(i, {"w": w}, {"w": {"momentum": w}}) for i, w in enumerate(variant)]
        results.append(run(write_series(folder, saved), groups))
    for other in results[1:]:
        assert_same(results[0], other)


def test_non_finite_weights_are_counted_and_left_out_of_both_ends(
    tmp_path: Path, small_blocks: None
) -> None:
    a, b, c = walk((20, 30), 3, 2)
    b = b.clone()
    b[3, 4], b[3, 5], b[17, 2] = math.nan, math.inf, -math.inf
    saved = [Saved(i, {"w": w}, {"w": {"momentum": w}}) for i, w in enumerate((a, b, c))]
    motion = run(write_series(tmp_path, saved), groups_of(symmetry_of("w", (20, 30))))
    assert motion.snapshots["nonfinite"].to_list() == [0, 3, 0]
    keep = torch.isfinite(b)
    w2 = [float((wide(w)[keep.numpy() | (w is not b)] ** 2).sum()) for w in (a, b, c)]
    assert motion.snapshots["w2"].to_list() == pytest.approx(w2, rel=1e-13)
    assert motion.snapshots["wv"].to_list() == pytest.approx(w2, rel=1e-13)
    for row, (x, y) in zip(motion.pairs.to_dicts(), ((a, b), (b, c)), strict=True):
        u, v = wide(x)[keep.numpy()], wide(y)[keep.numpy()]
        r = np.sqrt((v**2).sum() / (u**2).sum())
        assert row["dot"] == pytest.approx(float((u * v).sum()), rel=1e-13)
        assert row["chord2"] == pytest.approx(float(((v - r * u) ** 2).sum()), rel=1e-12)


def test_extraordinary_values(tmp_path: Path) -> None:
    """Zeros, float32's smallest and largest numbers: no NaN, no infinity, no lost floor."""
    base = walk((6, 30), 3, 2)
    tensors = {
        "zero": [torch.zeros(6, 30)] * 3,
        "from_zero": [torch.zeros(6, 30), *base[1:]],
        "tiny": [w * 1e-38 for w in base],
        "huge": [w * 1e37 for w in base],
    }
    series = write_series(
        tmp_path, [Saved(i, {k: v[i] for k, v in tensors.items()}) for i in range(3)]
    )
    motion = run(series, groups_of(*(symmetry_of(k, (6, 30)) for k in tensors)))
    zero = rows(motion.pairs, "zero")[0]
    assert zero["dot"] == 0.0
    assert zero["chord2"] is None
    assert zero["angle_p50"] is None
    assert rows(motion.pairs, "from_zero")[0]["chord2"] is None
    assert rows(motion.pairs, "from_zero")[1]["chord2"] > 0
    for name in ("tiny", "huge"):
        for row, w in zip(rows(motion.snapshots, name), tensors[name], strict=True):
            assert row["w2"] == pytest.approx(float((wide(w) ** 2).sum()), rel=1e-13)
            gap = np.spacing(np.abs(w.numpy())).astype(np.float64)
            assert row["round2"] == pytest.approx(float((gap**2).sum() / 12), rel=1e-12)


def test_invariant_rows_of_a_fused_tensor(tmp_path: Path) -> None:
    ws = walk((12, 5), 2, 2)
    saved = [Saved(i, {"w": w}, {"w": {"momentum": w}}) for i, w in enumerate(ws)]
    head, none = Granularity.HEAD, None
    parts = (
        TensorPart(0, 4, Role.SCALE_INVARIANT, head),
        TensorPart(4, 8, Role.NOT_SCALE_INVARIANT, none),
        TensorPart(8, 12, Role.SCALE_INVARIANT, head),
    )
    partly = symmetry_of("w", (12, 5), role=Role.PARTLY_SCALE_INVARIANT, groups=2, parts=parts)
    motion = run(write_series(tmp_path, saved, pieces=3), groups_of(partly))
    kept = [np.concatenate((wide(w)[:4], wide(w)[8:])) for w in ws]
    expected = [float((k**2).sum()) for k in kept]
    assert motion.snapshots["w2"].to_list() == pytest.approx(expected, rel=1e-13)
    assert motion.snapshots["v2"].to_list() == pytest.approx(expected, rel=1e-13)
    assert motion.pairs["dot"][0] == pytest.approx(float((kept[0] * kept[1]).sum()), rel=1e-13)


@pytest.mark.parametrize(("heads", "pieces"), [(3, 3), (5, 12)])
def test_heads_are_joined_before_quantiles(tmp_path: Path, heads: int, pieces: int) -> None:
    """A number of heads that does not divide the rows leaves single rows."""
    a, b = walk((12, 5), 2, 2)
    saved = [Saved(0, {"w": a}), Saved(1, {"w": b})]
    groups = groups_of(symmetry_of("w", (12, 5), groups=heads))
    motion = run(write_series(tmp_path, saved), groups)
    x, y = wide(a).reshape(pieces, -1), wide(b).reshape(pieces, -1)
    cosine = (x * y).sum(1) / np.sqrt((x**2).sum(1) * (y**2).sum(1))
    expected = np.quantile(np.arccos(cosine).astype(float), [0.05, 0.5, 0.95])
    got = [motion.pairs[f"angle_{p}"][0] for p in ("p05", "p50", "p95")]
    assert got == pytest.approx(expected.tolist(), rel=1e-10)


def test_float64_beyond_its_square_gives_null_not_infinity(tmp_path: Path) -> None:
    base = [w.double() for w in walk((6, 30), 3, 2)]
    tensors = {"huge": [w * 1e200 for w in base], "tiny": [w * 1e-200 for w in base]}
    tensors["burst"] = [base[0], base[1] * 1e200, base[2]]
    series = write_series(
        tmp_path, [Saved(i, {k: v[i] for k, v in tensors.items()}) for i in range(3)]
    )
    motion = run(series, groups_of(*(symmetry_of(k, (6, 30)) for k in tensors)))
    for frame in (motion.snapshots, motion.pairs):
        for row in frame.to_dicts():
            assert all(math.isfinite(v) for v in row.values() if isinstance(v, float))
    assert motion.snapshots["nonfinite"].sum() == 0
