"""A trainer that saves, rotates and dies beside us: no torn read, no step twice."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from smdlens.errors import NothingToAnalyseError, SnapshotChangedError
from smdlens.snapshots import open_series
from smdlens.snapshots.readers import read_checkpoint
from smdlens.vocabulary import SkipReason

TRAINER = r"""
import os, random, sys, zipfile
folder, content = sys.argv[1], open(sys.argv[2], "rb").read()
draw = random.Random(5)
for step in range(1, 10**6):
    name = os.path.join(folder, f"ckpt_{step}.pt")
    if draw.random() < 0.2:  # dies while writing, and is started again
        with open(name, "wb") as file:
            file.write(content[: draw.randrange(len(content))])
    elif draw.random() < 0.5:  # writes in place, slowly
        with open(name, "wb") as file:
            for at in range(0, len(content), 4096):
                file.write(content[at : at + 4096])
                file.flush()
    else:
        with open(name + ".tmp", "wb") as file:
            file.write(content)
        os.replace(name + ".tmp", name)
    old = os.path.join(folder, f"ckpt_{step - 30}.pt")
    if os.path.exists(old):
        os.unlink(old)
"""


def test_a_run_that_is_still_being_written(tmp_path: Path) -> None:
    whole = tmp_path / "whole.bin"
    torch.save({"model": {"w": torch.arange(6000.0).reshape(60, 100)}}, whole)
    size = whole.stat().st_size
    run = tmp_path / "run"
    run.mkdir()
    trainer = subprocess.Popen([sys.executable, "-c", TRAINER, str(run), str(whole)])
    try:
        looked = usable = 0
        end = time.monotonic() + 6
        while time.monotonic() < end or usable < 5:
            assert time.monotonic() < end + 60 and trainer.poll() is None
            try:
                series = open_series(run)
            except NothingToAnalyseError:
                continue
            looked += 1
            usable += len(series.snapshots)
            assert list(series.steps) == sorted(set(series.steps))
            for snapshot in series.snapshots:
                (extent,) = snapshot.tensors["w"].extents
                assert extent.nbytes == 24_000 and extent.offset + extent.nbytes <= size
            allowed = {SkipReason.UNFINISHED, SkipReason.UNREADABLE}
            assert {s.reason for s in series.skipped} <= allowed
    finally:
        trainer.kill()
        trainer.wait()
    assert looked > 0


def test_a_file_that_changes_under_the_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ckpt_1.pt"
    torch.save({"model": {"w": torch.ones(50)}}, path)
    pread = os.pread

    def touching(fd: int, n: int, offset: int) -> bytes:
        data = pread(fd, n, offset)
        os.utime(path, ns=(0, time.time_ns()))
        return data

    monkeypatch.setattr(os, "pread", touching)
    with pytest.raises(SnapshotChangedError, match="Wait until the trainer"):
        read_checkpoint(path)


def test_inputs_are_never_modified(tmp_path: Path) -> None:
    for step in (1, 2):
        torch.save({"model": {"w": torch.ones(50) * step}}, tmp_path / f"ckpt_{step}.pt")
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.iterdir()}
    open_series(tmp_path)
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.iterdir()} == before
