"""Batch norms that are frozen for a part of the run, and from which update on.

A batch norm in evaluation mode multiplies by a constant: what stands in front of it is
scale-invariant only while it is in training mode. There its running statistics move with every
batch, and its counter counts them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import polars as pl

from smdlens.diagnosis.records import Finding, Stage
from smdlens.diagnosis.tracks import Tracks
from smdlens.motion.records import NormStatistics
from smdlens.symmetry.records import ScaleGroups
from smdlens.vocabulary import EvidenceKind, Outcome, State
from smdlens.wording import count_of

FLAG = "norm_frozen"
# A state speaks of the end of its stage.
_LAST_PART = 1.0 / 3.0


@dataclass(frozen=True, slots=True)
class FrozenSpan:
    """Updates during which the batch norm behind a tensor was frozen.

    Attributes:
        tensor: The tensor in front of it.
        at_end: Frozen from `low`..`high` on to the end; else from the start until then.
        low: Where it changed, at the earliest.
        high: At the latest; equal to `low` where the counter tells the update.
        count: What `num_batches_tracked` stood at, None where it is not saved.
    """

    tensor: str
    at_end: bool
    low: int
    high: int
    count: int | None

    @property
    def when(self) -> str:
        """`from step 1217 on`, `until step 1217`, or between which steps that began or ended."""
        if self.low == self.high:
            return f"from step {self.low} on" if self.at_end else f"until step {self.low}"
        between = f"between steps {self.low} and {self.high}"
        return f"from somewhere {between} on" if self.at_end else f"until somewhere {between}"

    @property
    def reason(self) -> str:
        """Why there is no state."""
        return f"the batch norm behind it is frozen {self.when}: not scale-invariant then"

    def covers_end_of(self, stage: Stage) -> bool:
        """Whether it touches the part of a stage that its states speak of."""
        if self.at_end:
            return stage.step_to > self.low
        return self.high > stage.step_to - _LAST_PART * (stage.step_to - stage.step_from)


def frozen_spans(
    statistics: Mapping[str, NormStatistics], groups: ScaleGroups, tracks: Tracks
) -> tuple[FrozenSpan, ...]:
    """Spans of the tensors on a sphere, in file order.

    A tensor that stands still together with its batch norm is frozen itself, and its state says so.

    Args:
        statistics: By running variance, from the motion.
        groups: Scale groups; batch norms frozen throughout are no part of them any more.
        tracks: The measured tensors.
    """
    found: list[FrozenSpan] = []
    moved = np.nan_to_num(tracks.between["chord2"]) > 0.0
    for row, name in enumerate(tracks.tensors):
        tensor = groups.tensors[name]
        own = statistics.get((tensor.norm and tensor.norm.running_var) or "")
        if own is None or not tensor.on_sphere:
            continue
        last = len(own.counts) - 1
        if 0 < own.still_from < last and moved[row, own.still_from :].any():
            found += _span(name, own, tracks.steps.tolist(), at_end=True)
        if 0 < own.still_until < last and moved[row, : own.still_until].any():
            found += _span(name, own, tracks.steps.tolist(), at_end=False)
    return tuple(found)


def _span(
    name: str, own: NormStatistics, steps: Sequence[int], *, at_end: bool
) -> Iterator[FrozenSpan]:
    """The span at one end of the run, as narrow as the counter makes its other end."""
    split = own.still_from if at_end else own.still_until + 1
    still, moving = slice(split, None), slice(0, split)
    at_rest, beside = split, split - 1
    if not at_end:
        still, moving, at_rest, beside = moving, still, beside, at_rest
    if _counted(own.counts[still]):
        return
    low, high = steps[split - 1], steps[split]
    stopped, before = own.counts[at_rest], own.counts[beside]
    pace = _pace(own.counts[moving], steps[moving])
    if pace is not None and stopped is not None and before is not None:
        change = steps[beside] + (stopped - before) / pace
        if low <= change <= high:
            low = high = round(change)
    yield FrozenSpan(name, at_end, low, high, stopped)


def _counted(counts: Sequence[int | None]) -> bool:
    """Batches were counted: in training mode, with a momentum of 0."""
    return len({count for count in counts if count is not None}) > 1


def _pace(counts: Sequence[int | None], steps: Sequence[int]) -> float | None:
    """Batches per update where it is one whole number throughout, None otherwise."""
    known = np.array([np.nan if count is None else count for count in counts], dtype=np.float64)
    paces = np.diff(known) / np.diff(np.asarray(steps, dtype=np.float64))
    if len(paces) == 0 or not (paces == paces[0]).all() or paces[0] < 1 or paces[0] % 1:
        return None
    return float(paces[0])


def with_frozen_spans(
    states: pl.DataFrame, stages: tuple[Stage, ...], spans: tuple[FrozenSpan, ...]
) -> pl.DataFrame:
    """States with none where a stage ends on a frozen batch norm; a tensor at rest stays so."""
    for span in spans:
        over = [stage.index for stage in stages if span.covers_end_of(stage)]
        here = (pl.col("tensor") == span.tensor) & pl.col("stage").is_in(over)
        here &= pl.col("state") != State.FROZEN.value
        states = states.with_columns(
            pl.when(here)
            .then(pl.lit(State.UNDETERMINED.value))
            .otherwise(pl.col("state"))
            .alias("state"),
            pl.when(here).then(pl.lit(span.reason)).otherwise(pl.col("reason")).alias("reason"),
        )
    return states


def with_frozen_flags(intervals: pl.DataFrame, spans: tuple[FrozenSpan, ...]) -> pl.DataFrame:
    """The interval table with a flag on the intervals that hold updates under a frozen norm."""
    for span in spans:
        inside = pl.col("step_to") > span.low if span.at_end else pl.col("step_from") < span.high
        flagged = pl.concat_list("flags", pl.lit([FLAG]))
        intervals = intervals.with_columns(
            pl.when((pl.col("tensor") == span.tensor) & inside)
            .then(flagged)
            .otherwise(pl.col("flags"))
            .alias("flags")
        )
    return intervals


def frozen_norm_findings(groups: ScaleGroups, spans: tuple[FrozenSpan, ...]) -> Iterator[Finding]:
    """One finding for batch norms frozen throughout, one per moment they were frozen or thawed."""
    throughout = [
        name
        for name, tensor in groups.tensors.items()
        if any(e.kind is EvidenceKind.WEIGHTS and "frozen" in e.detail for e in tensor.evidence)
    ]
    if throughout:
        yield _finding(
            throughout[0],
            f"{len(throughout)} tensors stand in front of a frozen batch norm (running statistics "
            "never change): they are not scale-invariant in this run",
        )
    for _, group in groupby(
        sorted(spans, key=lambda s: (not s.at_end, s.low, s.high)),
        key=lambda s: (s.at_end, s.low, s.high),
    ):
        own = list(group)
        first = own[0]
        others = f" and {count_of(len(own) - 1, 'more tensor')}" if len(own) > 1 else ""
        counter = "" if first.count is None else f", num_batches_tracked stays at {first.count}"
        yield _finding(
            first.tensor,
            f"the batch norm behind it{others} is frozen {first.when} (running statistics stand "
            f"still{counter}): not scale-invariant then, and no state is given",
        )


def _finding(tensor: str, message: str) -> Finding:
    return Finding(
        "SMD006",
        Outcome.WARN,
        tensor,
        message,
        "If the batch norms should train, check that the model is in train mode.",
    )
