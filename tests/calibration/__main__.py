"""The published calibration: `python tests/calibration --label development --seed 1`.

Simulates every run of the population and every scenario, analyses them as a user would, records
the counts under `results/` and renews docs/calibration.md. About five minutes on two cores.

    python tests/calibration [--label LABEL --seed N] [--folder DIR] [--jobs N] [--holdout NAME]

Without a label only the page is written anew. `--holdout NAME` trains the held-out networks and
records their scores.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "oracles")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import polars as pl  # noqa: E402
from interval_coverage import designs, run_design  # noqa: E402
from page import RESULTS, write  # noqa: E402
from populations import OPTIMIZERS  # noqa: E402
from state_accuracy import UNDECIDABLE, run_scenario, run_undecidable, scenarios  # noqa: E402
from summaries import coverage_counts, state_counts, undecidable_counts  # noqa: E402


def undecidable_job(job, root):  # type: ignore[no-untyped-def]
    return run_undecidable(*job, root)


def calibrate(seed: int, root: Path, jobs: int) -> dict[str, object]:
    """Counts of one complete run of the suite."""
    root.mkdir(parents=True, exist_ok=True)
    cases = [
        (case, optimizer, rules[case.rule], seed * 1000 + 10 * at + number)
        for at, case in enumerate(UNDECIDABLE)
        for number, (optimizer, rules) in enumerate(OPTIMIZERS.items())
        if optimizer in case.optimizers
    ]
    with ProcessPoolExecutor(jobs) as pool:
        intervals = list(pool.map(partial(run_design, root=root), designs(seed)))
        states = list(pool.map(partial(run_scenario, root=root), scenarios(seed)))
        open_ones = list(pool.map(partial(undecidable_job, root=root), cases))
    return {
        "seed": seed,
        "coverage": coverage_counts(pl.concat(intervals)),
        "states": state_counts(pl.concat(states, how="diagonal_relaxed")),
        "undecidable": undecidable_counts(pl.concat(open_ones)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--label")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keep the simulated runs here")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--holdout", metavar="NAME")
    asked = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder or Path(scratch)
        if asked.label:
            found = calibrate(asked.seed, folder / f"seed{asked.seed}", asked.jobs)
            (RESULTS / f"{asked.label}.json").write_text(json.dumps(found, indent=1) + "\n")
        if asked.holdout:
            from holdout_scores import score

            rows = score(folder / "holdout").to_dicts()
            text = json.dumps(rows, indent=1) + "\n"
            (RESULTS / f"holdout_{asked.holdout}.json").write_text(text)
    write()


if __name__ == "__main__":
    main()
