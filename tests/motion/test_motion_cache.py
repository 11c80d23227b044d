"""The measurement cache: what it saves, what it notices, and that it changes no number."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
from motion_helpers import Saved, batch_norm, groups_of, hyper_of, symmetry_of, write_series

from smdlens.errors import InputError
from smdlens.motion import cache_file
from smdlens.motion.cache import open_cache
from smdlens.motion.engine import measure
from smdlens.motion.records import Motion
from smdlens.snapshots.records import SnapshotSeries
from smdlens.vocabulary import OptimizerKind

SHAPE = (6, 4, 3)
GROUPS = groups_of(
    symmetry_of("conv.weight", SHAPE, norm=batch_norm("bn")), symmetry_of("fc.weight", (5, 7))
)
HYPER = hyper_of(names=("conv.weight", "fc.weight"))


@pytest.fixture(autouse=True)
def files_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a test are younger than a tick of the clock; a trainer's usually are not."""
    monkeypatch.setattr("smdlens.motion.fingerprint._SETTLED_NS", -1)


def saved(step: int, seed: int | None = None) -> Saved:
    g = torch.Generator().manual_seed(step if seed is None else seed)
    tensors = {
        "conv.weight": torch.randn(SHAPE, generator=g),
        "bn.weight": torch.rand(6, generator=g),
        "bn.running_var": torch.rand(6, generator=g),
        "fc.weight": torch.randn(5, 7, generator=g),
    }
    slots = {n: {"momentum": torch.randn(tensors[n].shape, generator=g)} for n in list(tensors)[:2]}
    return Saved(step, tensors, slots)


def run_of(folder: Path, steps: tuple[int, ...]) -> SnapshotSeries:
    folder.mkdir(exist_ok=True)
    return write_series(folder, [saved(step) for step in steps])


def run(series: SnapshotSeries, cache: Path | None, hyper=HYPER, groups=GROUPS) -> Motion:
    opened = None if cache is None else open_cache(series, cache)
    return measure(series, groups, hyper, device="cpu", workers=1, cache=opened)


def assert_equal(a: Motion, b: Motion) -> None:
    assert a.snapshots.equals(b.snapshots)
    assert a.pairs.equals(b.pairs)
    assert a.snapshots.schema == b.snapshots.schema
    assert a.pairs.schema == b.pairs.schema
    assert a.frozen_statistics == b.frozen_statistics


def only_file(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def test_a_second_analysis_reads_no_weights(tmp_path: Path) -> None:
    series = run_of(tmp_path / "run", (1, 2, 5))
    plain, cold = run(series, None), run(series, tmp_path / "cache")
    warm = run(series, tmp_path / "cache")
    assert cold.cost.bytes_read == plain.cost.bytes_read > 0
    assert warm.cost.bytes_read == 0
    assert "100% known" in warm.cost.note
    assert_equal(cold, plain)
    assert_equal(warm, plain)
    assert cache_file.read(only_file(tmp_path / "cache"))["pair"].height > 0


def test_the_second_analysis_does_not_even_open_a_file_for_its_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = run_of(tmp_path / "run", (1, 2, 5))
    run(series, tmp_path / "cache")

    def taken(path: str) -> object:
        raise AssertionError(path)

    monkeypatch.setattr("smdlens.motion.cache.fingerprint", taken)
    run(series, tmp_path / "cache")


def test_a_file_too_young_to_trust_its_times_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smdlens.motion.fingerprint._SETTLED_NS", 10**18)
    series = run_of(tmp_path / "run", (1, 2, 5))
    run(series, tmp_path / "cache")
    path = tmp_path / "run" / "step_5.bin"
    before = path.stat()
    path.write_bytes(bytes(reversed(path.read_bytes())))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert run(series, tmp_path / "cache").cost.bytes_read > 0


@pytest.mark.parametrize("new", [1, 4, 9])
def test_a_new_checkpoint_costs_itself_and_its_neighbours(tmp_path: Path, new: int) -> None:
    every = (1, 3, 4, 5, 6, 9)
    run(run_of(tmp_path / "run", tuple(s for s in every if s != new)), tmp_path / "cache")
    series = run_of(tmp_path / "run", every)
    plain = run(series, None)
    grown = run(series, tmp_path / "cache")
    neighbours = 2 if new in (1, 9) else 3
    statistics = 2 * 6 * 4  # two running variances tell that they are not frozen
    assert 0 < grown.cost.bytes_read <= plain.cost.bytes_read * neighbours / len(every) + statistics
    assert_equal(grown, plain)


def test_measurements_of_deleted_checkpoints_are_kept(tmp_path: Path) -> None:
    series = run_of(tmp_path / "run", (1, 2, 3, 4))
    whole = run(series, tmp_path / "cache")
    (tmp_path / "run" / "step_1.bin").rename(tmp_path / "away.bin")
    run(run_of(tmp_path / "run", (2, 3, 4, 5)), tmp_path / "cache")
    (tmp_path / "away.bin").rename(tmp_path / "run" / "step_1.bin")
    again = run(series, tmp_path / "cache")
    assert again.cost.bytes_read == 0
    assert_equal(again, whole)


def test_a_replaced_file_is_noticed(tmp_path: Path) -> None:
    series = run_of(tmp_path / "run", (1, 2, 3))
    run(series, tmp_path / "cache")
    changed = write_series(tmp_path / "run", [saved(1), saved(2, seed=77), saved(3)])
    new = run(changed, tmp_path / "cache")
    assert_equal(new, run(changed, None))
    assert new.cost.bytes_read > 0


def test_one_byte_in_the_middle_is_noticed(tmp_path: Path) -> None:
    series = run_of(tmp_path / "run", (1, 2, 3))
    run(series, tmp_path / "cache")
    path = tmp_path / "run" / "step_2.bin"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    assert_equal(run(series, tmp_path / "cache"), run(series, None))


@pytest.mark.parametrize(
    "hyper",
    [
        hyper_of(names=("conv.weight", "fc.weight"), momentum=0.8),
        hyper_of(names=("conv.weight", "fc.weight"), weight_decay=1e-3),
        hyper_of(names=("conv.weight", "fc.weight"), epsilon=1e-3),
    ],
)
def test_hyper_parameters_inside_the_sums_are_part_of_the_key(tmp_path: Path, hyper) -> None:
    series = run_of(tmp_path / "run", (1, 2, 3))
    run(series, tmp_path / "cache")
    assert_equal(run(series, tmp_path / "cache", hyper), run(series, None, hyper))


@pytest.mark.parametrize("change", [{"betas": (0.8, 0.99)}, {"eps": 1e-3}])
def test_adam_too(tmp_path: Path, change) -> None:
    entries = [saved(step) for step in (1, 2, 3)]
    for entry in entries:
        w = entry.tensors["conv.weight"]
        entry.slots = {"conv.weight": {"first_moment": w * 0.1, "second_moment": w * w}}
    (tmp_path / "run").mkdir()
    series = write_series(tmp_path / "run", entries)
    base = {"kind": OptimizerKind.ADAM, "names": ("conv.weight",), "betas": (0.9, 0.999)}
    first = run(series, tmp_path / "cache", hyper_of(**base))
    other = hyper_of(**{**base, **change})
    second = run(series, tmp_path / "cache", other)
    assert_equal(second, run(series, None, other))
    assert not second.snapshots.equals(first.snapshots)


def test_another_answer_of_the_graph_is_another_measurement(tmp_path: Path) -> None:
    series = run_of(tmp_path / "run", (1, 2, 3))
    run(series, tmp_path / "cache")
    other = groups_of(
        symmetry_of("conv.weight", SHAPE, axis=1), symmetry_of("fc.weight", (5, 7), clock=True)
    )
    assert_equal(run(series, tmp_path / "cache", groups=other), run(series, None, groups=other))


def test_another_kernel_is_another_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = run_of(tmp_path / "run", (1, 2, 3))
    cold = run(series, tmp_path / "cache")
    monkeypatch.setattr("smdlens.motion.row_keys.KERNELS", 1_000_000)
    warm = run(series, tmp_path / "cache")
    # Whether running variances are the same bytes, in three snapshots here, needs no kernel.
    assert warm.cost.bytes_read == cold.cost.bytes_read - 3 * 6 * 4


def test_steps_are_those_of_this_analysis(tmp_path: Path) -> None:
    run(run_of(tmp_path / "run", (1, 2, 3)), tmp_path / "cache")
    (tmp_path / "run2").mkdir()
    moved = write_series(tmp_path / "run", [saved(1), saved(2), saved(3)])
    renamed = SnapshotSeries(
        moved.path,
        tuple(
            type(s)(**{**{f: getattr(s, f) for f in s.__slots__}, "step": 100 * s.step})
            for s in moved.snapshots
        ),
        (),
    )
    hyper = hyper_of(names=(), momentum=None)
    assert run(renamed, tmp_path / "cache", hyper).snapshots["step"].unique().to_list() == [
        100,
        200,
        300,
    ]


def test_non_finite_snapshots_do_not_touch_what_is_known_of_others(tmp_path: Path) -> None:
    entries = [saved(step) for step in (1, 2, 3, 4)]
    (tmp_path / "run").mkdir()
    run(write_series(tmp_path / "run", entries[:3]), tmp_path / "cache")
    entries[3].tensors["conv.weight"][0, 0, 0] = float("nan")
    series = write_series(tmp_path / "run", entries)
    assert_equal(run(series, tmp_path / "cache"), run(series, None))


def test_a_large_tensor_is_cut_the_same_way_in_part_and_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smdlens.motion.device.CPU_BLOCK", 16)
    entries = [saved(step) for step in (1, 2, 3)]
    for entry in entries[:2]:  # the third is stored in another order: gathered, all of them
        entry.tensors["fc.weight"] = entry.tensors["fc.weight"].t().contiguous().t()
    (tmp_path / "run").mkdir()
    run(write_series(tmp_path / "run", entries[:2]), tmp_path / "cache")
    series = write_series(tmp_path / "run", entries)
    assert_equal(run(series, tmp_path / "cache"), run(series, None))


def broken(kind: str, content: bytes) -> bytes:
    if kind == "cut":
        return content[: len(content) // 2]
    if kind == "text":
        return b"not a parquet file"
    return {"empty": b""}[kind]


@pytest.mark.parametrize("kind", ["cut", "text", "empty"])
def test_a_broken_cache_is_rebuilt(tmp_path: Path, kind: str) -> None:
    series = run_of(tmp_path / "run", (1, 2, 3))
    cold = run(series, tmp_path / "cache")
    path = only_file(tmp_path / "cache")
    path.write_bytes(broken(kind, path.read_bytes()))
    again = run(series, tmp_path / "cache")
    assert again.cost.bytes_read == cold.cost.bytes_read
    assert_equal(again, cold)
    assert run(series, tmp_path / "cache").cost.bytes_read == 0


def test_a_cache_with_other_numbers_or_columns_is_not_believed(tmp_path: Path) -> None:
    series = run_of(tmp_path / "run", (1, 2, 3))
    cold = run(series, tmp_path / "cache")
    path = only_file(tmp_path / "cache")
    tables = cache_file.read(path)
    pairs = tables["pair"]
    whole, doubled = (
        b"".join(cache_file.packed(tables | {"pair": table}))
        for table in (pairs, pairs.with_columns(pl.col("chord2") * 2))
    )
    foreign = [
        pairs.drop("chord2"),
        pairs.rename({"chord2": "chord3"}),
        pairs.with_columns(pl.col("chord2").cast(pl.Float32)),
        pl.DataFrame({"a": [1]}),
    ]
    for content in (
        whole[:32] + doubled[32:],
        whole[32:],
        whole[:-1],
        *(b"".join(cache_file.packed(tables | {"pair": table})) for table in foreign),
    ):
        assert content != whole
        path.write_bytes(content)
        again = run(series, tmp_path / "cache")
        assert again.cost.bytes_read == cold.cost.bytes_read
        assert_equal(again, cold)


def test_flipped_bytes_never_change_a_number(tmp_path: Path) -> None:
    """In a process of its own: a parser that panics says so on stderr."""
    series = run_of(tmp_path / "run", (1, 2, 3))
    run(series, tmp_path / "cache")
    path = only_file(tmp_path / "cache")
    program = f"""
import random, sys
from pathlib import Path
from smdlens.motion import cache_file
path = Path({str(path)!r})
whole = path.read_bytes()
right = cache_file.read(path)
assert right["pair"].height > 0
random.seed(1)
for _ in range(150):
    content = bytearray(whole)
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)
    found = cache_file.read(path)
    assert all(table.is_empty() or table.equals(right[kind]) for kind, table in found.items())
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=120)


def test_two_processes_at_once_lose_nothing(tmp_path: Path) -> None:
    one, two = run_of(tmp_path / "run", (1, 2, 3)), run_of(tmp_path / "run", (3, 4, 5))
    first, second = open_cache(one, tmp_path / "cache"), open_cache(two, tmp_path / "cache")
    measure(one, GROUPS, HYPER, device="cpu", workers=1, cache=first)
    measure(two, GROUPS, HYPER, device="cpu", workers=1, cache=second)
    assert run(one, tmp_path / "cache").cost.bytes_read == 0
    assert run(two, tmp_path / "cache").cost.bytes_read == 0


def test_the_cache_never_lies_in_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series = run_of(tmp_path / "run", (1, 2, 3))
    with pytest.raises(InputError, match="inside the run"):
        open_cache(series, tmp_path / "run" / "cache")
    monkeypatch.setenv("SMDLENS_CACHE", str(tmp_path / "run" / "cache"))
    assert open_cache(series) is None


def test_where_the_cache_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMDLENS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    if sys.platform == "darwin":
        assert cache_file.default_folder() == tmp_path / "home/Library/Caches/smdlens"
    else:
        assert cache_file.default_folder() == tmp_path / "xdg" / "smdlens"
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")
        assert cache_file.default_folder() == tmp_path / "home" / ".cache" / "smdlens"
    monkeypatch.setenv("SMDLENS_CACHE", str(tmp_path / "own"))
    assert cache_file.default_folder() == tmp_path / "own"


def test_a_cache_that_cannot_be_written_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = run_of(tmp_path / "run", (1, 2, 3))
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SMDLENS_CACHE", str(tmp_path / "file" / "cache"))
    motion = measure(series, GROUPS, HYPER, device="cpu", workers=1, cache=open_cache(series))
    assert_equal(motion, run(series, None))
    assert "could not be" in motion.cost.note
    with pytest.raises(InputError, match="--cache-dir"):
        open_cache(series, tmp_path / "file" / "cache")
