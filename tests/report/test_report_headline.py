import dataclasses

import pytest
import report_helpers as h

from smdlens.vocabulary import Role

E, L, B, U = "equilibrium", "lagging", "approaching_from_below", "undetermined"


def headline(states, **options):
    return h.resnet_report(h.with_states(states, **options)).summary.headline


@pytest.mark.parametrize(
    ("states", "text"),
    [
        ([[E, E]], "In equilibrium: all 2 tensors."),
        ([[E]], "In equilibrium: the one scale-invariant tensor."),
        ([[E, E], [E, E]], "In equilibrium in all 2 stages: all 2 tensors."),
        (
            [[E, L]],
            "In equilibrium: all 2 tensors (1 case lags behind a moving rate, as predicted).",
        ),
        (
            [[E, E], [B, B]],
            "Stage 2 does not reach equilibrium: the angle per update is 0.30 of what the schedule "
            "asks for. Stage 1 is in equilibrium.",
        ),
        ([[E, B]], "In stage 1, 1 of 2 tensors is out of equilibrium."),
        (
            [["diverging", "diverging"]],
            "Stage 1 diverges: the angle per update is 0.30 of what the schedule asks for.",
        ),
        ([["no_decay", "no_decay"]], "No equilibrium exists here: weight decay is 0."),
        (
            [["frozen", "fixed_norm"]],
            "No equilibrium exists here: the weights do not move and the optimizer holds the norms "
            "fixed.",
        ),
        ([[U, U]], "Undetermined: 2 of 2 cases (tensor and stage) cannot be decided."),
        (
            [[E, U]],
            "In equilibrium where it can be decided (1 of 2 cases); 1 of 2 stay undetermined.",
        ),
        (
            [[E, "no_decay"]],
            "In equilibrium, but for 1 of 2 cases where none exists: weight decay is 0.",
        ),
    ],
)
def test_headline(states, text):
    assert headline(states, ratio=0.3) == text


def test_network_without_invariant_tensors():
    text = headline([[U, U]], roles=[Role.NOT_SCALE_INVARIANT, Role.UNKNOWN])
    assert text == (
        "The theory does not bind here: none of the 2 tensors is known to be scale-invariant."
    )


def test_sets_that_cannot_be_measured_are_not_called_no_sets():
    diagnosis = h.with_states(
        [[U, U, U]], roles=[Role.JOINTLY_SCALE_INVARIANT] * 2 + [Role.UNKNOWN]
    )
    tensors = {
        name: dataclasses.replace(t, not_measured="adamw scales their gradients apart")
        if t.role is Role.JOINTLY_SCALE_INVARIANT
        else t
        for name, t in diagnosis.groups.tensors.items()
    }
    groups = dataclasses.replace(diagnosis.groups, tensors=tensors)
    report = h.resnet_report(dataclasses.replace(diagnosis, groups=groups))
    assert report.summary.headline == (
        "The theory does not bind here: none of the 3 tensors is scale-invariant on its own, and "
        "no set of the 2 that are so jointly can be measured."
    )


def test_many_failing_stages_are_counted_and_the_last_named():
    text = headline([[B]] * 9, ratio=0.5)
    assert text.startswith("9 stages (the last: 6, 7, 8 and 9) do not reach equilibrium")


def test_counts_follow_the_contract():
    states = [
        [E, L, B, "approaching_from_above", "leaving", "periodic", "diverging", U],
        ["no_decay", "frozen", "pure_decay", "fixed_norm", "epsilon_limited", E, E, U],
    ]
    roles = [Role.SCALE_INVARIANT] * 6 + [Role.PARTLY_SCALE_INVARIANT, Role.NOT_SCALE_INVARIANT]
    counts = h.resnet_report(h.with_states(states, roles=roles)).summary.equilibrium
    assert (counts.held, counts.not_held) == (4, 5)
    assert (counts.undetermined, counts.not_applicable) == (0, 5)
    assert counts.total == 14
