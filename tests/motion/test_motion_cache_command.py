"""The cache behind `analyze`: the same report with and without it, and how to switch it off."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import smdlens
from smdlens.cli.app import main
from smdlens.report.json import dumps

SAMPLES = Path(__file__).parents[2] / "sample_checkpoints"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    shutil.copytree(SAMPLES, folder)
    return folder


def analysed(run_folder: Path, **options: object) -> smdlens.Report:
    return smdlens.analyze(run_folder, device="cpu", **options)  # type: ignore[arg-type]


def test_cached_and_cold_runs_give_the_same_bytes(run_folder: Path, tmp_path: Path) -> None:
    before = sorted(run_folder.rglob("*"))
    off = analysed(run_folder, cache=False)
    cold, warm = (analysed(run_folder, cache_dir=tmp_path / "c", workers=k) for k in (1, 2))
    assert cold.cost.bytes_read == off.cost.bytes_read > 0
    assert warm.cost.bytes_read == 0
    assert dumps(off) == dumps(cold) == dumps(warm)
    assert sorted(run_folder.rglob("*")) == before


def test_part_of_a_run_fills_the_cache_of_the_whole(run_folder: Path, tmp_path: Path) -> None:
    steps = [s.step for s in analysed(run_folder, cache=False).series.snapshots]
    analysed(run_folder, cache_dir=tmp_path / "c", steps=f":{steps[-2]}")
    off = analysed(run_folder, cache=False)
    grown = analysed(run_folder, cache_dir=tmp_path / "c")
    assert 0 < grown.cost.bytes_read < off.cost.bytes_read / 2
    assert dumps(grown) == dumps(off)


def commanded(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    with pytest.raises(SystemExit) as left:
        main(["analyze", *arguments, "--device", "cpu", "--json"])
    assert not left.value.code
    return json.loads(capsys.readouterr().out)


def test_the_options(
    run_folder: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMDLENS_CACHE", str(tmp_path / "named"))
    off = commanded([str(run_folder), "--no-cache"], capsys)
    assert list(tmp_path.iterdir()) == []
    there = commanded([str(run_folder), "--cache-dir", str(tmp_path / "given")], capsys)
    assert [p.name for p in tmp_path.iterdir()] == ["given"]
    named = commanded([str(run_folder)], capsys)
    assert {p.name for p in tmp_path.iterdir()} == {"given", "named"}
    assert off == there == named


def test_a_cache_inside_the_run_is_a_usage_error(run_folder: Path, capsys) -> None:
    with pytest.raises(SystemExit) as left:
        main(["analyze", str(run_folder), "--cache-dir", str(run_folder / "cache")])
    assert left.value.code == 2
    assert "--no-cache" in capsys.readouterr().err
