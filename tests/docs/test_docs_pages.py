"""The documentation says what is true: commands are run again, tables held against the code."""

import doctest
import json
import re
import runpy
import warnings

import pytest
from docs_helpers import PAGES, ROOT, blocks, commands, run, steady, without_trailing_space

import smdlens
from smdlens.errors import ExitCode
from smdlens.snapshots.readers import READERS
from smdlens.vocabulary import EvidenceKind, Role, SkipReason, State

NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]


def text(name):
    return (ROOT / name).read_text()


CONSOLE = [
    pytest.param(command, output, id=f"{name}: {command}")
    for name in NAMES
    for body in blocks(text(name), "console")
    for command, output in commands(body)
]


def test_there_are_commands_to_check():
    assert len(CONSOLE) >= 6
    assert set(NAMES) >= {
        "README.md", "docs/tutorial.md", "docs/saving.md", "docs/json.md", "docs/exit-codes.md",
        "docs/threat-model.md", "docs/formats.md", "docs/theory.md",
    }  # fmt: skip


@pytest.mark.parametrize(("command", "output"), CONSOLE)
def test_commands_print_what_the_page_shows(command, output, tmp_path):
    assert steady(without_trailing_space(run(command, tmp_path))) == steady(output)


@pytest.mark.parametrize("name", [n for n in NAMES if blocks(text(n), "pycon")])
def test_python_sessions(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    session = "\n".join(blocks(text(name), "pycon"))
    test = doctest.DocTestParser().get_doctest(session, {}, name, name, 0)
    runner = doctest.DocTestRunner(verbose=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        failures, attempted = runner.run(test)
    assert attempted > 0 and failures == 0


@pytest.mark.parametrize("name", ["README.md", "docs/saving.md"])
def test_the_ten_lines_save_what_is_needed(name, tmp_path):
    """Whoever copies them needs no option at all."""
    import torch

    (source,) = [b for b in blocks(text(name), "python") if "def save(" in b]
    assert len([line for line in source.splitlines() if line.strip()]) <= 11
    copied = tmp_path / "copied.py"
    copied.write_text("import torch\n" + source)
    scope = runpy.run_path(str(copied))
    folder = tmp_path / "run"
    folder.mkdir()
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, bias=False), torch.nn.BatchNorm2d(8), torch.nn.Flatten(),
        torch.nn.Linear(8, 3),
    )  # fmt: skip
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=5e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
    for step in range(1, 201):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            net(torch.randn(8, 1, 3, 3)), torch.randint(0, 3, (8,))
        )
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            scope["save"](folder, net, optimizer, scheduler, step)
        scheduler.step()
    report = smdlens.analyze(folder)
    assert report.series.steps == tuple(range(20, 201, 20))
    assert report.hyper.schedule[0].source == "learning-rate scheduler in the checkpoints"
    assert report.hyper.notes == ()
    assert report.intervals.filter(tensor="0.weight")["ratio"].null_count() == 0


def test_exit_codes_are_all_listed():
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", text("docs/exit-codes.md"), re.M)}
    assert listed == {int(code) for code in ExitCode}


def test_formats_are_those_that_are_read():
    listed = re.findall(r"^\| `([a-z0-9-]+)` \|", text("docs/formats.md"), re.M)
    assert sorted(listed) == sorted(reader.name for reader in READERS)
    for reason in SkipReason:
        assert f"`{reason.value}`" in text("docs/formats.md")


@pytest.mark.parametrize("words", [State, Role])
def test_words_of_the_report_are_explained(words):
    rows = re.findall(r"^\| `(\w+)` \| .+ \|$", text("docs/json.md"), re.M)
    assert [word for word in words if word.value not in rows] == []


def fields_of(schema):
    """Every field name of a JSON Schema."""
    found = set()
    for name, below in schema.get("properties", {}).items():
        found |= {name} | fields_of(below)
    if isinstance(schema.get("items"), dict):
        found |= fields_of(schema["items"])
    return found


def test_json_fields_are_all_explained():
    schema = json.loads((ROOT / "smdlens/report/schema.json").read_text())
    explained = set(re.findall(r"`(\w+)`", text("docs/json.md")))
    outcomes = {"pass", "warn", "fail", "inconclusive", "error"}
    assert fields_of(schema) - explained - outcomes == set()
    for kind in EvidenceKind:
        assert kind.value in text("docs/json.md")


def test_flags_are_those_of_the_table():
    source = (ROOT / "smdlens/diagnosis/frames.py").read_text()
    flags = re.findall(r'^        "(\w+)": (?:np\.|steps|nonfinite|part\.)', source, re.M)
    known = {f for f in flags if f in text("docs/json.md")}
    assert {"holds_cut", "below_resolution", "one_sided", "rate_unknown"} <= known


@pytest.mark.parametrize("name", [*NAMES, "CHANGELOG.md", "sample_checkpoints/README.md"])
def test_links_lead_somewhere(name):
    folder = (ROOT / name).parent
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text(name)):
        if not target.startswith(("http://", "https://")):
            assert (folder / target).exists(), target


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md"])
def test_the_version_is_the_packages(name):
    if name == "CHANGELOG.md":
        assert f"## {smdlens.__version__}" in text(name)
    else:
        targets = re.findall(r"^    (make \w+)", text(name), re.M)
        makefile = (ROOT / "Makefile").read_text()
        assert targets == ["make demo", "make test"]
        assert all(re.search(rf"^{t.split()[1]}:", makefile, re.M) for t in targets)


def test_options_named_in_the_pages_exist():
    done = run("smdlens analyze --help", ROOT) + run("smdlens check --help", ROOT)
    done += run("smdlens inspect --help", ROOT) + run("smdlens graph --help", ROOT)
    others = {"--checkpoint-hist", "--index-url", "--version", "--help", "--plot", "--docs"}
    others |= {"--label", "--seed", "--holdout", "--out"}  # of the scripts that renew pages
    for name in NAMES:
        for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text(name))) - others:
            assert option in done, f"{name}: {option}"
