"""Known runs x policies -> exit code and counts."""

import json

import pytest
from check_helpers import BELOW, EQ, NO_DECAY, UND, h, run

from smdlens.diagnosis.policy import BUILT_IN
from smdlens.diagnosis.policy_file import COMMENTED, read_policy, resolve_policy
from smdlens.diagnosis.records import Finding
from smdlens.errors import InputError
from smdlens.vocabulary import Outcome, Role, State

LEAK = Finding("SMD007", Outcome.WARN, "conv0.weight", "epsilon acts")
NAN = Finding("SMD023", Outcome.FAIL, "conv0.weight", "3 weights are NaN")
NONE = Finding("SMD001", Outcome.INCONCLUSIVE, "network", "nothing is invariant")
GOOD = Finding("SMD009", Outcome.PASS, "fc", "as declared")

RUNS = {
    "held": run([[EQ, "lagging"], [EQ, EQ]]),
    "one fails": run([[EQ, EQ], [EQ, BELOW]]),
    "undetermined": run([[EQ, UND]]),
    "no decay": run([[EQ, NO_DECAY]]),
    "unreadable": run([[EQ, EQ]], unreadable=2),
    "fails and unreadable": run([[BELOW, UND]], unreadable=1),
    "unreadable and undetermined": run([[EQ, UND]], unreadable=1),
    "warm-up": run([[BELOW, UND], [EQ, EQ]], warm_up_end=1000),
    "leak": run([[EQ]], findings=(LEAK, GOOD)),
    "nan": run([[EQ]], findings=(NAN,)),
    "nothing invariant": run([[UND]], roles=[Role.NOT_SCALE_INVARIANT], findings=(NONE,)),
}
# run -> (strict, default, report-only): exit code and (pass, warn, fail, inconclusive, error)
MATRIX = {
    "held": ((0, (4, 0, 0, 0, 0)), (0, (4, 0, 0, 0, 0)), (0, (4, 0, 0, 0, 0))),
    "one fails": ((1, (3, 0, 1, 0, 0)), (1, (3, 0, 1, 0, 0)), (0, (3, 1, 0, 0, 0))),
    "undetermined": ((4, (1, 0, 0, 1, 0)), (4, (1, 0, 0, 1, 0)), (0, (1, 1, 0, 0, 0))),
    "no decay": ((1, (1, 0, 1, 0, 0)), (0, (1, 1, 0, 0, 0)), (0, (1, 1, 0, 0, 0))),
    "unreadable": ((3, (2, 0, 0, 0, 2)), (3, (2, 0, 0, 0, 2)), (0, (2, 2, 0, 0, 0))),
    "fails and unreadable": ((1, (0, 0, 1, 1, 1)), (1, (0, 0, 1, 1, 1)), (0, (0, 3, 0, 0, 0))),
    "unreadable and undetermined": (
        (3, (1, 0, 0, 1, 1)),
        (3, (1, 0, 0, 1, 1)),
        (0, (1, 2, 0, 0, 0)),
    ),
    "warm-up": ((1, (2, 0, 1, 1, 0)), (0, (4, 0, 0, 0, 0)), (0, (4, 0, 0, 0, 0))),
    "leak": ((1, (2, 0, 1, 0, 0)), (0, (2, 1, 0, 0, 0)), (0, (2, 1, 0, 0, 0))),
    "nan": ((1, (1, 0, 1, 0, 0)), (1, (1, 0, 1, 0, 0)), (0, (1, 1, 0, 0, 0))),
    "nothing invariant": ((4, (0, 0, 0, 1, 0)), (4, (0, 0, 0, 1, 0)), (0, (0, 1, 0, 0, 0))),
}
ORDER = (Outcome.PASS, Outcome.WARN, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.ERROR)


def counts(result):
    return tuple(result.count(outcome) for outcome in ORDER)


@pytest.mark.parametrize("policy", [0, 1, 2], ids=["strict", "default", "report-only"])
@pytest.mark.parametrize("name", RUNS)
def test_exit_code_and_counts(name, policy):
    result = RUNS[name].check(("strict", "default", "report-only")[policy])
    code, expected = MATRIX[name][policy]
    assert counts(result) == expected
    assert result.exit_code == code


def test_soft_hides_failures_and_nothing_else():
    assert RUNS["one fails"].check(soft=True).exit_code == 0
    assert RUNS["fails and unreadable"].check(soft=True).exit_code == 3
    assert run([[BELOW, UND]]).check(soft=True).exit_code == 4


def test_inconclusive_may_be_allowed_but_hides_no_failure():
    assert RUNS["undetermined"].check(allow_inconclusive=True).exit_code == 0
    assert run([[BELOW, UND]]).check(allow_inconclusive=True).exit_code == 1
    result = RUNS["unreadable and undetermined"].check(allow_inconclusive=True)
    assert result.exit_code == 3


def policy_of(tmp_path, text):
    path = tmp_path / "smdlens.toml"
    path.write_text(text)
    return read_policy(path)


def check(report, tmp_path, text, **more):
    return report.check(policy_of(tmp_path, text), **more)


def test_the_file_that_init_writes_is_the_default_policy(tmp_path):
    asked = policy_of(tmp_path, COMMENTED)
    default = BUILT_IN["default"]
    for field in ("demand", "overrides", "tolerance", "share", "iterations", "unreadable"):
        assert getattr(asked, field) == getattr(default, field), field
    assert dict(asked.findings) == {} and asked.baseline is None


def test_everything_commented_out_in_it_is_valid_too(tmp_path):
    lines = COMMENTED.splitlines()
    prose = ("# What", "# Options", "# States", "# diverging", '# "any"', "# inconclusive")
    opened = [
        line.removeprefix("# ")
        if line.startswith("# ") and not line.startswith((*prose, "# Other", "# warm-up"))
        else line
        for line in lines
    ]
    asked = policy_of(tmp_path, "\n".join(opened))
    assert asked.demand.ratio == (0.9, 1.1) and asked.overrides[-1].ratio == (0.5, 1.1)
    assert asked.findings == {"SMD007": Outcome.FAIL}
    assert asked.baseline == str(tmp_path / "last.json")


def test_states_by_glob_and_stage(tmp_path):
    report = run([[BELOW, EQ], [BELOW, BELOW], [EQ, BELOW]])
    text = """
    [[check.rules]]
    tensors = "conv0.*"
    stages = [1, 2]
    allow = ["not_held", "equilibrium"]
    [[check.rules]]
    tensors = ["conv1.weight"]
    stages = "last"
    warn = ["approaching_from_below"]
    """
    result = check(report, tmp_path, text)
    assert [(c.stage, c.subject) for c in result.with_outcome(Outcome.FAIL)] == [
        (2, "conv1.weight")
    ]
    assert [(c.stage, c.subject) for c in result.with_outcome(Outcome.WARN)] == [
        (3, "conv1.weight")
    ]


@pytest.mark.parametrize(
    ("selector", "stages"),
    [("all", [1, 2, 3]), ("first", [1]), ("last", [3]), ("warm-up", [1]), (2, [2]), (-2, [2])],
)
def test_stage_selectors(tmp_path, selector, stages):
    report = run([[BELOW]] * 3, warm_up_end=1000)
    text = f"""
    policy = "strict"
    [[check.rules]]
    stages = [{json.dumps(selector)}]
    warn = ["any"]
    """.replace("policy", "[check]\npolicy")
    result = check(report, tmp_path, text)
    assert [c.stage for c in result.with_outcome(Outcome.WARN)] == stages


@pytest.mark.parametrize(
    ("states", "share", "code"),
    [
        ([EQ, EQ, EQ, BELOW], 0.75, 0),
        ([EQ, EQ, EQ, BELOW], 0.8, 1),
        ([EQ, EQ, UND, BELOW], 0.75, 4),
        ([EQ, UND, BELOW, BELOW], 0.75, 1),
        ([EQ, EQ, EQ, UND], 0.75, 0),
        ([BELOW, BELOW], 0, 0),
    ],
)
def test_share_of_a_stage_decides_as_soon_as_it_can(tmp_path, states, share, code):
    result = check(run([states]), tmp_path, f"[check]\nshare = {share}")
    assert result.exit_code == code


@pytest.mark.parametrize(
    ("ratio", "outcome"),
    [(1.0, "pass"), (0.7, "fail"), (1.5, "fail"), (0.905, "inconclusive"), (1.1, "inconclusive")],
)
def test_ratio_band_is_decided_by_the_interval(tmp_path, ratio, outcome):
    report = run([[EQ]], ratio=ratio)
    frame = report.diagnosis.stage_tensors
    report.diagnosis.stage_tensors.replace_column(
        frame.get_column_index("ratio_low"), (frame["ratio"] * 0.98).alias("ratio_low")
    ).replace_column(
        frame.get_column_index("ratio_high"), (frame["ratio"] * 1.02).alias("ratio_high")
    )
    result = check(report, tmp_path, "[check]\nratio = [0.9, 1.1]")
    assert [c.outcome.value for c in result.cases if c.rule == "SMD102"] == [outcome]


def test_a_band_cannot_be_judged_without_a_ratio(tmp_path):
    result = check(run([[NO_DECAY]], ratio=None), tmp_path, "[check]\nratio = [0.9, 1.1]")
    assert result.exit_code == 4


@pytest.mark.parametrize(("level", "code"), [("fail", 1), ("warn", 0), ("ignore", 0)])
def test_cuts_need_enough_iterations(tmp_path, level, code):
    text = f'[check]\nallow = ["any"]\niterations = "{level}"\nfindings = {{"*" = "ignore"}}'
    result = check(h.resnet_report(), tmp_path, text)
    assert result.exit_code == code
    cuts = {c.stage: c.outcome for c in result.cases if c.rule == "SMD104"}
    bad = {"fail": Outcome.FAIL, "warn": Outcome.WARN}.get(level)
    assert cuts == ({2: Outcome.PASS, 3: bad, 4: bad} if bad else {})


def test_the_iterations_a_cut_needs_are_those_of_the_analysis():
    report = h.resnet_report()
    told = {c.stage: c.message for c in report.check("default").cases if c.rule == "SMD104"}
    needed = {
        s.stage.index: s.reequilibration.needed
        for s in report.summary.stages
        if s.reequilibration is not None
    }
    assert set(told) == set(needed) == {2, 3, 4}
    assert all(f"they need {needed[stage]:,.0f} iterations" in told[stage] for stage in told)


def test_findings_fail_warn_or_are_ignored_by_rule(tmp_path):
    report = RUNS["leak"]
    assert check(report, tmp_path, '[check.findings]\nSMD007 = "fail"').exit_code == 1
    ignored = check(report, tmp_path, '[check.findings]\n"*" = "ignore"')
    assert {c.rule for c in ignored.cases} == {"SMD101", "SMD009"}


def test_findings_said_by_rules_count_once_unless_named(tmp_path):
    said = Finding("SMD002", Outcome.FAIL, "stage 1", "1 of 1 tensors end below")
    report = run([[BELOW]], findings=(said,))
    assert counts(report.check()) == (0, 0, 1, 0, 0)
    result = check(report, tmp_path, '[check]\nallow=["any"]\n[check.findings]\nSMD002 = "fail"')
    assert [c.rule for c in result.with_outcome(Outcome.FAIL)] == ["SMD002"]


def test_unreadable_may_warn(tmp_path):
    assert check(RUNS["unreadable"], tmp_path, '[check]\nunreadable = "warn"').exit_code == 0


def baseline_of(report, tmp_path):
    report.save(tmp_path / "last.json")
    return tmp_path / "last.json"


@pytest.mark.parametrize(
    ("before", "after", "ratios", "code"),
    [
        (EQ, EQ, (1.0, 1.05), 0),
        (EQ, BELOW, (1.0, 0.85), 1),
        (BELOW, BELOW, (0.5, 0.45), 0),
        (BELOW, BELOW, (0.5, 0.35), 1),
        (BELOW, BELOW, (0.5, 1.4), 0),
        (BELOW, "diverging", (5.0, 5.0), 1),
        (BELOW, EQ, (0.5, 1.0), 0),
        (EQ, UND, (1.0, None), 4),
        (UND, BELOW, (None, 0.5), 0),
        (EQ, NO_DECAY, (1.0, None), 1),
    ],
)
def test_baseline_fails_what_became_worse(tmp_path, before, after, ratios, code):
    earlier = baseline_of(run([[before]], ratio=ratios[0]), tmp_path)
    result = run([[after]], ratio=ratios[1]).check("report-only", baseline=earlier)
    assert result.exit_code == code


def test_baseline_of_a_policy_lies_beside_its_file(tmp_path):
    baseline_of(run([[EQ]]), tmp_path)
    result = check(run([[BELOW]]), tmp_path, '[check]\nallow = ["any"]\nbaseline = "last.json"')
    assert result.exit_code == 1


def test_tensors_unknown_to_the_baseline_are_counted(tmp_path):
    earlier = baseline_of(run([[EQ]]), tmp_path)
    result = run([[EQ, EQ]]).check(baseline=earlier)
    assert result.exit_code == 0
    assert "1 cases" in result.with_outcome(Outcome.WARN)[0].message


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"schema_version": "2.0"}', '{"schema_version": "1.0"}', "[" * 99999],
)
def test_a_baseline_that_is_none_is_a_usage_error(tmp_path, content):
    (tmp_path / "last.json").write_text(content)
    with pytest.raises(InputError, match=r"last\.json"):
        RUNS["held"].check(baseline=tmp_path / "last.json")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[check]\nalow = ['any']", "Did you mean allow"),
        ("[check]\nzzz = 1", "Known keys"),
        ("check = 1", "a table"),
        ("[check]\nallow = ['held']", "equilibrium, lagging"),
        ("[check]\nallow = 1", "a text in quotes or a list"),
        ("[check]\npolicy = 'lax'", "strict, default, report-only"),
        ("[check]\nratio = [1.1, 0.9]", "low < high"),
        ("[check]\nratio = 1", "two numbers"),
        ("[check]\nratio = ['a', 1]", "two numbers"),
        ("[check]\ntolerance = 1.5", "between 0 and 1"),
        ("[check]\nshare = true", "from 0 to 1"),
        ("[check]\nshare = 2", "from 0 to 1"),
        ("[check]\niterations = 'error'", "fail, warn, ignore"),
        ("[check]\nunreadable = 'fail'", "error, warn"),
        ("[check]\nbaseline = 1", "a text"),
        ("[check]\nfindings = 'fail'", "a table of rules"),
        ("[check.findings]\nleak = 'fail'", "SMD007"),
        ("[check.findings]\nSMD007 = 'error'", "fail, warn, ignore"),
        ("[check.rules]\nallow = ['any']", r"[[check.rules]]"),
        ("[[check.rules]]\nstages = ['final']", "warm-up"),
        ("[[check.rules]]\nstages = [0]", "from 1"),
        ("[[check.rules]]\nshare = 1", "unknown key"),
    ],
)
def test_mistakes_in_a_policy_name_file_key_and_remedy(tmp_path, text, says):
    with pytest.raises(InputError) as caught:
        policy_of(tmp_path, text)
    assert says in str(caught.value) and "smdlens.toml" in str(caught.value)
    assert caught.value.exit_code == 2


def test_policies_are_found_by_name_then_file_then_configuration(tmp_path):
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text('[tool.smdlens]\nlr = 0.1\n[tool.smdlens.check]\npolicy = "strict"\n')
    assert resolve_policy(None, None) is BUILT_IN["default"]
    assert resolve_policy(None, pyproject).findings == {"*": Outcome.FAIL}
    assert resolve_policy("report-only", pyproject) is BUILT_IN["report-only"]
    assert resolve_policy(str(pyproject), None).name == str(pyproject)
    with pytest.raises(InputError, match="strict, default, report-only"):
        resolve_policy("lax", pyproject)
    (tmp_path / "empty.toml").write_text("lr = 0.1")
    with pytest.raises(InputError, match=r"table \[check\]"):
        resolve_policy(str(tmp_path / "empty.toml"), None)


def test_every_state_has_an_outcome_in_every_built_in_policy():
    for policy in BUILT_IN.values():
        outcomes = {state: policy.demand.outcome_of(state) for state in State}
        assert outcomes[State.EQUILIBRIUM] is outcomes[State.LAGGING] is Outcome.PASS
        assert Outcome.ERROR not in outcomes.values()
