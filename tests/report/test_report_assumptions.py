"""The audit of the assumptions in words: what is worst, what is broken, what nobody knows."""

import dataclasses

import polars as pl
import report_helpers as h

from smdlens.diagnosis.records import THEOREM_SCHEMA, UNIT_GRADIENT_SCHEMA, Assumption
from smdlens.report.assumption_rows import assumption_rows
from smdlens.report.gradient_rows import gradient_rows, theorem_rows
from smdlens.report.html.page import page
from smdlens.vocabulary import Outcome


def case(name, holds, value, limit, tensor="a", stage=1, reason="because"):
    return Assumption(name, holds, value, limit, tensor, stage, reason, "Wan2021, Thm 1")


def test_the_worst_of_the_broken_cases_is_shown():
    (row,) = assumption_rows(
        [
            case("gradient_smooth", True, 9.0, 10.0, "fine"),
            case("gradient_smooth", False, 2e-5, 1e-5, "twice"),
            case("gradient_smooth", False, 5e-5, 1e-5, "five times"),
            case("gradient_smooth", None, None, None, "dark"),
        ]
    )
    assert row.outcome is Outcome.WARN
    assert row.verdict == "broken in 2, holds in 1, not known in 1 of 4 cases"
    assert row.where == "stage 1, five times"
    assert row.value.endswith("5.00e-5")
    assert row.limit == "below 1.00e-5"


def test_of_lower_bounds_the_smallest_is_the_worst():
    (row,) = assumption_rows(
        [
            case("gradient_bounded_below", True, 0.5, 1e-6, "half"),
            case("gradient_bounded_below", True, 0.1, 1e-6, "tenth"),
        ]
    )
    assert (row.verdict, row.where) == ("holds in all 2 cases", "stage 1, tenth")
    (row,) = assumption_rows(
        [
            case("norm_as_theorem", True, 1.0, 1.01, "close"),
            case("norm_as_theorem", True, 0.5, 1.0, "far"),
        ]
    )
    assert row.where == "stage 1, far"


def test_what_is_not_known_says_why():
    (row,) = assumption_rows([case("gradient_orthogonal", None, None, None, reason="too sparse")])
    assert (row.outcome, row.verdict) == (Outcome.INCONCLUSIVE, "not known")
    assert (row.value, row.limit, row.reason) == ("", "", "too sparse")


def test_rows_come_in_the_order_of_the_report_and_unknown_names_last():
    rows = assumption_rows(
        [case("something_new", True, 1.0, 2.0), case("lr_decay_small", True, 1e-4, 1e-2)]
    )
    assert [row.meaning for row in rows][1] == "something new"


def gradients(**values):
    row = dict.fromkeys(UNIT_GRADIENT_SCHEMA) | {"source": "buffers", "updates": 40} | values
    return pl.DataFrame([row], schema=UNIT_GRADIENT_SCHEMA, orient="row")


def test_no_right_angle_is_expected_of_a_classifier():
    frame = pl.concat(
        [
            gradients(stage=1, tensor="conv", orthogonal=True, cosine_rms=1e-6),
            gradients(stage=1, tensor="fc", orthogonal=False, cosine_rms=0.1),
            gradients(stage=1, tensor="odd", orthogonal=False, cosine_rms=0.1),
        ]
    )
    conv, fc, odd = gradient_rows(frame, {"conv", "odd"})
    assert (conv.outcome, conv.verdict, conv.free) == (Outcome.PASS, "yes", "")
    assert (fc.outcome, fc.verdict, fc.free) == (Outcome.INCONCLUSIVE, "no", "not expected")
    assert (odd.outcome, odd.verdict) == (Outcome.WARN, "no")


def test_the_page_shows_gradients_and_theorems_of_hostile_names():
    report = h.resnet_report()
    name = "<script>alert(1)</script>"
    theorem = dict.fromkeys(THEOREM_SCHEMA) | {
        "stage": 2, "tensor": name, "norm": 2.0, "expected_norm": 1.0, "vanishing": 0.3,
        "expected_angle_rad": 0.01, "probability": 0.0,
    }  # fmt: skip
    diagnosis = dataclasses.replace(
        report.diagnosis,
        unit_gradients=gradients(stage=1, tensor=name, p50=1.5, orthogonal=True),
        theorems=pl.DataFrame([theorem], schema=THEOREM_SCHEMA, orient="row"),
    )
    text = page(dataclasses.replace(report, diagnosis=diagnosis), report.check())
    assert "Gradients of single updates" in text
    assert "Norms and angles against the theorems" in text
    assert name not in text.split('id="exact-title"')[1].split('id="facts-title"')[0]
    (row,) = theorem_rows(diagnosis.theorems)
    assert (row.vanishing, row.probability, row.bound, row.off) == ("30%", "0%", "", "")
