"""Runs with one thing wrong, trained on digits: each is found and named; sound runs raise nothing.

The table of docs/faults.md is what these tests hold: a row is a fault, a column the evidence.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import fault_runs
import polars as pl
import pytest
from fault_runs import FAULTS, FaultRun, evidence_options, fault_folder

import smdlens

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
COLUMNS = (("sgd", "state"), ("sgd", "weights"), ("adamw", "state"), ("adamw", "weights"))
ROWS = {
    "decay switched off": "decay_off",
    "learning rate x 3": "rate_times_3",
    "weight decay x 3": "other_decay",
    "averaged weights": "averaged",
    "frozen batch norm": "frozen_norm",
    "batch norm frozen half-way": "norm_stops",
}
# Findings that say something is wrong with record, weights or batch norm.
_SUSPICIONS = re.compile(r"SMD006|SMD031|SMD032|SMD04\d")


def table(heading):
    """(fault, column) -> rule of the page's table below `heading`; None where not decidable."""
    text = PAGE.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    found = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        fault = next((fault for name, fault in ROWS.items() if name in cells[0]), None)
        if fault is not None:
            for column, cell in zip(COLUMNS, cells[1:], strict=True):
                rule = re.search(r"SMD\d+", cell)
                found[fault, *column] = rule[0] if rule else None
    assert len(found) == len(ROWS) * len(COLUMNS)
    return found


def suspicions(run, evidence, **options):
    """(rule, subject, message) of an analysis."""
    path, given = evidence_options(run, fault_folder(run), evidence)
    report = smdlens.analyze(path, device="cpu", **given, **options)
    found = report.diagnosis.findings
    return [(f.rule, f.subject, f.message) for f in found if _SUSPICIONS.fullmatch(f.rule)]


def number_in(message):
    return float(re.search(r"(?:was|were) ([\d.]+) times", message)[1])


def held_against_the_page(run, evidence):
    rule = table("With a cut of the learning rate")[run.fault, run.optimizer, evidence]
    found = suspicions(run, evidence)
    own = [item for item in found if item[0] == rule]
    assert own, (run, evidence, found)
    if run.fault in ("decay_off", "rate_times_3", "frozen_norm", "norm_stops"):
        # One tensor is named, and no other one.
        assert {item[1] for item in found} == {fault_runs.VICTIM}
    elif run.fault == "averaged":
        assert {item[1] for item in own} == {"weights"}
    else:
        assert len(own) == len(run.widths)
    if run.fault == "rate_times_3":
        assert number_in(own[0][2]) == pytest.approx(fault_runs.RATE_FACTOR, rel=0.25)
    if run.fault == "other_decay":
        for item in own:
            assert number_in(item[2]) == pytest.approx(fault_runs.DECAY_FACTOR, rel=0.15)
    if run.fault == "norm_stops":
        assert f"is frozen from step {fault_runs.NORM_STOP} on" in own[0][2]
    if run.fault == "decay_off":
        step = int(re.search(r"from step (\d+)", own[0][2])[1])
        known = fault_runs.HALF if evidence == "state" else fault_runs.CUT
        assert known <= step <= known + 2 * fault_runs.GAP


@pytest.mark.parametrize("evidence", ["state", "weights"])
@pytest.mark.parametrize(
    "run",
    [
        FaultRun("sgd", "decay_off", 1),
        FaultRun("adamw", "rate_times_3", 1),
        FaultRun("sgd", "norm_stops", 1),
    ],
    ids=lambda run: run.name,
)  # fmt: skip
def test_a_fault_is_found_and_named(run, evidence):
    held_against_the_page(run, evidence)


@pytest.mark.deep
@pytest.mark.parametrize("evidence", ["state", "weights"])
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("fault", FAULTS[1:])
def test_every_fault_is_found_and_named(optimizer, fault, seed, evidence):
    held_against_the_page(FaultRun(optimizer, fault, seed), evidence)


@pytest.mark.deep
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("fault", FAULTS[1:])
def test_what_is_left_without_a_cut(optimizer, fault, seed):
    """The same runs up to their cut: the page says what cannot be decided, and so it is."""
    run = FaultRun(optimizer, fault, seed)
    for evidence in ("state", "weights"):
        rule = table("Without a cut")[fault, optimizer, evidence]
        before = f":{fault_runs.CUT - fault_runs.GAP}"
        found = {item[0] for item in suspicions(run, evidence, steps=before)}
        assert found == set() if rule is None else rule in found


@pytest.mark.deep
@pytest.mark.parametrize("evidence", ["state", "weights"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_sound_runs_raise_nothing(optimizer, evidence):
    """Twelve seeds, two optimizers, with and without state, with and without their cut."""
    for seed in range(1, 13):
        run = FaultRun(optimizer, "none", seed)
        assert suspicions(run, evidence) == [], run
        assert suspicions(run, evidence, steps=f":{fault_runs.CUT - fault_runs.GAP}") == [], run


@pytest.mark.deep
@pytest.mark.parametrize("fault", FAULTS)
def test_fresh_seeds_and_networks(fault):
    """Runs that no threshold was chosen on: the page's numbers of those named in full."""
    fresh = [(101, (8, 12, 16)), (102, (8, 12, 16)), (103, (6, 10, 14, 18)), (104, (12, 12, 20)),
             (105, (10, 16, 16, 24))]  # fmt: skip
    before = f":{fault_runs.CUT - fault_runs.GAP}"
    with_cut, without = (
        table(title) for title in ("With a cut of the learning rate", "Without a cut")
    )
    named = 0
    for optimizer, evidence in COLUMNS:
        for seed, widths in fresh:
            run = FaultRun(optimizer, fault, seed, widths)
            found = {item[0] for item in suspicions(run, evidence)}
            early = {item[0] for item in suspicions(run, evidence, steps=before)}
            if fault == "none":
                assert found == early == set()
                continue
            assert with_cut[fault, optimizer, evidence] in found, run
            rule = without[fault, optimizer, evidence]
            assert early == set() if rule is None else rule in early, run
            try:
                held_against_the_page(run, evidence)
                named += 1
            except AssertionError:
                assert fault == "other_decay"
    assert named >= {"none": 0, "other_decay": 16}.get(fault, 20)


@pytest.mark.deep
def test_what_would_have_been_enough_is_enough():
    """A stage too short, then trained again with each remedy: within 0.07 of where it should end.

    Longer stage and more decay end at the tolerance (0.9), rescaled weights in equilibrium.
    """
    base = FaultRun("sgd", "none", 1)
    path, given = evidence_options(base, fault_folder(base), "weights")
    offers = smdlens.analyze(path, device="cpu", **given).decays
    longer, more, divisor = (
        float(offers[f"enough_{name}"].median())
        for name in ("iterations", "weight_decay_factor", "weight_divisor")
    )
    gap = fault_runs.GAP
    steps = fault_runs.CUT + gap * -(-int(longer) // gap)
    for run, end in (
        (replace(base, steps=steps), 0.9),
        (replace(base, decay_after=more), 0.9),
        (replace(base, divide=divisor), 1.0),
    ):
        folder = fault_folder(run)
        schedule = folder / "remedy.csv"
        before, after = run.rates
        schedule.write_text(
            f"step,lr,weight_decay\n0,{before},{run.decay}\n"
            f"{fault_runs.CUT},{after},{run.decay * run.decay_after}\n"
        )
        options = {"optimizer": "sgd", "momentum": 0.9, "schedule": schedule}
        report = smdlens.analyze(folder / "weights", device="cpu", **options)
        ends = report.intervals.filter(role="scale_invariant").sort("step_to")
        last = ends.filter(pl.col("step_to") > run.steps - 3 * gap)
        assert last.height == 9
        assert last["ratio"].mean() == pytest.approx(end, abs=0.07), run
