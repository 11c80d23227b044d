"""All benchmarks of the engine, as ratios measured side by side: `python tests/bench`.

    python tests/bench [--megabytes 96] [--snapshots 8] [--rounds 7] [--json FILE] [--plot FILE]

Each ratio compares two programs that run in turns on the same files, so a busy machine slows both;
the median over the rounds is what counts. Seconds are not comparable between machines, ratios are.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "motion")]

from bench_motion import series_of  # noqa: E402
from motion_helpers import groups_of, hyper_of, symmetry_of  # noqa: E402

from smdlens.motion.cache import open_cache  # noqa: E402
from smdlens.motion.engine import measure  # noqa: E402
from smdlens.snapshots.records import SnapshotSeries  # noqa: E402

Run = Callable[[], object]


def cat(paths: list[Path]) -> None:
    with Path(os.devnull).open("wb") as sink:
        subprocess.run(["cat", *map(str, paths)], stdout=sink, check=True)


def float32_script(series: SnapshotSeries) -> list[float]:
    """What a user would write: load both files, cosine_similarity of every tensor in float32."""
    from smdlens.motion.tensors import load

    angles = []
    for before, after in zip(series.snapshots[:-1], series.snapshots[1:], strict=True):
        a, b = ({n: load(r) for n, r in s.tensors.items()} for s in (before, after))
        angles += [
            float(torch.nn.functional.cosine_similarity(
                a[n].float().flatten(), b[n].float().flatten(), dim=0
            ).arccos())
            for n in a
        ]  # fmt: skip
    return angles


def evict(paths: list[Path]) -> None:
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def seconds(run: Run, before: Run | None = None) -> float:
    if before is not None:
        before()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def ratio(reference: Run, ours: Run, rounds: int, before: Run | None = None) -> list[float]:
    """How many times as fast as the reference, per round, in turns."""
    return [seconds(reference, before) / seconds(ours, before) for _ in range(rounds)]


def measured(series: SnapshotSeries, workers: int, **more: object) -> Run:
    refs = series.snapshots[0].tensors.items()
    groups = groups_of(*(symmetry_of(n, r.shape) for n, r in refs))
    device = more.pop("device", "cpu")
    return lambda: measure(
        series,
        groups,
        hyper_of(),
        device=device,
        workers=workers,
        **more,  # type: ignore[arg-type]
    )


def started() -> float:
    """Start-up to the first byte over `import torch`: interpreter, imports, options."""
    ours = "import smdlens, smdlens.motion.engine, smdlens.diagnosis.diagnose, smdlens.report.build"
    runs = {
        name: [
            seconds(lambda: subprocess.run([sys.executable, "-c", program], check=True))
            for _ in range(5)
        ]
        for name, program in (("torch", "import torch"), ("ours", ours))
    }
    return statistics.median(runs["ours"]) / statistics.median(runs["torch"])


def bench(options: argparse.Namespace) -> dict[str, list[float]]:
    results: dict[str, list[float]] = {}

    def note(name: str, values: list[float]) -> None:
        results[name] = values
        spread = f"{min(values):.3f} to {max(values):.3f}"
        print(f"{name:58s} {statistics.median(values):7.3f}   ({spread})", flush=True)

    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        for dtype in ("float32", "bfloat16"):
            for move in (0.01, 0.1):
                folder = Path(place, f"{dtype}-{move}")
                folder.mkdir()
                series = series_of(
                    folder, getattr(torch, dtype), options.snapshots, options.megabytes, move
                )
                paths = sorted(folder.iterdir())
                cat(paths)
                for workers in (1, 2):
                    label = f"{dtype}, motion {move}, {workers} workers, over cat"
                    ours = measured(series, workers)
                    note(label, ratio(lambda: cat(paths), ours, options.rounds))
                if (dtype, move) == ("float32", 0.1):
                    _more(note, series, paths, Path(place, "cache"), options)
                for path in paths:
                    path.unlink()
    note("start-up over `import torch` (time, lower is better)", [started()])
    return results


def _more(note, series, paths, cache, options) -> None:  # type: ignore[no-untyped-def]
    rounds = options.rounds
    both = measured(series, 2)
    note("float32, 2 workers, over the float32 script",
         ratio(lambda: float32_script(series), both, rounds))  # fmt: skip
    note("float32, 2 workers, --all-pairs, over cat",
         ratio(lambda: cat(paths), measured(series, 2, all_pairs=True), rounds))  # fmt: skip
    if hasattr(os, "posix_fadvise"):
        note("float32, 2 workers, cold files, over cat",
             ratio(lambda: cat(paths), both, rounds, lambda: evict(paths)))  # fmt: skip
    time.sleep(3)  # files a moment old are fingerprinted again and again
    measured(series, 2, cache=open_cache(series, cache))()

    def again() -> object:
        return measured(series, 2, cache=open_cache(series, cache))()

    note("float32, second analysis with the cache, over the first", ratio(both, again, rounds))
    if torch.cuda.is_available():
        cuda = measured(series, 2, device="cuda")
        cuda()
        note("float32, cuda, over cat", ratio(lambda: cat(paths), cuda, rounds))


def plot(results: dict[str, list[float]], path: str) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 0.4 * len(results) + 1))
    axes.boxplot(list(results.values()), orientation="horizontal")
    axes.set_yticks(range(1, len(results) + 1), list(results), fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel("ratio")
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=96)
    parser.add_argument("--snapshots", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", default=None)
    parser.add_argument("--json", default=None)
    parser.add_argument("--plot", default=None)
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
          f"torch {torch.__version__}, {time.strftime('%Y-%m-%d')}")  # fmt: skip
    results = bench(options)
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=2) + "\n")
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
