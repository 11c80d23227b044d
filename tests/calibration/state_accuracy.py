"""States over runs that were built to have them, and over runs that cannot be decided."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from populations import OPTIMIZERS
from scenarios import Built, Scenario, build, right_states, was_held
from simulated_files import declared, write
from simulated_training import Array, Rule, Simulation, simulate

import smdlens
from smdlens.diagnosis.records import Stage
from smdlens.report.build import Report
from smdlens.vocabulary import State

FAMILIES = ("settled", "approaching", "smooth", "warm-up", "cut", "coarse", "undecayed")
GAPS = (1, 5, 20, 100, 400, 1500, 5000)
_SNAPSHOTS = {1: 24, 5: 24, 20: 24, 100: 24, 400: 18, 1500: 12, 5000: 9}


def scenarios(seed: int) -> Iterator[Scenario]:
    """Every optimizer and gap by every family, the ways of saving in turns."""
    ways = list(itertools.product(("float32", "bfloat16"), (True, False)))
    number = 0
    for optimizer, rules in OPTIMIZERS.items():
        for family in FAMILIES:
            for g, gap in enumerate(GAPS):
                for w, (dtype, state) in enumerate(ways):
                    number += 1
                    if not _fits(family, gap, dtype, state, w + g):
                        continue
                    rule = rules[(g + w) % len(rules)]
                    intervals = 2 + g % 3 if family == "coarse" else _SNAPSHOTS[gap]
                    yield Scenario(
                        family,
                        optimizer,
                        rule,
                        gap,
                        intervals,
                        dtype,
                        state,
                        seed * 10_000 + number,
                    )


def _fits(family: str, gap: int, dtype: str, state: bool, turn: int) -> bool:
    """Whether the run can be decided by what is saved, and is not too long to simulate."""
    if family in ("smooth", "warm-up", "cut", "undecayed", "coarse") and gap < 100:
        return False
    # Long runs: one of the four ways of saving each, in turns; else two.
    if turn % (4 if gap >= 1500 else 2):
        return False
    if gap >= 1500 and family in ("smooth", "warm-up", "undecayed"):
        return False
    if gap < 100 and dtype == "bfloat16":
        return False
    # Weights alone a few updates apart: the boundary terms are of the size of what is measured.
    return state or (gap >= 100 and family != "undecayed")


def run_scenario(scenario: Scenario, root: Path) -> pl.DataFrame:
    """One row per tensor and stage: what it is, its state, and whether that is right."""
    built = build(scenario)
    run = simulated(scenario, built, root)
    report = analyzed(run, scenario, root)
    return pl.DataFrame(_rows(scenario, built, run.turn2, report), infer_schema_length=None)


def simulated(scenario: Scenario, built: Built, root: Path) -> Simulation:
    """The run, written under `root` unless it is there already."""
    drawn, folder = built.drawn, root / scenario.label
    log = folder.with_suffix(".npz")
    if log.exists():
        with np.load(log) as kept:
            return Simulation(
                drawn.rule, drawn.tensors, drawn.lr, drawn.decay, drawn.saves, turn2=kept["turn2"]
            )
    run = simulate(drawn.rule, drawn.tensors, drawn.lr, drawn.decay, drawn.saves, scenario.seed + 1)
    for row, kind in enumerate(built.kinds):
        if kind == "broken":
            run.weights[-1][row, :3] = np.nan
    write(run, folder, state=scenario.state, dtype=getattr(torch, scenario.dtype))
    np.savez(log, turn2=run.turn2)
    return run


def analyzed(run: Simulation, scenario: Scenario, root: Path, **changes: Any) -> Report:
    folder = root / scenario.label
    options = declared(run, folder, state=scenario.state) | changes
    options = {name: value for name, value in options.items() if value is not None}
    return smdlens.analyze(folder, device="cpu", workers=1, cache_dir=root / "cache", **options)


def true_ratio(turn2: Array, expected: Array, low: int, high: int) -> Array:
    """RMS angle over equilibrium angle in the last third of updates low to high, per tensor."""
    start = high - (high - low) // 3
    return np.sqrt(turn2[start:high].sum(axis=0) / expected[start:high].sum())


def true_ratios(turn2: Array, expected: Array, saves: list[int], stage: Stage) -> Array:
    """The same for every interval of a stage before its last third, [T, I]."""
    end = stage.step_to - (stage.step_to - stage.step_from) // 3
    steps = [step for step in saves if stage.step_from <= step <= end]
    found = [
        np.sqrt(turn2[a:b].sum(axis=0) / expected[a:b].sum()) for a, b in itertools.pairwise(steps)
    ]
    return np.stack(found, axis=1) if found else np.zeros((turn2.shape[1], 0))


def equilibrium(rule: Rule, lr: Array, decay: float) -> Array:
    """Leading-order squared equilibrium angle of each update (docs/theory.md §5)."""
    a = rule.memory
    pull = 2 * lr * decay
    if rule.adaptive:
        return pull * (1 - a) / (1 + a)
    if rule.nesterov:
        return pull * ((1 - a) * (1 + a) ** 3 + a**4) / (1 + a)
    return pull / (1 + a)


def _rows(scenario: Scenario, built: Built, turn2: Array, report: Report) -> list[dict[str, Any]]:
    drawn = built.drawn
    expected = equilibrium(drawn.rule, drawn.lr, drawn.decay)
    rows = []
    smooth = scenario.family in ("smooth", "warm-up")
    for row in report.stages.iter_rows(named=True):
        at = int(row["tensor"].removeprefix("t").split(".")[0])
        stage = next(s for s in report.diagnosis.stages if s.index == row["stage"])
        ratio = float(true_ratio(turn2, expected, stage.step_from, stage.step_to)[at])
        kind = built.kinds[at]
        held = was_held(true_ratios(turn2, expected, drawn.saves, stage)[at])
        right = right_states(kind, ratio, smooth=smooth, held=held)
        state = State(row["state"])
        rows.append(
            {
                "family": scenario.family,
                "optimizer": scenario.optimizer,
                "kind": kind,
                "gap": scenario.gap,
                "dtype": scenario.dtype,
                "saved": scenario.state,
                "stage": row["stage"],
                "label": scenario.label,
                "tensor": row["tensor"],
                "true_ratio": ratio,
                "ratio": row["ratio"],
                "low": row["ratio_low"],
                "high": row["ratio_high"],
                "right": "|".join(sorted(right)),
                "state": state.value,
                "reason": row["reason"],
                "undetermined": state is State.UNDETERMINED and State.UNDETERMINED not in right,
                "wrong": state is not State.UNDETERMINED and state not in right,
            }
        )
    return rows


@dataclass(frozen=True)
class Undecidable:
    """What is taken away from a run that could be decided."""

    name: str
    changes: dict[str, Any]
    intervals: int = 12
    gap: int = 200
    dtype: str = "float32"
    optimizers: tuple[str, ...] = tuple(OPTIMIZERS)
    rule: int = 0
    family: str = "settled"


_SGD = ("SGD", "momentum", "Nesterov")
_RULE = {"momentum": None, "nesterov": None, "betas": None}
UNDECIDABLE = (
    Undecidable("weight decay unknown", {"weight_decay": None}),
    Undecidable("learning rate unknown", {"schedule": None}),
    Undecidable("optimizer unknown", {"optimizer": None} | _RULE),
    Undecidable("momentum unknown", _RULE, optimizers=_SGD),
    # Adam's beta1 is .9 unless somebody says so: these runs had .85.
    Undecidable("betas left out", _RULE, optimizers=("AdamW",), rule=1),
    Undecidable(
        "storage floor above what moved", {}, intervals=6, gap=2, dtype="bfloat16", family="coarse"
    ),
    Undecidable("two snapshots few updates apart", {}, intervals=1, gap=3),
)


def run_undecidable(
    case: Undecidable, optimizer: str, rule: Rule, seed: int, root: Path
) -> pl.DataFrame:
    """States of a run whose information does not suffice; every one but undetermined is wrong."""
    scenario = Scenario(
        case.family, optimizer, rule, case.gap, case.intervals, case.dtype, False, seed
    )
    built = build(scenario)
    run = simulated(scenario, built, root)
    report = analyzed(run, scenario, root, **case.changes)
    rows = [
        {"case": case.name, "optimizer": optimizer, "state": row["state"], "reason": row["reason"],
         "decided": row["state"] != "undetermined"}
        for row in report.stages.iter_rows(named=True)
        if built.kinds[int(row["tensor"].removeprefix("t").split(".")[0])] == "equilibrium"
    ]  # fmt: skip
    return pl.DataFrame(rows)
