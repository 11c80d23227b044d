"""Peak memory does not grow with the number of snapshots or the size of a tensor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import json, resource, sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from motion_helpers import Saved, groups_of, hyper_of, symmetry_of, write_series
from smdlens.motion.engine import measure
from smdlens.snapshots.records import Extent, Snapshot, SnapshotSeries, TensorRef

def peak():
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

def snapshot(step, path, shapes):
    refs, at = {}, 0
    for i, shape in enumerate(shapes):
        size = 4 * torch.Size(shape).numel()
        refs[f"w{i}"] = TensorRef(f"w{i}", shape, "float32", (Extent(path, at, size),))
        at += size
    return Snapshot(step, None, "", (path,), "raw", refs, "", "", (), None)

def run(path, shapes, count):
    series = SnapshotSeries("run", tuple(snapshot(i, path, shapes) for i in range(count)), ())
    groups = groups_of(*(symmetry_of(f"w{i}", s) for i, s in enumerate(shapes)))
    return measure(series, groups, hyper_of(), device="cpu", workers=2)

path, shapes, count = sys.argv[2], [tuple(s) for s in json.loads(sys.argv[3])], int(sys.argv[4])
with tempfile.TemporaryDirectory() as folder:  # what any measurement needs once
    small = str(Path(folder, "small"))
    Path(small).write_bytes(torch.randn(4, 4).numpy().tobytes())
    run(small, [(4, 4)], 2)
base = peak()
motion = run(path, shapes, count)
assert motion.pairs.height == len(shapes) * (count - 1)
print(base, peak())
"""


def peak_bytes(path: Path, shapes: list[tuple[int, ...]], count: int) -> tuple[int, int]:
    """Peak resident memory before and after measuring `count` snapshots, in a fresh process."""
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": str(here.parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(here), str(path), json.dumps(shapes), str(count)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        timeout=300,
    )
    base, peak = map(int, done.stdout.split())
    return base, peak


def test_64_snapshots_cost_what_4_do(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    shapes: list[tuple[int, ...]] = [(256, 128, 3, 3), (512, 1024), (64, 64, 3, 3)]
    size = 4 * (256 * 128 * 9 + 512 * 1024 + 64 * 64 * 9)
    path.write_bytes(os.urandom(1 << 20) * (size // (1 << 20) + 1))
    few = peak_bytes(path, shapes, 4)[1]
    many = peak_bytes(path, shapes, 64)[1]
    assert many < 1.1 * few


def test_a_tensor_of_400_mb_fits(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    shape = (10_000, 10_000)
    with path.open("wb") as file:
        file.write(os.urandom(1 << 20))
        file.truncate(4 * shape[0] * shape[1])
    base, peak = peak_bytes(path, [shape], 2)
    assert peak - base < 512 << 20
