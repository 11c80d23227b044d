"""Time and peak memory of runs at the edges: `python tests/bench/scale.py [--folder DIR]`.

Sparse safetensors files, which take no space on disk: what is measured is the engine, not the
disk. Each run is a process of its own; peak memory is over the bare interpreter with torch.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

# name: snapshots, tensors, shape of each, with a cache (and then a second time)
RUNS: dict[str, tuple[int, int, tuple[int, ...], bool]] = {
    "one tensor of 10^9 elements, 2 snapshots": (2, 1, (25_000, 40_000), False),
    "a 20 GB model, 4 snapshots": (4, 100, (5_000, 10_000), False),
    "1000 snapshots of a model of 1 MB": (1000, 16, (128, 128), False),
    "the same with an empty cache": (1000, 16, (128, 128), True),
    "1000 snapshots of 300 tensors of 16 elements": (1000, 300, (4, 4), False),
    "100,000 tensors of 16 elements, 4 snapshots": (4, 100_000, (4, 4), False),
    "the same, cached": (4, 100_000, (4, 4), True),
}

PROGRAM = """
import json, resource, sys, time
import torch, polars
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
from pathlib import Path
import smdlens
from smdlens.hyper.resolve import resolve_hyper_parameters
from smdlens.motion.cache import open_cache
from smdlens.motion.engine import measure
from smdlens.options import gather_options
from smdlens.symmetry.records import ScaleGroups, TensorSymmetry
from smdlens.vocabulary import Granularity, Role

folder, cached = sys.argv[1], json.loads(sys.argv[2])
start = time.perf_counter()
series = smdlens.open_series(folder)
hyper = resolve_hyper_parameters(series, gather_options(None).declared)
groups = ScaleGroups({
    n: TensorSymmetry(name=n, shape=r.shape, dtype=r.dtype, role=Role.SCALE_INVARIANT,
                      granularity=Granularity.CHANNEL, axis=0, groups=r.shape[0], evidence=())
    for n, r in series.snapshots[0].tensors.items()
}, "declared")
opened = time.perf_counter() - start
start = time.perf_counter()
cache = open_cache(series, Path(folder).parent / "cache") if cached else None
motion = measure(series, groups, hyper, device="cpu", workers=2, cache=cache)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
# A worker process shares the interpreter with its parent; counted is what is over that.
worker = max(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss - base, 0)
print(json.dumps([opened, seconds, motion.cost.bytes_read, (peak - base) / 1024, worker / 1024]))
"""


def write(folder: Path, snapshots: int, tensors: int, shape: tuple[int, ...]) -> None:
    """Safetensors files of zeros that are holes, but for the first 64 KiB."""
    size = 4
    for n in shape:
        size *= n
    header = json.dumps({
        f"layer{i}.weight": {
            "dtype": "F32", "shape": list(shape), "data_offsets": [i * size, (i + 1) * size]
        }
        for i in range(tensors)
    }).encode()  # fmt: skip
    header += b" " * (-len(header) % 8)
    for k in range(snapshots):
        with (folder / f"model-step{k + 1}.safetensors").open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.write(bytes(range(64)) * min(1024, tensors * size // 64))
            file.truncate(8 + len(header) + tensors * size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", default=None)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    for name, (snapshots, tensors, shape, cached) in RUNS.items():
        if options.only not in name:
            continue
        with tempfile.TemporaryDirectory(dir=options.folder) as place:
            folder = Path(place, "run")
            folder.mkdir()
            write(folder, snapshots, tensors, shape)
            lines = [
                subprocess.run(
                    [sys.executable, "-c", PROGRAM, str(folder), json.dumps(cached)],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
                for _ in range(2 if cached else 1)
            ]
        for line in lines:
            opened, seconds, nbytes, peak, worker = json.loads(line)
            print(
                f"{name:45s} open {opened:6.1f} s, measure {seconds:6.1f} s, "
                f"{nbytes / 1e9:7.2f} GB read, peak {peak:6.0f} MB, "
                f"and a worker {worker:4.0f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
