"""Injected faults that only weights and momentum together can show: each found and named."""

from dataclasses import replace

import numpy as np
import pytest
from diagnosis_helpers import Part, Rule, analyze, simulate, states, stepwise, write

RATE, DECAY = 0.1, 5e-3
RULE = Rule()
PARTS = {f"p{i}": Part(norm=3.5 + 0.2 * i) for i in range(4)}


def rules(report):
    return {(f.rule, f.subject) for f in report.diagnosis.findings if f.rule.startswith("SMD04")}


@pytest.fixture(scope="module")
def run():
    lr = stepwise((0, RATE), (2000, RATE / 10))
    return simulate(RULE, lr, DECAY, PARTS, total=3200, gap=20, seed=11)


def every(run, stride):
    """The same run with every `stride`-th snapshot."""
    keep = slice(None, None, stride)
    return replace(
        run,
        steps=run.steps[keep],
        weights={n: x[keep] for n, x in run.weights.items()},
        slots={n: {k: v[keep] for k, v in x.items()} for n, x in run.slots.items()},
        gammas={n: x[keep] for n, x in run.gammas.items()},
        gamma_buffers={n: x[keep] for n, x in run.gamma_buffers.items()},
    )


def test_a_sound_run_raises_nothing(run, tmp_path):
    report = analyze(write(every(run, 10), tmp_path / "run"))
    assert rules(report) == set()
    assert states(report, "p0") == ["equilibrium", "approaching_from_below"]


def test_averaged_weights_are_named_and_get_no_state(run, tmp_path):
    def averaged(series):
        found, mean = [], series[0]
        for weights in series:
            mean = 0.95 * mean + 0.05 * weights
            found.append(mean)
        return found

    smooth = replace(run, weights={n: averaged(x) for n, x in run.weights.items()})
    report = analyze(write(every(smooth, 10), tmp_path / "run"))
    assert rules(report) == {("SMD040", "weights")}
    assert set(states(report, "p1")) == {"undetermined"}


def test_decay_that_does_not_act(tmp_path):
    lr = stepwise((0, RATE))
    parts = PARTS | {"p1": Part(decay=0.0)}
    run = simulate(RULE, lr, DECAY, parts, total=2400, gap=200, seed=12)
    # The optimizer's groups claim decay for all of them.
    report = analyze(write(replace(run, parts=PARTS), tmp_path / "run"))
    assert rules(report) == {("SMD041", "p1.conv.weight")}
    assert states(report, "p1") == ["undetermined"]
    assert states(report, "p0") == ["equilibrium"]


@pytest.mark.parametrize("factor", [3.0, 0.4])
def test_a_rate_that_is_not_the_recorded_one(run, tmp_path, factor):
    folder = write(every(run, 10), tmp_path / "run")
    schedule = tmp_path / "lr.csv"
    schedule.write_text(f"step,lr\n0,{RATE / factor}\n2000,{RATE / 10 / factor}\n")
    report = analyze(folder, schedule=schedule)
    assert rules(report) == {("SMD042", f"{name}.conv.weight") for name in PARTS}
    (finding, *_) = [f for f in report.diagnosis.findings if f.rule == "SMD042"]
    named = float(finding.message.split("learning rate were ")[1].split(" ")[0])
    assert named == pytest.approx(factor, rel=0.25)


def test_momentum_with_a_radial_part(run, tmp_path):
    """Buffers of another tensor: what a mixed-up checkpoint looks like."""
    lean = {
        n: {
            "first": [
                v + 0.5 * DECAY / (1 - RULE.momentum) * np.sign(i) * w
                for i, (v, w) in enumerate(zip(run.slots[n]["first"], run.weights[n], strict=True))
            ],
            "second": run.slots[n]["second"],
        }
        for n in ("p2",)
    }
    mixed = replace(run, slots=run.slots | lean)
    report = analyze(write(every(mixed, 10), tmp_path / "run"))
    assert rules(report) == {("SMD043", "p2.conv.weight")}
