"""A plan runs anywhere: in another process, in blocks of any size, on the CPU for want of a GPU."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from motion_helpers import Saved, groups_of, symmetry_of, write_series
from test_motion_joined import SGD, run_of
from test_motion_measure import walk

from smdlens.motion import walk as walk_module
from smdlens.motion.batches import TASK_BYTES, TENSOR_BYTES, batches
from smdlens.motion.files import FilePool
from smdlens.motion.panel import Panel
from smdlens.motion.plan import Task
from smdlens.motion.select import select
from smdlens.motion.sums import TaskSums, TensorSums
from smdlens.motion.walk import run_task
from smdlens.motion.workspace import Workspace

CPU = torch.device("cpu")


def run_here(batch: tuple[Task, ...]) -> list[TaskSums]:
    with FilePool() as pool:
        space = Workspace(pool, CPU)
        return [run_task(task, space) for task in batch]


def assert_same(a: TensorSums, b: TensorSums, rel: float) -> None:
    for name in ("w2", "snapshot", "pair", "s_range"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=rel)
    for ours, theirs in zip(
        (a.chord.total_chord2(), a.chord.dot().sum(-1)),
        (b.chord.total_chord2(), b.chord.dot().sum(-1)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=rel)


def test_a_spawned_process_has_the_same_numbers(tmp_path: Path) -> None:
    """What a cluster needs: batches go out as bytes, sums come back as bytes, no bit differs."""
    series, groups = run_of(tmp_path, ("momentum",))
    plans = [each.plan for each in select(series, groups, SGD)]
    jobs = list(batches(plans, 2600))
    assert pickle.loads(pickle.dumps(jobs)) == jobs
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        there = list(executor.map(run_here, jobs))
    for ours, theirs in zip(map(run_here, jobs), there, strict=True):
        for left, right in zip(ours, theirs, strict=True):
            assert (left.channel, left.clock) == (right.channel, right.clock)
            assert_same(left.sums, right.sums, rel=0)


def test_no_batch_holds_the_rows_of_very_many_tensors(tmp_path: Path) -> None:
    """However few bytes they have: rows wait in memory until a batch is done."""
    names = [f"w{i}" for i in range(100)]
    saved = [Saved(k, dict.fromkeys(names, torch.ones(4, 4))) for k in range(2)]
    groups = groups_of(*(symmetry_of(name, (4, 4)) for name in names))
    plans = [each.plan for each in select(write_series(tmp_path, saved), groups, SGD)]
    sizes = [sum(len(task.tensors) for task in batch) for batch in batches(plans, 64)]
    assert sum(sizes) == len(names)
    assert max(sizes) <= TASK_BYTES // TENSOR_BYTES


class SmallDevice(Workspace):
    """A device with room for blocks of `room` elements, and a CPU beside it."""

    room = 0

    def on_cpu(self) -> Workspace:
        if self._beside is None:
            self._beside = Workspace(self._pool, CPU, self._notes)
        return self._beside


@pytest.mark.parametrize(
    ("room", "note"),
    [
        (1 << 17, "smaller blocks, for want of GPU memory"),
        (50, "on the CPU from where GPU memory ran out"),
    ],
)
def test_what_does_not_fit_a_gpu_is_halved_then_left_to_the_cpu(
    tmp_path: Path, room: int, note: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = (3, 250_000)
    ws = walk(shape, 3, 1)
    series = write_series(tmp_path, [Saved(k, {"w": w}) for k, w in enumerate(ws)])
    plan = select(series, groups_of(symmetry_of("w", shape)), SGD)[0].plan
    task = Task((0,), plan, tuple(plan.blocks(1 << 20)))
    (expected,) = run_here((task,))
    measure, sizes = Panel.measure, []

    def limited(self: Panel) -> TensorSums:
        if isinstance(self._space, SmallDevice):
            if self._blocks[0].size > room:
                raise torch.OutOfMemoryError("CUDA out of memory")
            sizes.append(self._blocks[0].size)
        return measure(self)

    monkeypatch.setattr(walk_module.Panel, "measure", limited)
    notes: set[str] = set()
    with FilePool() as pool:
        space = SmallDevice(pool, CPU, notes)
        got = run_task(task, space)
        again = run_task(task, space)
    assert_same(got.sums, expected.sums, rel=1e-12)
    assert_same(again.sums, got.sums, rel=0)
    assert note in notes
    assert bool(sizes) is (room > 50)
    assert all(size <= room for size in sizes)
