"""The verdict in one sentence, the same words in every output."""

from __future__ import annotations

from smdlens.diagnosis.records import Diagnosis
from smdlens.report.numbers import enumeration, ratio
from smdlens.report.summary import EquilibriumCounts, StageSummary, invariant_names, sets_measured
from smdlens.symmetry.records import ScaleGroups
from smdlens.vocabulary import HELD_STATES, NOT_HELD_STATES, State

# (one stage, several stages) that did something instead of holding equilibrium
_VERBS: dict[State, tuple[str, str]] = {
    State.APPROACHING_FROM_BELOW: ("does not reach equilibrium", "do not reach equilibrium"),
    State.APPROACHING_FROM_ABOVE: ("has not settled yet", "have not settled yet"),
    State.LEAVING: ("drifts out of equilibrium", "drift out of equilibrium"),
    State.PERIODIC: ("swings around its equilibrium", "swing around their equilibria"),
    State.DIVERGING: ("diverges", "diverge"),
}
_NO_EQUILIBRIUM: dict[State, str] = {
    State.NO_DECAY: "weight decay is 0",
    State.FIXED_NORM: "the optimizer holds the norms fixed",
    State.FROZEN: "the weights do not move",
    State.PURE_DECAY: "the weights get no gradient and only decay",
    State.EPSILON_LIMITED: "the normalisation's epsilon sets the motion, not the sphere",
}

_NAMED = 4
_NOT_HELD_ORDER = (
    State.DIVERGING,
    State.APPROACHING_FROM_BELOW,
    State.APPROACHING_FROM_ABOVE,
    State.LEAVING,
    State.PERIODIC,
)


def headline(
    diagnosis: Diagnosis, stages: tuple[StageSummary, ...], counts: EquilibriumCounts
) -> str:
    """One or two sentences: what holds, what does not, by how much."""
    invariant = len(invariant_names(diagnosis))
    if not invariant:
        return f"The theory does not bind here: {_none_bound(diagnosis.groups)}."
    if not counts.total:
        return "Undetermined: no stage of the run could be judged."
    if counts.not_held:
        return _not_held(stages)
    if not counts.held and not counts.undetermined:
        return f"No equilibrium exists here: {_why_none(stages)}."
    if counts.undetermined:
        return _undetermined(counts)
    what = "tensors and sets" if sets_measured(diagnosis) else "tensors"
    return _held(invariant, what, stages, counts)


def _none_bound(groups: ScaleGroups) -> str:
    tensors, sets = len(groups.tensors), len(groups.unmeasured_sets)
    if sets:
        return (
            f"none of the {tensors} tensors is scale-invariant on its own, and no set of the "
            f"{sets} that are so jointly can be measured"
        )
    return f"none of the {tensors} tensors is known to be scale-invariant"


def _held(
    invariant: int, what: str, stages: tuple[StageSummary, ...], counts: EquilibriumCounts
) -> str:
    where = "" if len(stages) == 1 else f" in all {len(stages)} stages"
    if counts.not_applicable:
        return (
            f"In equilibrium{where}, but for {counts.not_applicable} of {counts.total} cases where "
            f"none exists: {_why_none(stages)}."
        )
    who = "the one scale-invariant tensor" if invariant == 1 else f"all {invariant} {what}"
    lagging = sum(n for s in stages for state, n in s.states if state is State.LAGGING)
    cases = "1 case lags" if lagging == 1 else f"{lagging} cases lag"
    rest = f" ({cases} behind a moving rate, as predicted)" if lagging else ""
    return f"In equilibrium{where}: {who}{rest}."


def _why_none(stages: tuple[StageSummary, ...]) -> str:
    reasons = []
    for stage in stages:
        for state, _ in stage.states:
            if state not in HELD_STATES | NOT_HELD_STATES | {State.UNDETERMINED}:
                reasons.append(_NO_EQUILIBRIUM[state])
    return enumeration(list(dict.fromkeys(reasons)))


def _undetermined(counts: EquilibriumCounts) -> str:
    share = f"{counts.undetermined} of {counts.total}"
    if not counts.held:
        return f"Undetermined: {share} cases (tensor and stage) cannot be decided."
    return (
        f"In equilibrium where it can be decided ({counts.held} of {counts.total} cases); "
        f"{share} stay undetermined."
    )


def _not_held(stages: tuple[StageSummary, ...]) -> str:
    """Whole stages first, grouped by what they did, then stages where only some tensors did."""
    whole = [s for s in stages if _decided(s) and s.counts.not_held == _decided(s)]
    partial = [s for s in stages if s.counts.not_held and s not in whole]
    sentences = []
    for state in _NOT_HELD_ORDER:
        group = [s for s in whole if s.dominant_not_held is state]
        if group:
            sentences.append(_whole_stages(state, group))
    sentences += [
        f"In stage {s.stage.index}, {s.counts.not_held} of {s.counts.total} tensors "
        f"{'is' if s.counts.not_held == 1 else 'are'} out of equilibrium."
        for s in partial[:2]
    ]
    if len(partial) > 2:
        sentences.append(f"So are some in {len(partial) - 2} more stages.")
    good = [s for s in stages if s.counts.held and s.counts.held == s.counts.total]
    settled = [s for s in good if all(state is not State.LAGGING for state, _ in s.states)]
    following = [s for s in good if s not in settled]
    for group, single, several in (
        (settled, "is in equilibrium", "are in equilibrium"),
        (following, "follows its moving rate as predicted", "follow their rates as predicted"),
    ):
        if group:
            sentences.append(f"{_stage_names(group)} {single if len(group) == 1 else several}.")
    return " ".join(sentences)


def _decided(stage: StageSummary) -> int:
    return stage.counts.held + stage.counts.not_held


def _stage_names(group: list[StageSummary]) -> str:
    last = enumeration([str(s.stage.index) for s in group[-_NAMED:]])
    if len(group) > _NAMED:
        return f"{len(group)} stages (the last: {last})"
    return f"Stage {last}" if len(group) == 1 else f"Stages {last}"


def _whole_stages(state: State, group: list[StageSummary]) -> str:
    ratios = [ratio(s.ratio) for s in group[-_NAMED:] if s.ratio is not None]
    text = f"{_stage_names(group)} {_VERBS[state][0 if len(group) == 1 else 1]}"
    if not ratios:
        return f"{text}."
    return f"{text}: the angle per update is {enumeration(ratios)} of what the schedule asks for."
