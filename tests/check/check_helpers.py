"""Runs of known states, built by hand, and readers that are not ours."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import jsonschema
from lxml import etree

TESTS = Path(__file__).parents[1]
for room in ("report", "ground", "cli"):
    sys.path.insert(0, str(TESTS / room))

import report_helpers as h  # noqa: E402

from smdlens.report.build import build_report  # noqa: E402
from smdlens.snapshots.records import Skipped  # noqa: E402
from smdlens.vocabulary import SkipReason  # noqa: E402

EQ, BELOW, UND, NO_DECAY = "equilibrium", "approaching_from_below", "undetermined", "no_decay"
HERE = Path(__file__).parent
XSD = etree.XMLSchema(etree.parse(str(HERE / "junit-10.xsd")))
SARIF = json.loads((HERE / "sarif-essentials.json").read_text())


def run(states, *, unreadable=0, warm_up_end=None, ratio=1.0, findings=(), **more):
    """A report from states[stage][tensor]; stages are 1000 steps long."""
    diagnosis = h.with_states(states, ratio=ratio, findings=findings, **more)
    if warm_up_end is not None:
        hyper = dataclasses.replace(diagnosis.hyper, warm_up_end=warm_up_end)
        diagnosis = dataclasses.replace(diagnosis, hyper=hyper)
    skipped = tuple(
        Skipped(f"ckpt_{i}.pt", SkipReason.UNREADABLE, "truncated") for i in range(unreadable)
    )
    series = h.series(skipped=skipped, steps=tuple(range(0, 1000 * len(states) + 1, 100)))
    return build_report(series, h.motion(), diagnosis, command=("smdlens", "analyze", "run"))


def renamed(report, name):
    """The same report with its first tensor called `name`."""
    diagnosis = report.diagnosis
    old = next(iter(diagnosis.groups.tensors))
    tensors = {
        name if n == old else n: dataclasses.replace(t, name=name) if n == old else t
        for n, t in diagnosis.groups.tensors.items()
    }
    frames = {
        field: getattr(diagnosis, field).with_columns(
            getattr(diagnosis, field)["tensor"].replace({old: name})
        )
        for field in ("intervals", "stage_tensors", "decay_tensors")
    }
    groups = dataclasses.replace(diagnosis.groups, tensors=tensors)
    findings = tuple(
        dataclasses.replace(f, subject=name, message=f"{name}: {f.message}", remedy=name)
        for f in diagnosis.findings
    )
    changed = dataclasses.replace(diagnosis, groups=groups, findings=findings, **frames)
    return dataclasses.replace(report, diagnosis=changed)


def parse_junit(text):
    """The document, valid against the schema, with its counts recomputed from the nodes."""
    tree = etree.fromstring(text.encode())
    XSD.assertValid(tree)
    for suite in [*tree.iter("testsuite"), tree]:
        assert int(suite.get("tests")) == len(list(suite.iter("testcase")))
        for attribute, tag in (
            ("failures", "failure"),
            ("errors", "error"),
            ("skipped", "skipped"),
        ):
            if suite.get(attribute) is not None:
                assert int(suite.get(attribute)) == len(list(suite.iter(tag))), attribute
    return tree


def parse_sarif(text):
    """The log, valid against the essentials, rule indices included."""
    log = json.loads(text)
    jsonschema.Draft202012Validator(SARIF).validate(log)
    rules = log["runs"][0]["tool"]["driver"]["rules"]
    for result in log["runs"][0]["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    return log
