"""Real networks whose gradients disagree with what names say of a tensor's role."""

import gradient_runs as runs
import pytest
import torch
from diagnosis_helpers import analyze

VICTIM = "stages.0.body.conv.weight"


def momentum(groups):
    return torch.optim.SGD(groups, lr=runs.LR, momentum=0.9)


def told(report, *rules):
    return {(f.rule, f.subject) for f in report.diagnosis.findings if f.rule in rules}


def nameless(name):
    """A normalisation that no convention of names knows."""
    return name.replace("stages.0.body.norm.", "stages.0.body.zz_")


# Every update of 32, or each twentieth of 240.
SAVED = {"exact": {}, "from buffers": {"updates": 240, "every": 20}}


@pytest.mark.parametrize("saved", SAVED)
def test_names_that_hide_a_normalisation(saved, tmp_path):
    runs.train(tmp_path / "run", momentum, rename=nameless, **SAVED[saved])
    report = analyze(tmp_path / "run")
    tensor = report.diagnosis.groups.tensors[VICTIM]
    assert tensor.role.value in ("not_scale_invariant", "unknown")
    assert told(report, "SMD050", "SMD051") == {("SMD050", VICTIM)}
    assert any(e.kind.value == "weights" for e in tensor.evidence)


@pytest.mark.parametrize("saved", SAVED)
def test_a_sound_run_raises_nothing_and_gains_evidence(saved, tmp_path):
    runs.train(tmp_path / "run", momentum, **SAVED[saved])
    report = analyze(tmp_path / "run")
    assert told(report, "SMD050", "SMD051") == set()
    (found,) = [
        e.detail
        for e in report.diagnosis.groups.tensors[VICTIM].evidence
        if e.kind.value == "weights"
    ]
    assert ("cosine of gradient and weights" in found) == (saved == "exact")


def test_a_penalty_on_the_weights_is_no_scale_invariance(tmp_path):
    """Beside the weight decay, the loss holds the absolute values of one layer's weights."""
    runs.train(tmp_path / "run", momentum, penalty=lambda named: 1e-4 * named[VICTIM].abs().sum())
    report = analyze(tmp_path / "run")
    assert told(report, "SMD050", "SMD051") == {("SMD051", VICTIM)}
    (finding,) = [f for f in report.diagnosis.findings if f.rule == "SMD051"]
    assert "penalty" in finding.remedy
    (verdict,) = [
        a
        for a in report.diagnosis.assumptions
        if a.name == "gradient_orthogonal" and a.tensor == VICTIM
    ]
    assert verdict.holds is False


def test_an_epsilon_that_is_not_the_assumed_one_is_named(tmp_path):
    runs.train(tmp_path / "run", momentum, eps=2e-2)
    report = analyze(tmp_path / "run")
    found = [f for f in report.diagnosis.findings if f.rule == "SMD051"]
    assert found
    for finding in found:
        epsilon = float(finding.message.split("epsilon were ")[1].split(",")[0])
        assert epsilon == pytest.approx(2e-2, rel=0.4)
        assert "--epsilon" in finding.remedy
    # The remedy, followed.
    report = analyze(tmp_path / "run", epsilon=2e-2)
    assert told(report, "SMD051") == set()
    assert report.to_dict()["run"]["epsilon"] == {"value": 2e-2, "source": "option --epsilon"}
