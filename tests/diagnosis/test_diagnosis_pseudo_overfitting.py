"""A test metric that falls while the angle grows back after a cut is marked; nothing else is."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from diagnosis_helpers import Part, Rule, analyze, simulate, stepwise, write

import smdlens
from smdlens.diagnosis import diagnose
from smdlens.errors import InputError

DECAY, RATE, MOMENTUM = 5e-3, 0.1, 0.9
# 4 Gamma is 2e-2, 2e-3 and 2e-4 per update: the second stage relaxes, the third hardly moves.
CUTS, TOTAL = (1000, 2600), 4000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    norm = (RATE / (2 * DECAY * (1 - MOMENTUM))) ** 0.25
    lr = stepwise((0, RATE), (CUTS[0], RATE / 10), (CUTS[1], RATE / 100))
    parts = {f"p{i}": Part(norm=norm) for i in range(2)}
    run = simulate(Rule(momentum=MOMENTUM), lr, DECAY, parts, total=TOTAL, gap=200, seed=3)
    return write(run, tmp_path_factory.mktemp("run"))


def accuracy(step, fall, noise):
    """Jumps up at both cuts; after the first it falls by `fall` over its stage."""
    level = 0.8 + 0.1 * (step > CUTS[0]) + 0.01 * (step > CUTS[1])
    through = np.clip((step - CUTS[0]) / (CUTS[1] - CUTS[0]), 0, 1) * (step <= CUTS[1])
    return level - fall * through + noise


def log(folder, fall, seed=0, scatter=0.002, every=100):
    rng = np.random.default_rng(seed)
    steps = range(every, TOTAL + 1, every)
    rows = [f"{s},{accuracy(s, fall, scatter * rng.standard_normal()):.5f}" for s in steps]
    path = folder / "metrics.csv"
    path.write_text("step,test_acc\n" + "\n".join(rows) + "\n")
    return path


def marks(report):
    return [row.pseudo_overfitting for row in report.diagnosis.metric_stages]


def rules(report):
    return [f for f in report.diagnosis.findings if f.rule.startswith("SMD07")]


def test_a_fall_after_the_cut_is_marked(folder, tmp_path):
    report = analyze(folder, metrics=log(tmp_path, fall=0.02))
    assert marks(report) == [False, True, False]
    (finding,) = rules(report)
    assert (finding.rule, finding.subject) == ("SMD070", "stage 2")
    row = report.diagnosis.metric_stages[1]
    assert row.change == pytest.approx(-0.0175, abs=0.0055)
    assert CUTS[0] < row.best_at < 1800
    assert row.ratio_from < 0.5 < 0.8 < row.ratio_to
    for word in ("test_acc", f"{row.best:.4g}", f"{row.last:.4g}", f"{row.best_at:.0f}"):
        assert word in finding.message


def test_a_loss_that_grows_is_the_same(folder, tmp_path):
    path = log(tmp_path, fall=0.02)
    lines = path.read_text().splitlines()[1:]
    turned = [f"{line.split(',')[0]},{1 - float(line.split(',')[1])}" for line in lines]
    path.write_text("step,odd\n" + "\n".join(turned) + "\n")
    with pytest.raises(InputError, match="looks like a test metric"):
        analyze(folder, metrics=path)
    assert marks(analyze(folder, metrics=path, metric="odd", metric_goal="down"))[1] is True
    assert marks(analyze(folder, metrics=path, metric="odd", metric_goal="up"))[1] is False


def test_a_metric_that_does_not_fall_is_not_marked(folder, tmp_path, monkeypatch):
    """Of 200 noisy logs that stay level or rise, hardly more than the 1% of chance are marked."""
    calls = []
    real = diagnose.metric_stages

    def recorded(*arguments):
        calls.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(diagnose, "metric_stages", recorded)
    analyze(folder, metrics=log(tmp_path, fall=0.0))
    metric, *rest = calls[0]
    rng = np.random.default_rng(1)
    marked = 0
    for fall in (0.0, -0.01) * 100:
        noise = 0.002 * rng.standard_normal(len(metric.at))
        values = tuple(accuracy(s, fall, e) for s, e in zip(metric.at, noise, strict=True))
        found = real(replace(metric, values=values), *rest)
        marked += any(row.pseudo_overfitting for row in found)
    assert marked <= 4


def test_too_few_values_are_not_decided(folder, tmp_path):
    report = analyze(folder, metrics=log(tmp_path, fall=0.05, every=400))
    assert marks(report) == [False, None, False]
    assert rules(report) == []


def test_values_outside_the_run_are_said(folder, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("step,test_acc\n900000,0.5\n")
    (finding,) = rules(analyze(folder, metrics=path))
    assert finding.rule == "SMD071"
    assert "0-4000" in finding.message


def test_the_report_holds_the_metric(folder, tmp_path):
    report = analyze(folder, metrics=log(tmp_path, fall=0.02))
    content = report.to_dict()
    schema = json.loads((Path(smdlens.__file__).parent / "report/schema.json").read_text())
    jsonschema.validate(content, schema)
    assert content["metric"]["goal"] == "up"
    assert len(content["metric"]["values"]) == 40
    assert content["metric"]["stages"][1]["pseudo_overfitting"] is True
    page = tmp_path / "report.html"
    report.save(page)
    text = page.read_text()
    assert "Test metric beside the angle" in text
    assert "best 0.8976, falls as the angle grows" in text
    assert "metric" not in analyze(folder).to_dict()
