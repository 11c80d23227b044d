"""`smdlens check` and `smdlens.assert_equilibrium` on the sample run."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from check_helpers import parse_junit, parse_sarif
from cli_helpers import ROOT, smdlens

import smdlens as package
from smdlens.cli.app import main

SAMPLE = ROOT / "sample_checkpoints"


@pytest.fixture
def check(capsys, monkeypatch):
    """Runs the command in this process: loading torch anew each time would take the longest."""

    def run(*arguments, cwd=None, **environment):
        with monkeypatch.context() as patch:
            for name in ("CI", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "COLUMNS"):
                patch.delenv(name, raising=False)
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.setattr("smdlens.cli.leaving.install", lambda: None)
            patch.chdir(cwd or ROOT)
            with pytest.raises(SystemExit) as leave:
                main(["check", *map(str, arguments)])
        written = capsys.readouterr()
        return SimpleNamespace(returncode=leave.value.code, stdout=written.out, stderr=written.err)

    return run


def test_sample_fails_the_default_policy_and_says_why(check, tmp_path):
    outputs = [tmp_path / name for name in ("c.xml", "c.sarif", "c.json", "c.md")]
    done = check(SAMPLE, *(w for o in outputs for w in ("-o", o)), "--device", "cpu")
    assert done.returncode == 1 and done.stderr == ""
    assert "Check failed (policy default): 6 failed" in done.stdout
    assert "::" not in done.stdout and max(map(len, done.stdout.splitlines())) <= 80
    data = json.loads(outputs[2].read_text())
    assert data["check"]["counts"]["fail"] == 6 and data["command"][:2] == ["smdlens", "check"]
    tree = parse_junit(outputs[0].read_text())
    assert tree.get("failures") == "6"
    results = parse_sarif(outputs[1].read_text())["runs"][0]["results"]
    assert [r["level"] for r in results].count("error") == 6
    assert outputs[3].read_text().startswith("### ")
    again = [tmp_path / f"again{o.suffix}" for o in outputs]
    check(SAMPLE, *(w for o in again for w in ("-o", o)), "--device", "cpu")
    for first, second in zip(outputs, again, strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_stages_that_held_pass(check, tmp_path):
    done = check(SAMPLE, "--steps", "0:6000")
    assert done.returncode == 0, done.stdout
    assert "Check passed" in done.stdout


def test_soft_report_only_and_policy_file(check, tmp_path):
    assert check(SAMPLE, "--soft", "-q").returncode == 0
    assert check(SAMPLE, "--policy", "report-only", "-q").returncode == 0
    (tmp_path / "smdlens.toml").write_text("[[check.rules]]\nstages = [3]\nallow = 'not_held'\n")
    done = check(SAMPLE, "-q", cwd=tmp_path)
    assert done.returncode == 0 and "smdlens.toml" in done.stdout.replace("\n   ", "")


def test_baseline_of_itself_passes_and_tolerance_comes_from_the_policy(check, tmp_path):
    package.analyze(SAMPLE).save(tmp_path / "last.json")
    done = check(SAMPLE, "--policy", "report-only", "--baseline", tmp_path / "last.json")
    assert done.returncode == 0, done.stdout
    (tmp_path / "p.toml").write_text("[check]\ntolerance = 0.6\n")
    done = check(SAMPLE, "--policy", tmp_path / "p.toml", "-q")
    assert done.returncode == 0, done.stdout
    assert check(SAMPLE, "--policy", tmp_path / "p.toml", "--tolerance", "0.1").returncode == 1


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """The first two stages of the sample run, one snapshot cut short."""
    folder = tmp_path_factory.mktemp("runs") / "broken"
    folder.mkdir()
    for step in range(0, 6001, 240):
        content = (SAMPLE / f"ckpt_{step}.pt").read_bytes()
        (folder / f"ckpt_{step}.pt").write_bytes(content[:9000] if step == 480 else content)
    return folder


def test_an_unreadable_snapshot_is_3_and_never_hides_a_failure(check, broken, tmp_path):
    done = check(broken, "-o", tmp_path / "c.xml")
    assert done.returncode == 3, done.stdout
    assert "ckpt_480.pt" in parse_junit((tmp_path / "c.xml").read_text())[0][1].get("name")
    (tmp_path / "p.toml").write_text("[check]\nunreadable = 'warn'\n")
    assert check(broken, "--policy", tmp_path / "p.toml").returncode == 0
    (tmp_path / "f.toml").write_text("[check]\nratio = [2.0, 3.0]\n")
    assert check(broken, "--policy", tmp_path / "f.toml").returncode == 1


def test_nothing_analysed_is_3_and_ci_still_gets_its_files(check, tmp_path):
    summary = tmp_path / "summary.md"
    done = check(
        tmp_path / "missing",
        *("-o", tmp_path / "c.xml", "-o", tmp_path / "c.sarif", "-o", tmp_path / "c.json"),
        GITHUB_ACTIONS="true",
        GITHUB_STEP_SUMMARY=str(summary),
    )
    assert done.returncode == 3
    assert parse_junit((tmp_path / "c.xml").read_text()).get("errors") == "1"
    assert len(parse_sarif((tmp_path / "c.sarif").read_text())["runs"][0]["results"]) == 1
    assert not (tmp_path / "c.json").exists() and "c.json: not written" in done.stderr
    assert done.stdout.startswith("::error title=smdlens SMD106::")
    assert "no such file or folder" in summary.read_text()


def test_on_github_annotations_and_summary(check, tmp_path):
    summary = tmp_path / "summary.md"
    summary.write_text("from an earlier command\n")
    done = check(SAMPLE, GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(summary))
    assert done.returncode == 1
    assert [line[:8] for line in done.stdout.splitlines() if line.startswith("::")] == [
        "::error ",
        "::warnin",
    ]
    text = summary.read_text()
    assert text.startswith("from an earlier command\n### ") and len(text.encode()) < 65536
    quiet = check(SAMPLE, "--json", GITHUB_ACTIONS="true")
    assert json.loads(quiet.stdout)["check"]["outcome"] == "fail"


def test_init_writes_a_commented_file_once(check, tmp_path):
    done = check("--init", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "smdlens.toml").read_text()
    assert text.count("#") > 10
    again = check("--init", cwd=tmp_path)
    assert again.returncode == 2 and (tmp_path / "smdlens.toml").read_text() == text
    assert check(SAMPLE, "-q", cwd=tmp_path).returncode == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "no RUN"),
        (("x", "--policy", "lax"), "strict, default, report-only"),
        (("x", "--baseline", "missing.json"), "missing.json"),
        (("x", "-q", "-v"), "contradict"),
        (("x", "-o", "missing/c.xml"), "does not exist"),
    ],
)
def test_usage_errors_are_2_before_anything_is_read(check, tmp_path, arguments, says):
    done = check(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr and done.stdout == ""


def test_no_invariant_tensor_is_4(check):
    done = check(SAMPLE, "--include", "fc.*")
    assert done.returncode == 4, done.stdout
    assert check(SAMPLE, "--include", "fc.*", "--allow-inconclusive").returncode == 0


def test_check_takes_every_option_of_analyze():
    def options(command):
        words = smdlens(command, "--help", COLUMNS="300").stdout.split()
        return {word.strip("[]│,") for word in words if word.startswith("--")}

    assert options("analyze") <= options("check")


def test_assert_equilibrium_passes_or_says_what_failed():
    result = package.assert_equilibrium(SAMPLE, steps="0:6000")
    assert result.exit_code == 0
    with pytest.raises(AssertionError, match=r"stage 3, block2\.shortcut.*and 5 more"):
        package.assert_equilibrium(SAMPLE)
    with pytest.raises(AssertionError, match="inconclusive"):
        package.assert_equilibrium(SAMPLE, include=["fc.*"])
    package.assert_equilibrium(SAMPLE, include=["fc.*"], allow_inconclusive=True)
    with pytest.raises(package.errors.InputError):
        package.assert_equilibrium(SAMPLE, "lax")
    with pytest.raises(TypeError):
        package.assert_equilibrium(SAMPLE, tolerence=0.1)


def test_it_works_inside_pytest(tmp_path):
    (tmp_path / "test_run.py").write_text(
        f"import smdlens\n\ndef test_run():\n    smdlens.assert_equilibrium({str(SAMPLE)!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    assert "Check failed (policy default)" in done.stdout
