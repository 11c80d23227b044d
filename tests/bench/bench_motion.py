"""Throughput of `measure`, as a ratio to `cat` of the same files in the page cache.

    python tests/bench/bench_motion.py [--dtype float32] [--snapshots 6] [--megabytes 200]

Prints bytes per second for one and two workers, with and without per-channel sums, and the ratio
to `cat`; ratios, not seconds, travel between machines.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "motion"))

from motion_helpers import groups_of, hyper_of, symmetry_of

from smdlens import open_series
from smdlens.motion.engine import measure
from smdlens.snapshots.records import SnapshotSeries

RESNET_LIKE = ((64, 3, 7, 7), (64, 64, 3, 3), (256, 64, 1, 1), (512, 512, 3, 3), (2048, 512, 1, 1))


def series_of(
    folder: Path, dtype: torch.dtype, snapshots: int, megabytes: int, move: float = 0.01
) -> SnapshotSeries:
    """Safetensors files of random weights in the shapes of a residual network, repeated up to the
    wanted size.

    `move` is about the angle in radians between neighbours.
    """
    generator = torch.Generator().manual_seed(0)
    shapes = []
    size = 0
    while size < megabytes << 20:
        shapes.append(RESNET_LIKE[len(shapes) % len(RESNET_LIKE)])
        size += torch.Size(shapes[-1]).numel() * torch.empty(0, dtype=dtype).element_size()
    base = {f"w{i}": torch.randn(s, generator=generator) for i, s in enumerate(shapes)}
    for k in range(snapshots):
        moved = {n: (w + move * k * w.roll(1)).to(dtype) for n, w in base.items()}
        save_file(moved, str(folder / f"model-step{100 * k}.safetensors"))
    return open_series(folder)


def seconds_of_cat(folder: Path) -> float:
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        with Path("/dev/null").open("wb") as sink:
            subprocess.run(["cat", *map(str, sorted(folder.iterdir()))], stdout=sink, check=True)
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--snapshots", type=int, default=6)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", default=None)
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        series = series_of(folder, dtype, options.snapshots, options.megabytes)
        total = sum(p.stat().st_size for p in folder.iterdir())
        refs = series.snapshots[0].tensors.items()
        seconds_of_cat(folder)
        for label, groups in (
            ("per channel", groups_of(*(symmetry_of(n, r.shape) for n, r in refs))),
            ("whole tensor", groups_of(*(symmetry_of(n, r.shape, axis=None) for n, r in refs))),
        ):
            for workers in (1, 2):
                best = cpu = float("inf")
                cat = seconds_of_cat(folder)
                for _ in range(3):
                    start, used = time.perf_counter(), time.process_time()
                    measure(series, groups, hyper_of(), device=options.device, workers=workers)
                    best = min(best, time.perf_counter() - start)
                    cpu = min(cpu, time.process_time() - used)
                cat = min(cat, seconds_of_cat(folder))
                print(
                    f"{options.dtype} {label:12s} workers={workers}: "
                    f"{total / best / 1e9:5.2f} GB/s, {total / cpu / 1e9:.2f} GB per CPU second, "
                    f"{cat / best:.3f} of cat ({total / cat / 1e9:.1f} GB/s)"
                )


if __name__ == "__main__":
    main()
