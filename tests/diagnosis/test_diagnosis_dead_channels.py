"""Faults of single channels, and of the norm, put into a real network that trains."""

import gradient_runs as runs
import pytest
import torch
from diagnosis_helpers import analyze

VICTIM, SHIFT = "stages.0.body.conv.weight", "stages.0.body.norm.bias"
LONG = {"updates": 200, "every": 20}
MAKERS = {
    "momentum": lambda groups: torch.optim.SGD(groups, lr=runs.LR, momentum=0.9),
    "nesterov": lambda groups: torch.optim.SGD(groups, lr=runs.LR, momentum=0.9, nesterov=True),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=3e-3),
}


def silenced(named, step):
    """Two units whose shift is so far below zero that no input makes them fire."""
    if step == 0:
        named[SHIFT][[2, 7]] = -100.0


def found(report):
    return {f.subject: f.message for f in report.diagnosis.findings if f.rule == "SMD052"}


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_dead_units_are_counted_and_named(maker, dtype, tmp_path):
    runs.train(tmp_path / "run", MAKERS[maker], tamper=silenced, dtype=dtype, **LONG)
    report = analyze(tmp_path / "run")
    dead = found(report)
    assert dead.keys() == {VICTIM}
    assert dead[VICTIM].startswith("2 of 12 channels")
    # AdamW's decay here lowers norms by less than bfloat16 shows.
    told = maker != "adamw" or dtype is None
    assert ("their norm only decays" in dead[VICTIM]) == told
    last = report.intervals.filter(tensor=VICTIM).to_dicts()[-1]
    assert last["still_channels"] == 2
    others = report.intervals.filter(tensor="stem.body.conv.weight")
    assert others.get_column("still_channels").to_list() == [0] * len(others)


def test_masked_filters_are_zero(tmp_path):
    def mask(named, step):
        named[VICTIM][[0, 1, 5]] = 0.0

    runs.train(tmp_path / "run", MAKERS["momentum"], tamper=mask, **LONG)
    assert "3 of 12 channels are zero" in found(analyze(tmp_path / "run"))[VICTIM]


def test_filters_put_back_after_each_update_do_not_move(tmp_path):
    kept = {}

    def hold(named, step):
        if step == 20:
            kept["w"] = named[VICTIM][4].clone()
        elif step > 20:
            named[VICTIM][4] = kept["w"]

    runs.train(tmp_path / "run", MAKERS["momentum"], tamper=hold, **LONG)
    message = found(analyze(tmp_path / "run"))[VICTIM]
    assert "1 of 12 channels do not move at all" in message
    assert "from step 40 on" in message


def test_a_sound_network_has_none(tmp_path):
    runs.train(tmp_path / "run", MAKERS["momentum"], **LONG)
    assert found(analyze(tmp_path / "run")) == {}


def test_a_norm_held_by_the_optimizer_is_recognised(tmp_path):
    """Projection back to the sphere after each update, as fixed-norm optimizers do."""
    norms = {}

    def project(named, step):
        for name, p in named.items():
            if p.ndim == 4:
                norms.setdefault(name, p.norm())
                p.mul_(norms[name] / p.norm())

    runs.train(tmp_path / "run", MAKERS["momentum"], tamper=project, **LONG)
    report = analyze(tmp_path / "run")
    states = report.stages.filter(role="scale_invariant").get_column("state").to_list()
    assert set(states) == {"fixed_norm"}
    messages = [f.message for f in report.diagnosis.findings if f.rule == "SMD004"]
    assert any("norm held constant" in message for message in messages)
