"""What other programs read (JUnit, SARIF, Markdown, annotations), by readers not ours."""

import io
import json
import re
from html.parser import HTMLParser

import pytest
from check_helpers import BELOW, EQ, UND, h, parse_junit, parse_sarif, renamed, run
from ground_helpers import HOSTILE
from rich.cells import cell_len
from rich.console import Console

from smdlens.names import for_terminal
from smdlens.report.case_groups import explain
from smdlens.report.github import MOST, github_annotations
from smdlens.report.json import dumps
from smdlens.report.junit import junit
from smdlens.report.markdown import MOST_BYTES, markdown
from smdlens.report.sarif import sarif
from smdlens.report.terminal.check import render_check

MIXED = run([[EQ, EQ], [EQ, BELOW], [BELOW, UND]], unreadable=1)


def test_junit_has_one_node_per_outcome():
    tree = parse_junit(junit(MIXED.check()))
    assert {k: tree.get(k) for k in ("tests", "failures", "errors")} == {
        "tests": "7",
        "failures": "2",
        "errors": "1",
    }
    assert [s.get("name") for s in tree.iter("testsuite")] == [
        "run",
        "stage 1",
        "stage 2",
        "stage 3",
    ]
    failed = [n.getparent().get("name") for n in tree.iter("failure")]
    assert failed == ["conv1.weight [SMD101]", "conv0.weight [SMD101]"]
    assert next(tree.iter("skipped")).get("type") == "inconclusive"
    assert "truncated" in next(tree.iter("error")).get("message")


def test_soft_failures_are_skipped_in_junit_and_notes_in_sarif():
    result = MIXED.check(soft=True)
    tree = parse_junit(junit(result))
    assert tree.get("failures") == "0"
    assert [n.get("type") for n in tree.iter("skipped")].count("soft failure") == 2
    levels = [r["level"] for r in parse_sarif(sarif(result, "run"))["runs"][0]["results"]]
    assert sorted(levels) == ["error", "none", "note", "note"]


def test_warnings_pass_in_junit_and_say_so():
    tree = parse_junit(junit(run([["no_decay"]]).check()))
    assert tree.get("failures") == "0" and not list(tree.iter("skipped"))
    assert "warning: no_decay" in next(tree.iter("system-out")).text


def test_sarif_has_one_result_per_case_that_did_not_pass():
    log = parse_sarif(sarif(MIXED.check(), "runs/a b"))
    results = log["runs"][0]["results"]
    assert sorted((r["kind"], r["level"]) for r in results) == [
        ("fail", "error"),
        ("fail", "error"),
        ("fail", "error"),
        ("open", "none"),
    ]
    place = results[0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert place == "runs/a%20b"
    prints = [json.dumps(r["partialFingerprints"]) for r in results]
    assert len(set(prints)) == len(prints)


def test_everything_passed_is_an_empty_result_list():
    result = run([[EQ]]).check()
    assert parse_sarif(sarif(result, "run"))["runs"][0]["results"] == []
    assert github_annotations(result) == ""


def test_a_run_that_cannot_be_analysed_is_an_error_everywhere():
    from smdlens.diagnosis.check import check_of_error
    from smdlens.errors import NothingToAnalyseError

    error = NothingToAnalyseError("fewer than two usable snapshots", subject="run", remedy="Save.")
    result = check_of_error(error, "default")
    assert result.exit_code == 3
    assert len(list(parse_junit(junit(result)).iter("error"))) == 1
    assert len(parse_sarif(sarif(result, "/abs/run"))["runs"][0]["results"]) == 1
    assert "fewer than two" in markdown(result, None)


def test_json_of_a_check_matches_the_published_schema():
    import jsonschema
    from test_report_json import SCHEMA

    data = json.loads(dumps(MIXED, MIXED.check()))
    jsonschema.Draft202012Validator(SCHEMA).validate(data)
    assert data["check"]["exit_code"] == 1
    assert sum(data["check"]["counts"].values()) == len(data["check"]["cases"]) == 7
    data["check"]["cases"][0]["outcome"] = "ok"
    assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(data)


def test_the_same_check_gives_the_same_bytes():
    def outputs():
        report = h.resnet_report()
        result = report.check()
        return junit(result), sarif(result, "run"), markdown(result, report), dumps(report, result)

    assert outputs() == outputs()


def test_annotations_are_at_most_ten_and_ten_and_count_the_rest():
    many = run([[BELOW, UND]] * 25)
    lines = github_annotations(many.check()).splitlines()
    for kind in ("error", "warning"):
        own = [line for line in lines if line.startswith(f"::{kind} ")]
        assert len(own) == MOST
        assert own[-1].endswith("16 more are in the report")
    assert len(lines) == 2 * MOST


def test_soft_failures_are_warnings_in_annotations():
    lines = github_annotations(run([[BELOW]]).check(soft=True)).splitlines()
    assert len(lines) == 1 and lines[0].startswith("::warning ")


def test_markdown_keeps_to_its_limit_and_says_what_it_leaves_out():
    report = run([[BELOW] * 60] * 60)
    text = markdown(report.check(), report)
    assert len(text.encode()) <= MOST_BYTES
    hidden = int(re.search(r"- (\d+) more do not fit here", text).group(1))
    assert text.count("\n- fail, ") == 3600 - hidden
    assert text.rstrip().endswith("</details>")


def test_markdown_keeps_to_its_limit_with_names_of_any_length():
    report = renamed(run([[BELOW] * 30] * 30), "x" * 60_000)
    assert len(markdown(report.check(), report).encode()) <= MOST_BYTES


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, attrs))

    def handle_data(self, data):
        self.text += data


# Tables hold Unicode text only: a lone surrogate was escaped when the name was read.
NAMES = [name for name in HOSTILE if "\ud800" not in name]


@pytest.fixture(scope="module", params=range(len(NAMES)), ids=lambda i: ascii(NAMES[i])[:24])
def hostile(request):
    name = NAMES[request.param]
    report = renamed(run([[BELOW, EQ], [UND, EQ]]), name)
    return name, report, report.check()


def test_hostile_names_in_junit(hostile):
    name, _, result = hostile
    tree = parse_junit(junit(result))
    assert f"{for_terminal(name)} [SMD101]" in {n.get("name") for n in tree.iter("testcase")}


def test_hostile_names_in_sarif(hostile):
    name, _, result = hostile
    log = parse_sarif(sarif(result, name))
    first = log["runs"][0]["results"][0]
    logical = first["locations"][0]["logicalLocations"][0]["fullyQualifiedName"]
    assert logical == for_terminal(name)
    # Read as SARIF says: backslashes escape, doubled braces are braces, nothing is a link.
    text = first["message"]["text"]
    assert not re.search(r"(?<!\\)(?:\\\\)*[\[\]]", text)
    plain = re.sub(r"\\(.)", r"\1", text).replace("{{", "{").replace("}}", "}")
    assert for_terminal(name) in plain


def test_hostile_names_in_annotations(hostile):
    _, _, result = hostile
    for line in github_annotations(result).splitlines():
        command = re.fullmatch(r"::(error|warning) title=([^:,]*)::(.*)", line)
        assert command and "::" not in command.group(3) and "##" not in command.group(3)
        assert "%" not in command.group(3).replace("%25", "")


def test_hostile_names_in_markdown(hostile):
    name, report, result = hostile
    text = markdown(result, report)
    parser = Tags()
    parser.feed(text)
    assert [t for t in parser.tags if t[0] not in ("details", "summary")] == []
    if len(name) < 200:
        assert for_terminal(name) in parser.text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} <= {5, 7}  # the two tables: no name adds a cell
    assert "](" not in text and "`" not in text


def test_hostile_names_in_an_assertion(hostile):
    _, _, result = hostile
    assert all(line.isprintable() for line in explain(result).split("\n"))


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_hostile_names_in_the_terminal(hostile, width, encoding):
    name, report, result = hostile
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    console = Console(file=stream, width=width, color_system=None, force_terminal=False)
    render_check(report, result, console, verbose=True)
    lines = raw.getvalue().decode(encoding).splitlines()
    assert max(map(cell_len, lines)) <= width
    assert all(line.isprintable() for line in lines)
    if len(name) < 30 and encoding == "utf-8":
        assert " ".join(for_terminal(name).split()) in " ".join(" ".join(lines).split())
