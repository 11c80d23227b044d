"""Keras, TensorFlow and Orbax checkpoints are read with no framework in reach, and nothing runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

GOLDEN = Path(__file__).parent.parent / "golden"
CHECKPOINTS = [
    "keras/sgd/model-6.h5", "keras/sgd/model-6.keras", "keras/sgd/w-6.weights.h5",
    "keras/tf_legacy/legacy_weights-3.h5", "keras/tf_sgd/saved_3", "keras/tf_sgd/ckpt-3.index",
    "orbax/ocdbt_zarr2/checkpoint_4", "orbax/zarr3/checkpoint_2", "orbax/manager/4",
    "orbax/sharded/checkpoint_2", "flax/sgd_4", "hdf5/v108.h5",
]  # fmt: skip

# Imports of a framework, processes, connections and files opened for writing end the run.
SCRIPT = """
import os, sys
FORBIDDEN = {"tensorflow", "keras", "tf_keras", "h5py", "jax", "jaxlib", "flax", "optax", "orbax",
             "tensorstore", "zarr", "msgpack", "google", "torch", "numpy", "polars"}
events = []
from smdlens.errors import SnapshotError
from smdlens.snapshots import open_snapshot
import zstandard

def hook(event, arguments):
    if event == "import" and arguments[0].partition(".")[0] in FORBIDDEN:
        events.append((event, arguments[0]))
    elif event == "open":
        path, mode, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        if writes or not str(path).startswith(ROOT):
            events.append((event, str(path)))
    elif event.partition(".")[0] in ("subprocess", "socket", "ctypes") or event in (
        "exec", "compile", "os.system", "os.exec", "os.posix_spawn", "os.remove", "os.rename"):
        events.append((event, ""))

ROOT, *paths = sys.argv[1:]
for path in paths:  # once before: what smdlens itself imports late
    try:
        open_snapshot(path)
    except SnapshotError:
        pass
before = set(sys.modules)
assert not before & FORBIDDEN, before & FORBIDDEN
sys.addaudithook(hook)
read = refused = 0
for path in paths:
    try:
        read += len(open_snapshot(path).tensors) > 0
    except SnapshotError:
        refused += 1
print(read, refused, sorted(set(sys.modules) - before), events)
"""


def _run(paths: list[str]) -> str:
    command = [sys.executable, "-c", SCRIPT, str(GOLDEN), *paths]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_no_framework_and_no_event() -> None:
    paths = [str(GOLDEN / name) for name in CHECKPOINTS]
    assert _run(paths) == f"{len(paths)} 0 [] []\n"


def test_hostile_files_open_no_other_file() -> None:
    paths = [str(path) for path in sorted((GOLDEN / "hdf5").glob("hostile_*.h5"))]
    assert len(paths) == 12
    assert _run(paths) == f"0 {len(paths)} [] []\n"
