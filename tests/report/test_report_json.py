import itertools
import json
import math
from pathlib import Path

import jsonschema
import polars as pl
import pytest
import report_helpers as h

import smdlens.report
from smdlens.hyper.records import RateSegment
from smdlens.report.json import dumps, to_dict
from smdlens.report.schedule import at_most

SCHEMA = json.loads((Path(smdlens.report.__file__).parent / "schema.json").read_text())


def refuse_constant(name):
    raise AssertionError(f"{name} in JSON")


def loaded(report):
    return json.loads(dumps(report), parse_constant=refuse_constant)


def test_report_matches_the_published_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator(SCHEMA).validate(loaded(h.resnet_report()))


@pytest.mark.parametrize(
    ("place", "bad"),
    [
        (("stages", 0, "tensors", 0, "state"), "unknown"),
        (("findings", 0, "outcome"), "ok"),
        (("summary", "equilibrium", "held"), -1),
        (("intervals", 0, "ratio"), "NaN"),
        (("tensors", 0, "role"), "invariant"),
    ],
)
def test_schema_refuses_wrong_words(place, bad):
    data = loaded(h.resnet_report())
    where = data
    for key in place[:-1]:
        where = where[key]
    where[place[-1]] = bad
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, SCHEMA)


@pytest.mark.parametrize("key", SCHEMA["required"])
def test_schema_requires_every_top_level_field(key):
    data = loaded(h.resnet_report())
    del data[key]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, SCHEMA)


def test_text_and_dict_agree_and_repeat():
    report = h.resnet_report()
    assert loaded(report) == to_dict(report) == report.to_dict()
    assert dumps(report) == dumps(h.resnet_report())


def test_counts_are_over_invariant_tensor_and_stage_pairs():
    assert loaded(h.resnet_report())["summary"]["equilibrium"] == {
        "held": 106,
        "not_held": 106,
        "undetermined": 0,
        "not_applicable": 0,
    }


def test_no_non_finite_number_reaches_json_and_each_leaves_a_flag():
    diagnosis = h.resnet_diagnosis()
    spoiled = diagnosis.intervals.with_columns(
        pl.lit(math.nan).alias("ratio"), pl.lit(math.inf).alias("norm_to")
    )
    rows = diagnosis.stage_tensors.with_columns(pl.lit(-math.inf).alias("norm"))
    spoiled_diagnosis = type(diagnosis)(
        **{
            f: getattr(diagnosis, f)
            for f in diagnosis.__dataclass_fields__
            if f not in ("intervals", "stage_tensors")
        },
        intervals=spoiled,
        stage_tensors=rows,
    )
    data = loaded(h.resnet_report(spoiled_diagnosis))
    first = data["intervals"][0]
    assert first["ratio"] is None and first["norm_to"] is None
    assert {"nonfinite_ratio", "nonfinite_norm_to"} <= set(first["flags"])
    assert data["stages"][0]["tensors"][0]["flags"] == ["nonfinite_norm"]
    jsonschema.validate(data, SCHEMA)


def test_floats_carry_twelve_significant_digits():
    for row in loaded(h.resnet_report())["intervals"][:200]:
        for value in row.values():
            if isinstance(value, float):
                assert value == float(f"{value:.12g}")


def test_one_record_per_line():
    lines = dumps(h.resnet_report()).splitlines()
    data = loaded(h.resnet_report())
    records = len(data["intervals"]) + len(data["tensors"]) + 54 * 4 + 53 * 3
    assert records < len(lines) < records + 200


def test_long_schedule_is_thinned_to_linear_segments_with_true_ends():
    rates = [0.1 * (1 + math.cos(math.pi * i / 5000)) / 2 for i in range(5000)]
    rows = [RateSegment(0, i, i + 1, r, None, 1e-4, "file") for i, r in enumerate(rates)]
    other = [RateSegment(1, 0, 5000, 0.1, None, 0.0, "file")]
    thin = list(at_most([*rows, *other]))
    assert sum(s.group == 0 for s in thin) <= 2000 and thin[-1] == other[0]
    first = [s for s in thin if s.group == 0]
    assert first[0].step_from == 0 and first[-1].step_to == 5000
    for left, right in itertools.pairwise(first):
        assert left.step_to == right.step_from
        assert left.lr == rates[left.step_from] and left.lr_to == rates[left.step_to]
        assert "thinned" in left.source


def test_short_schedule_is_left_alone():
    rows = [RateSegment(0, i, i + 1, 0.1, None, 1e-4, "file") for i in range(2000)]
    assert list(at_most(rows)) == rows
