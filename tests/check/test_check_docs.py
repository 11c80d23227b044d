"""docs/ci.md and docs/report.md: commands exist, the policy is valid, the files are ours."""

import re
import shlex

import pytest
from check_helpers import TESTS
from lxml import html

import smdlens
from smdlens.diagnosis.policy_file import read_policy

ROOT = TESTS.parent
PAGE = (ROOT / "docs" / "ci.md").read_text()
COMMANDS = sorted(set(re.findall(r"(?:run: |- |entry: )(smdlens check .*)", PAGE)))


def test_there_are_three_recipes():
    assert len(COMMANDS) == 3
    assert PAGE.count("pip install torch --index-url https://download.pytorch.org/whl/cpu") == 3


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_recipes_run(command, tmp_path, monkeypatch):
    from smdlens.cli.app import main

    (tmp_path / "checkpoints").symlink_to(ROOT / "sample_checkpoints")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("smdlens.cli.leaving.install", lambda: None)
    with pytest.raises(SystemExit) as leave:
        main(shlex.split(command)[1:])
    assert leave.value.code == 1
    for output in re.findall(r"-o (\S+)", command):
        assert (tmp_path / output).stat().st_size > 500


def test_the_policy_shown_is_valid(tmp_path):
    (body,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "smdlens.toml").write_text(body)
    asked = read_policy(tmp_path / "smdlens.toml")
    assert asked.share == 0.95 and asked.overrides[-1].ratio == (0.5, 1.1)


def test_the_sample_report_in_the_docs_is_todays():
    tree = html.parse(str(ROOT / "docs" / "sample-report.html"))
    today = smdlens.analyze(ROOT / "sample_checkpoints")
    assert today.summary.headline in " ".join(tree.find(".//h1").text_content().split())
    names = {n.text_content() for n in tree.xpath("//table[@id='tensors']//*[@class='name']")}
    assert names == set(today.tensors["tensor"])
    for picture in re.findall(r"\]\((\S+\.png)\)", (ROOT / "docs" / "report.md").read_text()):
        assert (ROOT / "docs" / picture).stat().st_size > 5000
