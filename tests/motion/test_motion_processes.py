"""Worker processes: the same bits, the same errors, and no harm where one is lost."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import polars as pl
import pytest
import torch
from motion_helpers import Saved, groups_of, hyper_of, symmetry_of, write_series
from test_motion_measure import walk

from smdlens.errors import SnapshotTruncatedError
from smdlens.motion import device as device_module
from smdlens.motion import walk as walk_module
from smdlens.motion import workers as workers_module
from smdlens.motion.engine import measure
from smdlens.motion.panel import Panel
from smdlens.motion.processes import can_fork
from smdlens.motion.records import Motion
from smdlens.motion.sums import TensorSums
from smdlens.snapshots.records import SnapshotSeries

pytestmark = pytest.mark.skipif(not can_fork(), reason="this system has no fork: threads are used")
SHAPES = [(16, 8, 3, 3), (40, 300), (7, 500), (5, 5), (3, 3)] * 3


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "CPU_BLOCK", 97)
    monkeypatch.setattr(workers_module, "WORTH_PROCESSES", 1)


@pytest.fixture
def series(tmp_path: Path) -> SnapshotSeries:
    walks = [walk(shape, 4, i) for i, shape in enumerate(SHAPES)]
    saved = [Saved(i, {f"t{k}": w[i] for k, w in enumerate(walks)}) for i in range(4)]
    return write_series(tmp_path, saved)


def run(series: SnapshotSeries, workers: int, *, all_pairs: bool = False) -> Motion:
    groups = groups_of(*(symmetry_of(f"t{k}", s) for k, s in enumerate(SHAPES)))
    return measure(series, groups, hyper_of(), device="cpu", workers=workers, all_pairs=all_pairs)


def test_processes_do_not_change_a_bit(series: SnapshotSeries) -> None:
    """All that is measured, and what it cost in bytes, is that of one worker."""
    alone, several = run(series, 1, all_pairs=True), run(series, 3, all_pairs=True)
    assert several.snapshots.equals(alone.snapshots)
    assert several.pairs.equals(alone.pairs)
    assert several.angles is not None and several.angles.equals(alone.angles)
    assert several.cost.bytes_read == alone.cost.bytes_read > 0
    assert several.cost.note == alone.cost.note == ""
    for motion in (alone, several):
        assert 0.0 < motion.cost.share_of_limit < 1.0
    assert not multiprocessing.active_children()


def test_what_is_wrong_with_a_file_is_said_by_its_own_error(series: SnapshotSeries) -> None:
    path = Path(series.path, "step_2.bin")
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(SnapshotTruncatedError, match=r"step_2\.bin.*expected \d+ bytes"):
        run(series, 2)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("killed", [0, 2])
def test_a_killed_worker_costs_time_and_nothing_else(
    series: SnapshotSeries, monkeypatch: pytest.MonkeyPatch, killed: int
) -> None:
    """As the system kills for want of memory: the rest is done in this process, bit for bit."""
    expected = run(series, 1)
    measure_panel, parent, calls = Panel.measure, os.getpid(), []

    def fatal(self: Panel) -> TensorSums:
        calls.append(None)
        if os.getpid() != parent and len(calls) > killed:
            os.kill(os.getpid(), signal.SIGKILL)
        return measure_panel(self)

    monkeypatch.setattr(walk_module.Panel, "measure", fatal)
    got = run(series, 2)
    assert got.snapshots.equals(expected.snapshots)
    assert got.pairs.equals(expected.pairs)
    assert "a worker process was lost" in got.cost.note


def test_where_no_process_may_start_threads_do(
    series: SnapshotSeries, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(series, 1)

    def refused() -> int:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(os, "fork", refused)
    got = run(series, 2)
    assert got.pairs.equals(expected.pairs)
    assert "finished with one worker" in got.cost.note


def test_a_daemon_which_may_have_no_children_forks_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_fork()
    monkeypatch.setattr(multiprocessing.current_process(), "_config", {"daemon": True})
    assert not can_fork()


def test_threads_used_before_do_not_stop_a_forked_worker(series: SnapshotSeries) -> None:
    """Torch's and polars' threads exist in this process and not in the forked ones."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        big = torch.ones(600, 600, dtype=torch.float64)
        assert float((big @ big).sum()) == 600.0**3
        assert pl.DataFrame({"a": range(100_000)}).select(pl.col("a").sort().sum()).item() > 0
        expected = run(series, 1, all_pairs=True)
        got = run(series, 2, all_pairs=True)
    finally:
        torch.set_num_threads(before)
    assert got.pairs.equals(expected.pairs)
    assert got.angles is not None and got.angles.equals(expected.angles)
    assert got.cost.note == ""


ORPHANS = """
    import os, sys, time
    from functools import partial
    from smdlens.motion.files import FilePool
    from smdlens.motion.processes import in_order_by_processes

    def work(job, space):
        print(os.getpid(), flush=True)
        time.sleep(0.05)

    with FilePool() as pool:
        list(in_order_by_processes(partial(range, 10_000), work, 2, pool, set()))
"""


def _runs(pid: int) -> bool:
    """Whether a process is there and no zombie that nobody has asked about."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_workers_do_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(textwrap.dedent(ORPHANS))
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers: set[int] = set()
    while len(workers) < 2:
        workers.add(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    until = time.monotonic() + 20
    left = workers
    while left and time.monotonic() < until:
        time.sleep(0.05)
        left = {pid for pid in workers if _runs(pid)}
    assert not left
    parent.stdout.close()
