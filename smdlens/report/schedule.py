"""A learning-rate schedule in a bounded number of segments."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace

from smdlens.hyper.records import RateSegment

ENTRIES_PER_GROUP = 2000


def at_most(
    schedule: Iterable[RateSegment], limit: int = ENTRIES_PER_GROUP
) -> Iterator[RateSegment]:
    """`schedule` with at most `limit` segments per group.

    Where there are more, runs of neighbouring segments become one linear segment, and its source
    says so; the ends of each run keep their rates.
    """
    for _, segments in itertools.groupby(schedule, key=lambda s: s.group):
        rows = list(segments)
        run = -(-len(rows) // limit)
        if run <= 1:
            yield from rows
            continue
        for start in range(0, len(rows), run):
            part = rows[start : start + run]
            after = rows[start + run].lr if start + run < len(rows) else _end(part[-1])
            yield replace(
                part[0],
                step_to=part[-1].step_to,
                lr_to=after if len(part) > 1 else part[0].lr_to,
                source=f"{part[0].source} (thinned)",
            )


def _end(segment: RateSegment) -> float:
    return segment.lr if segment.lr_to is None else segment.lr_to
