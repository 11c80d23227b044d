"""One network, every format: the same numbers in, the same report out, whoever saved it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from one_network import (
    DECAY,
    GOLDEN,
    MOMENTUM,
    PAGE,
    RUNS,
    Gives,
    Run,
    compared,
    differences,
    on_the_page,
    schedule_file,
    table,
    what_it_gives,
)

import smdlens

FOUND: dict[str, Gives] = {}


def _report(
    folder: Path, path: Path, prefix: str = "", graph: Path | None = None
) -> dict[str, Any]:
    report = smdlens.analyze(
        path, optimizer="sgd", momentum=MOMENTUM, dampening=0.0, nesterov=False, graph=graph,
        weight_decay=DECAY, schedule=schedule_file(folder), cache=False, workers=1,
    )  # fmt: skip
    return compared(report, prefix)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The report of torch's own files: with momentum or without, from names or torch's graph."""
    found = {}
    exported = tmp_path_factory.mktemp("exported")
    graph = next(run for run in RUNS if run.title.endswith(".pt2"))
    program = graph.place(exported) / "step_200.pt2"
    for kind, run, by in (("slots", RUNS[0], None), ("weights", RUNS[1], None),
                          ("graph and slots", RUNS[0], program),
                          ("graph and weights", RUNS[1], program)):  # fmt: skip
        folder = tmp_path_factory.mktemp("reference")
        (folder / "run").mkdir()
        found[kind] = _report(folder, run.place(folder / "run"), graph=by)
    methods = [
        {row["one_step_method"] for row in found[kind]["intervals"]}
        for kind in ("slots", "weights")
    ]
    assert "optimizer_state" in methods[0] - methods[1], "momentum makes the report another"
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.title.replace(" ", "-"))
def test_the_same_report(tmp_path: Path, expected: dict[str, dict[str, Any]], run: Run) -> None:
    (tmp_path / "run").mkdir()
    place = run.place(tmp_path / "run")
    gives = FOUND[run.title] = what_it_gives(run, place)
    report = _report(tmp_path, place, run.prefix)
    # Some files say what the network is, without any option.
    kind = "slots" if gives.slots != "-" else "weights"
    kind = f"graph and {kind}" if gives.graph == "inside" else kind
    assert differences(report, expected[kind]) == []
    groups = {t["name"]: t["groups"] for t in report["tensors"] if t["role"] == "scale_invariant"}
    assert groups == {"conv1.weight": 6, "conv2.weight": 8}, "by channel"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_the_table_on_the_page_is_current(tmp_path: Path) -> None:
    for number, run in enumerate(RUNS):
        if run.title not in FOUND:  # run on its own, or on another worker
            (tmp_path / str(number)).mkdir()
            FOUND[run.title] = what_it_gives(run, run.place(tmp_path / str(number)))
    assert on_the_page(PAGE.read_text()) == table(FOUND), (
        "python tests/snapshots/one_network.py writes it"
    )


def test_conversions_are_said(tmp_path: Path) -> None:
    expected = {
        "keras_v3": ["(kernel: out, in, spatial)", "is shown divided by -lr"],
        "mxnet_module": ["gamma: weight", "divided by minus the last rate"],
        "mlx_safetensors": ["output, spatial, input"],
        "paddle": ["input, output are shown as output, input"],
        "megengine_layout": ["without axes of one"],
    }
    for golden, parts in expected.items():
        report = smdlens.analyze(GOLDEN / golden, schedule=schedule_file(tmp_path), cache=False)
        said = report.to_dict()["run"]["conversions"]
        assert len(said) == len(parts), said
        for part in parts:
            assert any(part in text for text in said), (golden, part)
    report.save(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "Shown in other terms than stored: MegEngine:" in page
    run = next(run for run in RUNS if run.title == "torch.save")
    (tmp_path / "run").mkdir()
    report = smdlens.analyze(run.place(tmp_path / "run"), cache=False)
    assert report.to_dict()["run"]["conversions"] == []


def test_differences_are_seen() -> None:
    assert differences({"a": [1.0]}, {"a": [1.0 + 1e-7]}) == []
    assert differences({"a": [1.0]}, {"a": [1.0 + 1e-5]}) != []
    assert differences({"a": [1.0]}, {"a": [1.0, 2.0]}) != []
    assert differences({"a": 1}, {"b": 1}) != [] and differences("x", "y") != []
