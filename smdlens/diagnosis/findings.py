"""What a person should know, in words, with one remedy each and its number worked out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import polars as pl

from smdlens.diagnosis.records import Diagnosis, Finding
from smdlens.diagnosis.remedies import enough_for_stage, save_every
from smdlens.motion.records import Motion
from smdlens.snapshots.records import SnapshotSeries
from smdlens.symmetry.records import ScaleGroups
from smdlens.vocabulary import (
    Outcome,
    SkipReason,
    State,
)
from smdlens.wording import count_of

_LEAK_FLAG = 0.1
_SEVERITY = {Outcome.FAIL: 0, Outcome.ERROR: 1, Outcome.WARN: 2, Outcome.INCONCLUSIVE: 3}


def find(
    diagnosis: Diagnosis,
    series: SnapshotSeries,
    motion: Motion,
    evidence: tuple[Finding, ...] = (),
) -> Diagnosis:
    """The diagnosis with its findings, worst first; `evidence` are findings made elsewhere."""
    found = [
        *evidence,
        *_no_invariant(diagnosis),
        *_stages_not_held(diagnosis),
        *_states_of_note(diagnosis),
        *_undetermined(diagnosis),
        *_leaks(diagnosis),
        *_uncertain_cuts(diagnosis),
        *(
            Finding(rule, Outcome.WARN, "hyper-parameters", message, remedy)
            for rule, message, remedy in diagnosis.hyper.notes
        ),
        *_run_notes(series, motion, diagnosis.groups),
    ]
    found.sort(key=lambda finding: _SEVERITY.get(finding.outcome, 9))
    return dataclasses.replace(diagnosis, findings=tuple(found))


def _bound(diagnosis: Diagnosis) -> set[str]:
    return {name for name, tensor in diagnosis.groups.tensors.items() if tensor.on_sphere}


def _rows(diagnosis: Diagnosis, stage: int) -> pl.DataFrame:
    bound = list(_bound(diagnosis))
    frame = diagnosis.stage_tensors
    return frame.filter((pl.col("stage") == stage) & pl.col("tensor").is_in(bound))


def _no_invariant(diagnosis: Diagnosis) -> Iterator[Finding]:
    if _bound(diagnosis):
        return
    groups = diagnosis.groups
    sets = groups.unmeasured_sets
    what = (
        "no scale-invariant tensor was found: without a normalisation behind it a weight has no "
        "spherical equilibrium, and the theory does not bind here"
    )
    if sets:
        one = max(sets, key=lambda tensor: len(tensor.shape))
        what = (
            f"{len(sets)} of {count_of(len(groups.tensors), 'tensor')} are scale-invariant only "
            f"jointly with others, and no such set can be measured ({one.name}: "
            f"{one.not_measured})"
        )
    remedy = "Norms and angles are listed all the same."
    if groups.source == "names":
        remedy = (
            "If the network normalises them in a way that names do not show, give it with --model "
            "PKG.MOD:FACTORY or --graph FILE. Norms and angles are listed all the same."
        )
    yield Finding("SMD001", Outcome.INCONCLUSIVE, "network", what, remedy)


def _stages_not_held(diagnosis: Diagnosis) -> Iterator[Finding]:
    """One finding per stage whose tensors are off equilibrium, by state."""
    for stage in diagnosis.stages:
        rows = _rows(diagnosis, stage.index)
        for state in (
            State.APPROACHING_FROM_BELOW,
            State.APPROACHING_FROM_ABOVE,
            State.LEAVING,
            State.PERIODIC,
            State.DIVERGING,
        ):
            own = rows.filter(pl.col("state") == state.value)
            if own.is_empty():
                continue
            ratios = own.get_column("ratio").drop_nulls()
            middle = ratios.median() if len(ratios) else None
            measured = (
                f"the angle per update is {middle:.2f} of its equilibrium value"
                if isinstance(middle, float)
                else "the angle per update is off its equilibrium value"
            )
            what = {
                State.APPROACHING_FROM_BELOW: "end below their equilibrium (norms too large)",
                State.APPROACHING_FROM_ABOVE: "end above their equilibrium (norms too small)",
                State.LEAVING: "left their equilibrium without a change of the schedule",
                State.PERIODIC: "destabilise periodically",
                State.DIVERGING: "diverge",
            }[state]
            yield Finding(
                "SMD002" if state not in (State.PERIODIC, State.DIVERGING) else "SMD003",
                Outcome.FAIL,
                f"stage {stage.index}",
                f"{len(own)} of {len(rows)} scale-invariant tensors {what}: {measured}",
                enough_for_stage(diagnosis, stage, state),
            )


def _states_of_note(diagnosis: Diagnosis) -> Iterator[Finding]:
    """States outside the equilibrium question that somebody should look at."""
    words = {
        State.PURE_DECAY: "get no gradient: their norm only decays",
        State.FROZEN: "do not move at all",
        State.FIXED_NORM: "have a norm held constant by the optimizer: no equilibrium to reach",
        State.EPSILON_LIMITED: "have shrunk until the normalisation's epsilon sets their motion",
        State.NO_DECAY: "have no weight decay: no equilibrium exists for them",
    }
    remedies = {
        State.PURE_DECAY: "Look for dead units or an unused branch.",
        State.FROZEN: "If they should train, check requires_grad and the optimizer's groups.",
        State.FIXED_NORM: "Compare the angle with the learning rate instead.",
        State.EPSILON_LIMITED: "Use a smaller epsilon, or less weight decay on these layers.",
        State.NO_DECAY: "Give them weight decay if their learning rate should mean the same.",
    }
    for stage in diagnosis.stages:
        rows = _rows(diagnosis, stage.index)
        for state, what in words.items():
            own = rows.filter(pl.col("state") == state.value)
            if not own.is_empty():
                yield Finding(
                    "SMD004",
                    Outcome.WARN,
                    f"stage {stage.index}",
                    f"{len(own)} of {len(rows)} scale-invariant tensors {what}",
                    remedies[state],
                )


def _undetermined(diagnosis: Diagnosis) -> Iterator[Finding]:
    for stage in diagnosis.stages:
        rows = _rows(diagnosis, stage.index)
        own = rows.filter(pl.col("state") == State.UNDETERMINED.value)
        if own.is_empty():
            continue
        reasons = own.get_column("reason").unique(maintain_order=True).to_list()
        # Reasons name what would settle them; only this one leaves the number open.
        remedy = save_every(diagnosis, stage) if "closer together" in str(reasons[0]) else None
        yield Finding(
            "SMD005",
            Outcome.INCONCLUSIVE,
            f"stage {stage.index}",
            f"{len(own)} of {len(rows)} scale-invariant tensors cannot be decided: {reasons[0]}",
            remedy,
        )


def _leaks(diagnosis: Diagnosis) -> Iterator[Finding]:
    frame = diagnosis.intervals.filter(pl.col("eps_leak").is_not_null())
    if frame.is_empty():
        return
    last = frame.group_by("tensor", maintain_order=True).last()
    leaking = last.filter(pl.col("eps_leak").abs() > _LEAK_FLAG)
    if not leaking.is_empty():
        worst = leaking.sort(pl.col("eps_leak").abs(), descending=True).row(0, named=True)
        yield Finding(
            "SMD007",
            Outcome.WARN,
            worst["tensor"],
            f"epsilon of the normalisation acts on {count_of(len(leaking), 'tensor')} like a "
            f"weight decay of its own, up to {worst['eps_leak']:+.0%} of the declared one at the "
            "end of the run",
            "Their angle settles away from the equilibrium value; a smaller epsilon restores it.",
        )


def _uncertain_cuts(diagnosis: Diagnosis) -> Iterator[Finding]:
    for decay in diagnosis.decays:
        if decay.step_low < decay.step_high:
            yield Finding(
                "SMD008",
                Outcome.WARN,
                f"cut near {decay.step}",
                f"the learning rate changed from {decay.lr_before:g} to {decay.lr_after:g} "
                f"somewhere between steps {decay.step_low} and {decay.step_high}",
                "Give --schedule FILE to say where; that interval belongs to no stage.",
            )


def _run_notes(series: SnapshotSeries, motion: Motion, groups: ScaleGroups) -> Iterator[Finding]:
    unreadable = [item for item in series.skipped if item.reason is SkipReason.UNREADABLE]
    if unreadable:
        yield Finding(
            "SMD020",
            Outcome.ERROR,
            unreadable[0].file,
            f"{count_of(len(unreadable), 'snapshot')} could not be read: {unreadable[0].detail}",
            "Restore or delete them; the rest was analysed.",
        )
    different = [item for item in series.skipped if item.reason is SkipReason.DIFFERENT_TENSORS]
    if different:
        yield Finding(
            "SMD021",
            Outcome.WARN,
            different[0].file,
            f"{count_of(len(different), 'snapshot')} left out for other tensors: "
            f"{different[0].detail}",
            "Point smdlens at the checkpoints of one run.",
        )
    for note in series.notes:
        yield Finding("SMD022", Outcome.WARN, "run", note, None)
    own = pl.col("tensor").is_in(list(groups.tensors))
    nonfinite = motion.snapshots.filter((pl.col("nonfinite") > 0) & own)
    if not nonfinite.is_empty():
        steps = sorted(nonfinite.get_column("step").unique().to_list())
        count = nonfinite.get_column("tensor").n_unique()
        later = f" and in {len(steps) - 1} more snapshots" if len(steps) > 1 else ""
        first = nonfinite.filter(pl.col("step") == steps[0]).row(0, named=True)
        yield Finding(
            "SMD023",
            Outcome.FAIL,
            first["tensor"],
            f"non-finite weights in {count} tensor{'s' if count > 1 else ''} at step "
            f"{steps[0]}{later} ({first['nonfinite']} of them in this tensor)",
            "Resume from a snapshot before that step.",
        )
