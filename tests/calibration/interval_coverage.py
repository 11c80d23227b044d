"""How often the 95% intervals hold what really happened, over the population."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import torch
from populations import GAPS, OPTIMIZERS, SCHEDULES, Design, draw_run
from simulated_files import declared, write
from simulated_training import Array, Simulation, simulate

import smdlens
from smdlens.report.build import Report

# From this gap on runs are long: one of the four ways of saving each, in turns, else two.
_LONG = 1500


def designs(seed: int) -> Iterator[Design]:
    """Every optimizer, schedule and gap, by dtype, with and without optimizer state in turns."""
    ways = list(itertools.product(("float32", "bfloat16"), (True, False)))
    for o, optimizer in enumerate(OPTIMIZERS):
        for s, schedule in enumerate(SCHEDULES):
            for g, gap in enumerate(GAPS):
                for w, (dtype, state) in enumerate(ways):
                    if (w + s + g) % (4 if gap >= _LONG else 2):
                        continue
                    number = ((seed * 10 + o) * 10 + s) * 100 + g * 10 + w
                    yield Design(optimizer, schedule, gap, dtype, state, number)


def run_design(design: Design, root: Path) -> pl.DataFrame:
    """Simulates, writes and analyses one run; one row per interval.

    The run is kept under `root` and only analysed anew when it is there already.
    """
    folder = root / design.label
    truth = folder.with_suffix(".npz")
    drawn = draw_run(design)
    if not truth.exists():
        run = simulate(
            drawn.rule, drawn.tensors, drawn.lr, drawn.decay, drawn.saves, design.seed + 1
        )
        write(run, folder, state=design.state, dtype=getattr(torch, design.dtype))
        np.savez(truth, angle=run.rms_angle())
    with np.load(truth) as stored:
        angle = stored["angle"]
    shell = Simulation(drawn.rule, drawn.tensors, drawn.lr, drawn.decay, drawn.saves)
    options = declared(shell, folder, state=design.state)
    report = smdlens.analyze(folder, device="cpu", workers=1, cache_dir=root / "cache", **options)
    return _rows(design, drawn.saves, angle, report)


def _rows(design: Design, saves: list[int], angle: Array, report: Report) -> pl.DataFrame:
    count, intervals = angle.shape
    true = pl.DataFrame(
        {
            "tensor": np.repeat([f"t{i}.conv.weight" for i in range(count)], intervals).tolist(),
            "step_from": np.tile(saves[:-1], count),
            "step_to": np.tile(saves[1:], count),
            "true": angle.ravel(),
            "interval": np.tile(np.arange(intervals), count),
        }
    )
    columns = [
        "tensor", "step_from", "step_to", "one_step_angle_rad", "one_step_low", "one_step_high",
        "expected_one_step_angle_rad", "angle_rad", "angle_random_walk_rad", "one_step_method",
        "flags", "ratio",
    ]  # fmt: skip
    return true.join(
        report.intervals.select(columns), on=["tensor", "step_from", "step_to"], how="left"
    ).with_columns(
        optimizer=pl.lit(design.optimizer), schedule=pl.lit(design.schedule),
        gap=pl.lit(design.gap), dtype=pl.lit(design.dtype), state=pl.lit(design.state),
        seed=pl.lit(design.seed),
        inside=pl.col("true").is_between("one_step_low", "one_step_high"),
        # distance in standard errors of the squared angle
        z=(pl.col("one_step_angle_rad") ** 2 - pl.col("true") ** 2)
        / ((pl.col("one_step_high") ** 2 - pl.col("one_step_low") ** 2) / 3.92),
        off=(pl.col("one_step_angle_rad") / pl.col("true")) ** 2 - 1.0,
    )  # fmt: skip
