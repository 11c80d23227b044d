"""A fast part of the calibration (docs/calibration.md): fixed seeds, limits that leave chance room.

Some 190 independent intervals per optimizer: a true coverage of 95% falls below 89% once in ten
thousand such tests, intervals that are half as wide as they should be cover about 67%.
"""

from __future__ import annotations

from pathlib import Path

import page
import polars as pl
import pytest
from interval_coverage import designs, run_design
from populations import OPTIMIZERS, Design
from scenarios import Scenario
from state_accuracy import UNDECIDABLE, run_scenario, run_undecidable, scenarios
from summaries import coverage_counts, state_counts

# Diverging tensors overflow on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
SEED = 7
# Gap, schedule, dtype and whether optimizer state is saved.
RUNS = (
    (20, "constant", "float32", True),
    (100, "step", "bfloat16", False),
    (100, "cosine", "float32", True),
    (100, "constant", "float32", False),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calibration")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_intervals_hold_the_truth(optimizer: str, root: Path) -> None:
    rows = pl.concat(
        run_design(Design(optimizer, schedule, gap, dtype, state, SEED * 1000 + number, 8), root)
        for number, (gap, schedule, dtype, state) in enumerate(RUNS)
    )
    found = coverage_counts(rows)
    count, inside, below, above, width = found[optimizer]["all"]
    assert found["missing"] == 0
    assert count >= 190
    assert inside / count >= 0.89
    # Neither does the truth lie on one side only, nor are the intervals simply wide.
    assert max(below, above) <= 0.08 * count
    assert width < 0.5


def chosen(family: str, optimizer: str) -> Scenario:
    """The run of a family with the fewest updates between snapshots, from 100 on."""
    fitting = (s for s in scenarios(SEED) if (s.family, s.optimizer) == (family, optimizer))
    return min((s for s in fitting if s.gap >= 100), key=lambda s: s.gap)


def test_states_are_those_the_runs_were_built_to_have(root: Path) -> None:
    cases = [
        ("settled", "momentum"), ("settled", "AdamW"), ("approaching", "SGD"),
        ("approaching", "Nesterov"), ("cut", "momentum"), ("coarse", "SGD"),
        ("smooth", "momentum"), ("undecayed", "SGD"),
    ]  # fmt: skip
    rows = pl.concat((run_scenario(chosen(*case), root) for case in cases), how="diagonal_relaxed")
    assert rows.height >= 90
    assert set(rows["state"]) >= {
        "equilibrium", "approaching_from_below", "approaching_from_above", "leaving", "periodic",
        "diverging", "fixed_norm", "pure_decay", "frozen", "no_decay", "lagging",
    }  # fmt: skip
    wrong = rows.filter(pl.col("wrong")).select("label", "kind", "right", "state")
    assert wrong.height <= 0.02 * rows.height, wrong.rows()
    open_ones = rows.filter(pl.col("undetermined"))
    assert open_ones.height <= 0.1 * rows.height
    counts = state_counts(rows)
    assert sum(n for n, *_ in counts["by_optimizer"].values()) == rows.height


# Adam named without its betas has the default ones: docs/calibration.md shows what becomes of it.
ASSUMED = ("betas left out",)


@pytest.mark.parametrize(
    "case", [c for c in UNDECIDABLE if c.name not in ASSUMED], ids=lambda case: case.name
)
def test_what_cannot_be_decided_is_not(case, root: Path) -> None:  # type: ignore[no-untyped-def]
    rows = run_undecidable(case, "momentum", OPTIMIZERS["momentum"][0], SEED, root)
    assert rows.height >= 4
    assert rows["decided"].sum() <= 0.01 * rows.height
    assert all(rows.filter(~pl.col("decided"))["reason"])


def test_the_page_is_what_was_recorded() -> None:
    """Every number of docs/calibration.md comes from the results beside this file."""
    assert page.render() == page.PAGE.read_text()


@pytest.mark.deep
@pytest.mark.parametrize("label", [label for label in page.results() if label != "before"])
def test_recorded_results_are_reproduced(label: str, root: Path) -> None:
    """One gap of the recorded run, simulated and analysed again."""
    recorded = page.results()[label]
    rows = pl.concat(
        run_design(design, root) for design in designs(recorded["seed"]) if design.gap == 100
    )
    for optimizer in OPTIMIZERS:
        again = coverage_counts(rows)[optimizer]["gap"]["100"]
        assert again[:2] == pytest.approx(recorded["coverage"][optimizer]["gap"]["100"][:2], abs=8)
