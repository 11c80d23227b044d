"""Batch norms that train for a part of a run only: which update they stopped or began at."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest

from smdlens.diagnosis.records import Stage
from smdlens.diagnosis.stopped_norms import (
    FrozenSpan,
    frozen_norm_findings,
    frozen_spans,
    with_frozen_spans,
)
from smdlens.diagnosis.tracks import Tracks
from smdlens.motion.records import NormStatistics
from smdlens.symmetry.records import NormBehind, ScaleGroups, TensorSymmetry
from smdlens.vocabulary import Granularity, Role

STEPS = (0, 100, 250, 300, 400, 550)


def groups():
    norm = NormBehind("batch_norm", "n.weight", "n.bias", "n.running_var")
    role = Role.SCALE_INVARIANT
    tensor = TensorSymmetry("w", (4, 4), "float32", role, Granularity.CHANNEL, 0, 4, (), norm=norm)
    return ScaleGroups({"w": tensor}, "names")


def spans(still_from, still_until, counts, moved=True):
    chord = np.full((1, len(STEPS) - 1), 0.1 if moved else 0.0)
    tracks = Tracks(("w",), np.array(STEPS), {}, {"chord2": chord}, np.array([16.0]))
    statistics = {"n.running_var": NormStatistics(still_from, still_until, tuple(counts))}
    return frozen_spans(statistics, groups(), tracks)


def counted(train, per_update=1):
    """The counter in each snapshot where updates t with train(t) run in training mode."""
    return [per_update * sum(map(train, range(step))) for step in STEPS]


@pytest.mark.parametrize("per_update", [1, 4])
@pytest.mark.parametrize("at", [251, 275, 299, 300])
def test_the_counter_tells_the_update_at_which_it_stopped(at, per_update):
    (span,) = spans(3, 0, counted(lambda t: t < at, per_update))
    assert (span.at_end, span.low, span.high, span.count) == (True, at, at, at * per_update)


@pytest.mark.parametrize("at", [300, 333, 399])
def test_the_counter_tells_the_update_at_which_it_began(at):
    (span,) = spans(5, 3, counted(lambda t: t >= at))
    assert (span.at_end, span.low, span.high, span.count) == (False, at, at, 0)


@pytest.mark.parametrize(
    "counts",
    [
        [None] * 6,
        [0, 100, 300, 350, 350, 350],  # not one pace
        [0, 0, 0, 0, 0, 0],  # a counter that never counts
        [0, 100, 250, 350, 350, 350],  # more than the updates in between
    ],
)
def test_without_a_sound_counter_it_lies_between_two_snapshots(counts):
    (span,) = spans(3, 0, counts)
    assert (span.low, span.high) == (250, 300)
    assert "between steps 250 and 300" in span.when


def test_no_span_where_batches_are_counted_or_the_tensor_rests_too():
    assert spans(3, 0, counted(lambda t: True)) == ()
    assert spans(3, 0, counted(lambda t: t < 275), moved=False) == ()
    assert spans(5, 0, counted(lambda t: True)) == ()


def test_states_end_where_the_norm_is_frozen():
    stages = tuple(
        Stage(i, a, b, 0.1, 0.1, 1e-3) for i, (a, b) in enumerate([(0, 250), (250, 550)])
    )
    for at, expected in (
        (FrozenSpan("w", True, 251, 251, 251), ["equilibrium", "undetermined"]),
        (FrozenSpan("w", True, 200, 200, 200), ["undetermined", "undetermined"]),
        (FrozenSpan("w", False, 100, 100, 0), ["equilibrium", "equilibrium"]),
        (FrozenSpan("w", False, 250, 300, 0), ["undetermined", "equilibrium"]),
    ):
        states = pl.DataFrame(
            {
                "stage": [0, 1],
                "tensor": ["w", "w"],
                "state": ["equilibrium"] * 2,
                "reason": ["", ""],
            }
        )
        found = with_frozen_spans(states, stages, (at,))
        assert found["state"].to_list() == expected
        for state, reason in zip(found["state"], found["reason"], strict=True):
            assert (at.when in reason) == (state == "undetermined")


def test_one_finding_for_all_that_were_frozen_at_once():
    together = [FrozenSpan(name, True, 275, 275, 275) for name in "abc"]
    found = list(frozen_norm_findings(groups(), (*together, FrozenSpan("d", True, 250, 300, None))))
    assert [f.subject for f in found] == ["d", "a"]
    assert "2 more tensors" in found[1].message and "stays at 275" in found[1].message
    assert all(f.rule == "SMD006" for f in found)
    assert len(list(itertools.chain(frozen_norm_findings(groups(), ())))) == 0
