"""A diagnosis held against a policy: one case per thing asked, each with its outcome.

Outcomes are policy, so every case carries the number it was judged by and nothing here changes a
state. What cannot be decided is inconclusive, never passed.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import polars as pl

from smdlens.diagnosis.baseline import Baseline, badness
from smdlens.diagnosis.cases import (
    BASELINE,
    ITERATIONS,
    RATIO,
    READABLE,
    SHARE,
    STATE,
    Case,
    CheckResult,
)
from smdlens.diagnosis.policy import Policy
from smdlens.diagnosis.records import Decay, Diagnosis, Stage
from smdlens.diagnosis.remedies import iterations_needed
from smdlens.errors import SmdlensError
from smdlens.names import for_json
from smdlens.snapshots.records import SnapshotSeries
from smdlens.vocabulary import HELD_STATES, Outcome, SkipReason, State
from smdlens.wording import count_of

# Findings that say of a whole stage what the rules above say of each tensor, and of files.
_SAID_BY_RULES = frozenset({"SMD002", "SMD003", "SMD004", "SMD005", "SMD020"})


def check(
    diagnosis: Diagnosis,
    series: SnapshotSeries,
    policy: Policy,
    baseline: Baseline | None = None,
    *,
    soft: bool = False,
    allow_inconclusive: bool = False,
) -> CheckResult:
    """Holds a diagnosis against a policy.

    Args:
        diagnosis: States, cuts and findings.
        series: Says which snapshots could not be read.
        policy: What is asked.
        baseline: An earlier report nothing may be worse than.
        soft: Report failures as skipped.
        allow_inconclusive: Pass what could not be decided.
    """
    rows = _invariant_rows(diagnosis)
    cases = [
        *_unreadable(series, policy),
        *_stages(rows, diagnosis, policy),
        *_iterations(diagnosis, policy),
        *_compared(rows, baseline, diagnosis.tolerance),
        *_findings(diagnosis, policy),
    ]
    return CheckResult(policy.name, tuple(cases), soft, allow_inconclusive)


def check_of_error(error: SmdlensError, policy: str) -> CheckResult:
    """The result of a run that could not be analysed at all: one error."""
    case = Case(
        READABLE, None, error.subject or "run", Outcome.ERROR, error.describe(), error.remedy
    )
    return CheckResult(policy, (case,))


def _invariant_rows(diagnosis: Diagnosis) -> dict[int, list[dict[str, Any]]]:
    """Rows of the stage table of scale-invariant tensors, by stage, in file order."""
    names = [n for n, t in diagnosis.groups.tensors.items() if t.on_sphere]
    frame = diagnosis.stage_tensors.filter(pl.col("tensor").is_in(names))
    rows: dict[int, list[dict[str, Any]]] = {s.index: [] for s in diagnosis.stages}
    for row in frame.iter_rows(named=True):
        rows[row["stage"]].append(row)
    return rows


def _unreadable(series: SnapshotSeries, policy: Policy) -> Iterator[Case]:
    for file in series.skipped:
        if file.reason is SkipReason.UNREADABLE:
            yield Case(
                READABLE,
                None,
                file.file,
                policy.unreadable,
                f"could not be read: {file.detail}",
                'Restore or delete it, or set unreadable = "warn" in the policy.',
            )


def _stages(
    rows: Mapping[int, list[dict[str, Any]]], diagnosis: Diagnosis, policy: Policy
) -> Iterator[Case]:
    for stage in diagnosis.stages:
        states = []
        for row in rows[stage.index]:
            demand = policy.demand_of(
                row["tensor"], stage, len(diagnosis.stages), diagnosis.hyper.warm_up_end
            )
            states.append(_state(row, demand.outcome_of(State(row["state"]))))
            if demand.ratio is not None:
                yield _ratio(row, demand.ratio)
        if policy.share < 1.0 and states:
            yield _share(stage, states, policy.share)
            # Single tensors may fail as long as their stage keeps its share.
            softer = {Outcome.FAIL: Outcome.WARN, Outcome.INCONCLUSIVE: Outcome.WARN}
            states = [_with_outcome(c, softer.get(c.outcome, c.outcome)) for c in states]
        yield from states


def _with_outcome(case: Case, outcome: Outcome) -> Case:
    return dataclasses.replace(case, outcome=outcome)


def _digits(ratio: float) -> str:
    """Three decimals beside an interval, as the tables have them; far from 1 three digits."""
    return f"{ratio:.3f}" if 0.0995 <= ratio < 9.95 else f"{ratio:.3g}"


def _state(row: Mapping[str, Any], outcome: Outcome) -> Case:
    state = State(row["state"])
    text = state.value
    if row["ratio"] is not None:
        text += f", measured/expected {_digits(row['ratio'])}"
        if row["ratio_low"] is not None and row["ratio_high"] is not None:
            text += f" ({_digits(row['ratio_low'])} to {_digits(row['ratio_high'])})"
    if row["reason"] and state not in HELD_STATES:
        text += f": {row['reason']}"
    return Case(STATE, row["stage"], row["tensor"], outcome, text, ratio=row["ratio"])


def _ratio(row: Mapping[str, Any], band: tuple[float, float]) -> Case:
    """Inside the band, outside it, or neither: the 95% interval decides, as for states."""
    low, high = band
    asked = f"the policy asks for {low:g} to {high:g}"
    if row["ratio"] is None:
        return Case(
            RATIO, row["stage"], row["tensor"], Outcome.INCONCLUSIVE, f"no ratio is known; {asked}"
        )
    least = row["ratio"] if row["ratio_low"] is None else row["ratio_low"]
    most = row["ratio"] if row["ratio_high"] is None else row["ratio_high"]
    if low <= least and most <= high:
        outcome = Outcome.PASS
    elif most < low or least > high:
        outcome = Outcome.FAIL
    else:
        outcome = Outcome.INCONCLUSIVE
    message = f"measured/expected {_digits(row['ratio'])}"
    message += f" ({_digits(least)} to {_digits(most)}); {asked}"
    return Case(RATIO, row["stage"], row["tensor"], outcome, message, ratio=row["ratio"])


def _share(stage: Stage, cases: Iterable[Case], share: float) -> Case:
    """Decided as soon as the undetermined tensors cannot change the answer any more."""
    counts = Counter(case.outcome for case in cases)
    total = sum(counts.values())
    good, open_ = counts[Outcome.PASS], counts[Outcome.INCONCLUSIVE]
    if good >= share * total:
        outcome = Outcome.PASS
    elif good + open_ < share * total:
        outcome = Outcome.FAIL
    else:
        outcome = Outcome.INCONCLUSIVE
    message = f"{good} of {count_of(total, 'tensor')} end in an allowed state"
    message += f", {open_} cannot be decided" if open_ else ""
    return Case(
        SHARE, stage.index, f"stage {stage.index}", outcome, f"{message}; asked {share:.0%}"
    )


def _iterations(diagnosis: Diagnosis, policy: Policy) -> Iterator[Case]:
    if policy.iterations is None:
        return
    for decay in diagnosis.decays:
        stage = min(diagnosis.stages, key=lambda s: abs(s.step_from - decay.step))
        rows = diagnosis.decay_tensors.filter(pl.col("decay") == decay.index)
        if not rows.is_empty():
            yield _cut(decay, stage, rows, policy.iterations)


def _cut(decay: Decay, stage: Stage, rows: pl.DataFrame, level: Outcome) -> Case:
    """Half of the tensors decide: arrived, or predicted to need more than the stage had."""
    subject = f"cut at {decay.step}"
    available = rows["iterations_available"].drop_nulls().median()
    arrived = rows["iterations_observed"].drop_nulls().len()
    needed = iterations_needed(rows)
    predicted = rows["iterations_to_tolerance"].drop_nulls().median()
    middle = predicted if needed is None else needed
    message = f"{arrived} of {count_of(rows.height, 'tensor')} came back to equilibrium"
    if isinstance(middle, float) and isinstance(available, float):
        had = f"the stage has {available:,.0f}"
        message += f"; they need {middle:,.0f} iterations (median), {had}"
    if 2 * arrived >= rows.height:
        return Case(ITERATIONS, stage.index, subject, Outcome.PASS, message)
    # A policy that only warns asks nothing that could stay undecided.
    open_ = Outcome.INCONCLUSIVE if level is Outcome.FAIL else level
    if not isinstance(middle, float) or not isinstance(available, float):
        return Case(ITERATIONS, stage.index, subject, open_, message)
    if middle <= available:
        return Case(ITERATIONS, stage.index, subject, open_, message)
    remedy = f"Give the stage {middle:,.0f} iterations."
    return Case(ITERATIONS, stage.index, subject, level, message, remedy)


def _compared(
    rows: Mapping[int, list[dict[str, Any]]], baseline: Baseline | None, tolerance: float
) -> Iterator[Case]:
    if baseline is None:
        return
    unmatched = 0
    for row in (row for stage in rows.values() for row in stage):
        before = baseline.entries.get((row["stage"], for_json(row["tensor"])))
        if before is None:
            unmatched += 1
            continue
        now, then = State(row["state"]), before.state
        outcome, message = Outcome.PASS, f"{now.value}, was {then.value}"
        rank, earlier = badness(now), badness(then)
        if rank is None and earlier is not None:
            outcome = Outcome.INCONCLUSIVE
        elif rank is not None and earlier is not None and rank > earlier:
            outcome = Outcome.FAIL
        if row["ratio"] is not None and before.ratio is not None:
            message += f"; measured/expected {_digits(row['ratio'])}, was {_digits(before.ratio)}"
            if abs(row["ratio"] - 1.0) - abs(before.ratio - 1.0) > tolerance:
                outcome = Outcome.FAIL
        yield Case(BASELINE, row["stage"], row["tensor"], outcome, message, ratio=row["ratio"])
    if unmatched:
        yield Case(
            BASELINE,
            None,
            baseline.path,
            Outcome.WARN,
            f"{unmatched} cases (tensor and stage) are not in the baseline",
            "Write a new baseline if the network or its schedule changed.",
        )


def _findings(diagnosis: Diagnosis, policy: Policy) -> Iterator[Case]:
    for finding in diagnosis.findings:
        if finding.rule in _SAID_BY_RULES and finding.rule not in policy.findings:
            continue
        outcome = policy.outcome_of_finding(finding.rule, finding.outcome)
        if outcome is not None:
            yield Case(
                finding.rule, None, finding.subject, outcome, finding.message, finding.remedy
            )
