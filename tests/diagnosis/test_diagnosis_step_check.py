"""Averaged copies saved at every update, of real networks under SGD and AdamW."""

import gradient_runs as runs
import pytest
import torch
from diagnosis_helpers import analyze

MAKERS = {
    "momentum": lambda groups: torch.optim.SGD(groups, lr=runs.LR, momentum=0.9),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=3e-3),
}


def named(report):
    return [f.subject for f in report.diagnosis.findings if f.rule == "SMD040"]


def spherical_states(report):
    return set(report.stages.filter(role="scale_invariant").get_column("state").to_list())


@pytest.mark.parametrize("memory", [0.99, 0.999])
@pytest.mark.parametrize("maker", MAKERS)
def test_averaged_copies_are_refused(maker, memory, tmp_path):
    runs.train(tmp_path / "run", MAKERS[maker], average=memory, updates=12)
    report = analyze(tmp_path / "run")
    assert named(report) == ["weights"]
    assert spherical_states(report) == {"undetermined"}


@pytest.mark.parametrize("maker", MAKERS)
def test_raw_weights_are_not(maker, tmp_path):
    runs.train(tmp_path / "run", MAKERS[maker], updates=12)
    assert named(analyze(tmp_path / "run")) == []


def test_a_wrong_rate_is_no_average(tmp_path):
    """A recorded rate five times too high makes every step short, but along the recorded one."""
    runs.train(tmp_path / "run", MAKERS["momentum"], updates=12)
    schedule = tmp_path / "lr.csv"
    schedule.write_text(f"step,lr\n0,{5 * runs.LR}\n")
    assert named(analyze(tmp_path / "run", schedule=schedule)) == []
