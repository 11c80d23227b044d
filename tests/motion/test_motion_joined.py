"""Small tensors measured as one block have the sums each has on its own."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from motion_helpers import Saved, groups_of, hyper_of, symmetry_of, write_series
from test_motion_engine import assert_same
from test_motion_measure import walk

from smdlens.motion import batches as batches_module
from smdlens.motion.batches import batches, join
from smdlens.motion.engine import measure
from smdlens.motion.layout import Layout
from smdlens.motion.plan import SnapshotSources, TensorPlan
from smdlens.motion.select import select
from smdlens.snapshots.records import Extent, SnapshotSeries, TensorRef
from smdlens.symmetry.records import ScaleGroups
from smdlens.vocabulary import OptimizerKind

SHAPES = [(4, 4), (8, 3, 3, 3), (8, 27), (5, 1), (3, 2500), (40, 60), (1, 7), (2, 2), (6, 50)]
SGD = hyper_of(names=[f"t{k}" for k in range(len(SHAPES))])
ADAM = hyper_of(kind=OptimizerKind.ADAM, momentum=None, betas=(0.9, 0.999))


def run_of(folder: Path, slots: tuple[str, ...]) -> tuple[SnapshotSeries, ScaleGroups]:
    """Three consecutive steps; in one tensor something is not finite, one does not move."""
    walks = {f"t{k}": walk(shape, 3, k) for k, shape in enumerate(SHAPES)}
    walks["t5"][1][3, 4] = math.nan
    walks["t8"] = walks["t8"][:1] * 3
    saved = [
        Saved(
            step + 1,
            {name: ws[step] for name, ws in walks.items()},
            {name: {s: ws[step].abs() + 0.1 for s in slots} for name, ws in walks.items()},
        )
        for step in range(3)
    ]
    groups = groups_of(*(symmetry_of(f"t{k}", s) for k, s in enumerate(SHAPES)))
    return write_series(folder, saved), groups


@pytest.mark.parametrize("slots", [(), ("momentum",), ("first_moment", "second_moment")])
def test_joined_or_alone_is_the_same(
    tmp_path: Path, slots: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    series, groups = run_of(tmp_path, slots)
    hyper = ADAM if len(slots) == 2 else SGD
    joined = measure(series, groups, hyper, device="cpu")
    monkeypatch.setattr(batches_module, "SMALL_TENSOR", 0)
    assert_same(measure(series, groups, hyper, device="cpu"), joined, 1e-13)


def joined_tensors(plans: list[TensorPlan], block: int = 1 << 16) -> list[tuple[int, ...]]:
    return [task.tensors for batch in batches(plans, block) for task in batch]


def test_what_is_joined(tmp_path: Path) -> None:
    series, groups = run_of(tmp_path, ())
    plans = [each.plan for each in select(series, groups, SGD)]
    assert joined_tensors(plans) == [tuple(range(len(SHAPES)))]
    # A block holds as many elements as any other, and tensors of one kind.
    assert joined_tensors(plans, 2600) == [(0, 1, 2, 3), (4,), (5, 6, 7), (8,)]
    other = plans[2].window(0, 1)
    assert joined_tensors([*plans[:2], other, *plans[3:]])[:3] == [(0, 1), (2,), tuple(range(3, 9))]


def test_many_snapshots_make_smaller_blocks_and_no_other_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their weights are kept until a block's end: memory would grow with the snapshots."""
    series, groups = run_of(tmp_path, ())
    plans = [each.plan for each in select(series, groups, SGD)]
    whole = measure(series, groups, SGD, device="cpu")
    monkeypatch.setattr(batches_module, "JOINED_WEIGHTS", 3 * 2600)
    monkeypatch.setattr("smdlens.motion.rounding._AT_ONCE", 1)
    assert joined_tensors(plans) == [(0, 1, 2, 3), (4,), (5, 6, 7), (8,)]
    small = measure(series, groups, SGD, device="cpu")
    assert small.snapshots.equals(whole.snapshots)
    assert small.pairs.equals(whole.pairs)


def test_rows_made_one_tensor_at_a_time_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series, groups = run_of(tmp_path, ("momentum",))
    whole = measure(series, groups, SGD, device="cpu")
    monkeypatch.setattr("smdlens.motion.row_maker._ROWS", 1)
    monkeypatch.setattr("smdlens.motion.tables._LOOSE_ROWS", 1)
    apart = measure(series, groups, SGD, device="cpu")
    assert apart.snapshots.equals(whole.snapshots)
    assert apart.pairs.equals(whole.pairs)


def test_ranges_that_meet_in_a_file_become_one() -> None:
    def plan(*extents: Extent) -> TensorPlan:
        sources = SnapshotSources(TensorRef("w", (4,), "float32", extents))
        return TensorPlan("w", Layout(1, 2, 2), False, (sources,), ())

    pieces = [Extent("a", 16, 8), Extent("a", 24, 8)], [Extent("a", 32, 16)], [Extent("b", 48, 16)]
    joined = join([plan(*each) for each in pieces])
    expected = Extent("a", 16, 32), Extent("b", 48, 16)
    assert joined.snapshots[0].weights.extents == expected
    assert joined.joined is not None
    assert joined.joined.owners == (0, 2, 4)
    assert joined.nbytes == 48
