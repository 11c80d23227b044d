"""All benchmarks of the engine, as ratios measured side by side: `python tests/bench`.

    python tests/bench [--megabytes 189] [--snapshots 12] [--rounds 7] [--docs] [--json F]

Each ratio compares two programs that run in turns on the same files, so a busy machine slows both;
the median over the rounds is what counts. Seconds are not comparable between machines, ratios are.
Beside each ratio of times stands the ratio of CPU seconds (user and system, all threads), which a
busy machine disturbs less: with two free cores the first is up to twice the second. `--docs` renews
the table in docs/benchmarks.md and the plot beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

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


def float32_script(paths: list[Path]) -> list[float]:
    """What a user would write: load each file, cosine_similarity of every tensor in float32."""
    angles, before = [], {}
    for path in paths:
        now = load_file(str(path))
        angles += [
            float(torch.nn.functional.cosine_similarity(
                before[n].float().flatten(), now[n].float().flatten(), dim=0
            ).arccos())
            for n in before
        ]  # fmt: skip
        before = now
    return angles


def evict(paths: list[Path]) -> None:
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def cpu_seconds() -> float:
    """Of this process and its children."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def seconds(run: Run, before: Run | None = None) -> tuple[float, float]:
    """Wall and CPU seconds of one run."""
    if before is not None:
        before()
    start, used = time.perf_counter(), cpu_seconds()
    run()
    return time.perf_counter() - start, cpu_seconds() - used


@dataclass
class Ratio:
    """How many times as fast as the reference, per round, in turns; by time and by CPU seconds."""

    wall: list[float]
    cpu: list[float]


def ratio(reference: Run, ours: Run, rounds: int, before: Run | None = None) -> Ratio:
    pairs = [(seconds(reference, before), seconds(ours, before)) for _ in range(rounds)]
    return Ratio(
        [r[0] / o[0] for r, o in pairs],
        # What takes less than a tick or two of the clock has no CPU time.
        [r[1] / o[1] for r, o in pairs if o[1] > 0],
    )


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


def started(rounds: int) -> Ratio:
    """`import torch` over start-up to the first byte: interpreter, imports, options."""
    ours = "import smdlens, smdlens.motion.engine, smdlens.diagnosis.diagnose, smdlens.report.build"

    def program(text: str) -> Run:
        return lambda: subprocess.run([sys.executable, "-c", text], check=True)

    return ratio(program("import torch"), program(ours), rounds)


def bench(options: argparse.Namespace) -> dict[str, Ratio]:
    results: dict[str, Ratio] = {}

    def note(name: str, values: Ratio) -> None:
        results[name] = values
        print(row(name, values), flush=True)

    with tempfile.TemporaryDirectory(dir=options.folder) as place:

        def run_of(dtype: str, snapshots: int, megabytes: int, move: float) -> Made:
            folder = Path(place, f"{dtype}-{snapshots}-{megabytes}-{move}")
            folder.mkdir()
            series = series_of(folder, getattr(torch, dtype), snapshots, megabytes, move)
            made = Made(series, sorted(folder.iterdir()), Path(place, "cache"))
            cat(made.paths)
            return made

        for dtype in ("float32", "bfloat16"):
            for move in (0.1, 0.01, 0.001):
                made = run_of(dtype, options.snapshots, options.megabytes, move)
                for workers in (1, 2):
                    label = f"{dtype}, motion {move}, {workers} workers, over cat"
                    note(label, made.over_cat(options.rounds, workers))
                if (dtype, move) == ("float32", 0.1):
                    _more(note, made, options)
                made.delete()
        made = run_of("float32", 32, options.megabytes // 6, 0.1)
        label = "float32, 2 workers, --all-pairs of 32 snapshots, over cat"
        note(label, made.over_cat(options.rounds, 2, all_pairs=True))
        made.delete()
        for snapshots, megabytes in ((4, 12), (64, 12), (4, 192)):
            made = run_of("float32", snapshots, megabytes, 0.1)
            label = f"scaling: {snapshots} snapshots of {megabytes} MB, 2 workers, over cat"
            note(label, made.over_cat(options.rounds, 2))
            made.delete()
    note("`import torch` over start-up", started(3))
    return results


@dataclass
class Made:
    """A run on disk."""

    series: SnapshotSeries
    paths: list[Path]
    cache: Path

    def over_cat(self, rounds: int, workers: int, **more: object) -> Ratio:
        ours = measured(self.series, workers, **more)
        ours()
        return ratio(lambda: cat(self.paths), ours, rounds)

    def delete(self) -> None:
        shutil.rmtree(self.paths[0].parent)


def _more(note, made, options) -> None:  # type: ignore[no-untyped-def]
    rounds, series, paths = options.rounds, made.series, made.paths
    both = measured(series, 2)
    note("float32, 2 workers, over the float32 script",
         ratio(lambda: float32_script(paths), both, rounds))  # fmt: skip
    if hasattr(os, "posix_fadvise"):
        note("float32, 2 workers, cold files, over cat",
             ratio(lambda: cat(paths), both, rounds, lambda: evict(paths)))  # fmt: skip
    time.sleep(3)  # files a moment old are fingerprinted again and again
    measured(series, 2, cache=open_cache(series, made.cache))()

    def again() -> object:
        return measured(series, 2, cache=open_cache(series, made.cache))()

    note("float32, second analysis with the cache, over the first", ratio(both, again, rounds))
    if torch.cuda.is_available():
        cuda = measured(series, 2, device="cuda")
        cuda()
        note("float32, cuda, over cat", ratio(lambda: cat(paths), cuda, rounds))


def row(name: str, values: Ratio) -> str:
    """One line of the table."""
    wall = statistics.median(values.wall)
    cpu = f"{statistics.median(values.cpu):.2f}" if values.cpu else ""
    spread = f"{min(values.wall):.2f} to {max(values.wall):.2f}"
    return f"| {name} | {wall:.2f} | {spread} | {cpu} |"


def renew_docs(results: dict[str, Ratio], machine: str) -> None:
    """The table between the two marks of docs/benchmarks.md, and the plot beside the page."""
    docs = HERE.parents[1] / "docs"
    page = docs / "benchmarks.md"
    before, _, rest = page.read_text().partition("<!-- measured -->")
    _, _, after = rest.partition("<!-- /measured -->")
    head = "| comparison | ratio of times | range | ratio of CPU seconds |\n|---|---|---|---|"
    table = "\n".join([head, *(row(name, values) for name, values in results.items())])
    middle = f"\n{machine}\n\n{table}\n\n![the ratios of times](benchmarks.svg)\n"
    page.write_text(f"{before}<!-- measured -->{middle}<!-- /measured -->{after}")
    plot(results, str(docs / "benchmarks.svg"))


def plot(results: dict[str, Ratio], path: str) -> None:
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "smdlens"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 0.3 * len(results) + 1))
    walls = [values.wall for values in reversed(results.values())]
    axes.boxplot(walls, orientation="horizontal")
    axes.set_yticks(range(1, len(results) + 1), list(reversed(results)), fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel("ratio of times, ours over the reference's speed")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=189)
    parser.add_argument("--snapshots", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", default=None)
    parser.add_argument("--json", default=None)
    parser.add_argument("--docs", action="store_true")
    parser.add_argument("--plot", default=None)
    options = parser.parse_args()
    machine = (
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f} at the start, torch {torch.__version__}, {options.snapshots} "
        f"snapshots of {options.megabytes} MB with per-channel sums, {options.rounds} rounds."
    )
    print(machine)
    results = bench(options)
    if options.json:
        content = {name: asdict(values) for name, values in results.items()}
        Path(options.json).write_text(json.dumps(content, indent=2) + "\n")
    if options.plot:
        plot(results, options.plot)
    if options.docs:
        renew_docs(results, machine)


if __name__ == "__main__":
    main()
