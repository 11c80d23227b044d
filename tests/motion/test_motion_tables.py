"""The two tables: every row under its own tensor, snapshots and steps."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
from motion_helpers import Saved, groups_of, hyper_of, symmetry_of, write_series
from test_motion_measure import walk

from smdlens.motion.columns import Columns
from smdlens.motion.engine import measure


def test_rows_carry_their_snapshots_and_steps(tmp_path: Path) -> None:
    shapes, steps = {"a": (6, 5), "b": (4, 3, 3)}, (0, 10, 35, 40)
    walks = {name: walk(shape, len(steps), 1) for name, shape in shapes.items()}
    saved = [Saved(s, {n: w[k] for n, w in walks.items()}) for k, s in enumerate(steps)]
    groups = groups_of(*(symmetry_of(name, shape) for name, shape in shapes.items()))
    motion = measure(write_series(tmp_path, saved), groups, hyper_of(), device="cpu")
    own = motion.snapshots.select("tensor", "snapshot", "step").rows()
    assert own == [(n, k, s) for n in shapes for k, s in enumerate(steps)]
    columns = ("tensor", "snapshot_from", "snapshot_to", "step_from", "step_to")
    for frame in (motion.pairs, motion.lag_angles.filter(snapshot_to=1)):
        expected = [(n, k, k + 1, steps[k], steps[k + 1]) for n in shapes for k in range(3)]
        wanted = expected if frame is motion.pairs else expected[::3]
        assert frame.select(columns).rows() == wanted


def test_columns_hold_what_rows_did() -> None:
    g = np.random.default_rng(0)
    parts = [g.normal(size=(rows, 4)) for rows in (3, 1, 5)]
    for part in parts:
        part[:, 2] = np.nan
        part[g.random(part.shape) < 0.3] = np.inf
    parts[1][:] = -np.inf
    columns = Columns(("a", "b", "c", "d"))
    for part in parts:
        columns.add(part)
    found = pl.DataFrame(columns.taken())
    expected = [[x if math.isfinite(x) else None for x in row] for row in np.vstack(parts).tolist()]
    assert found.rows() == [tuple(row) for row in expected]
    assert found.schema == dict.fromkeys("abcd", pl.Float64())
