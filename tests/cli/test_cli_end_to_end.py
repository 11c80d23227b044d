"""Real checkpoints through the whole program."""

import json
import shutil

import jsonschema
import polars as pl
import pytest
import torch
from cli_helpers import ROOT, smdlens

import smdlens as package

SCHEMA = json.loads((ROOT / "smdlens" / "report" / "schema.json").read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small network trained for 800 steps, one cut, saved every 100 with optimizer state."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    folder.mkdir()
    torch.manual_seed(3)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, bias=False),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, 3, bias=False),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 5),
    )
    optimizer = torch.optim.SGD(net.parameters(), 0.2, momentum=0.9, weight_decay=5e-3)
    images, labels = torch.randn(128, 3, 5, 5), torch.randint(0, 5, (128,))
    for step in range(801):
        if step % 100 == 0:
            content = {
                "model": net.state_dict(),
                "optimizer": optimizer.state_dict(),
                "global_step": step,
            }
            torch.save(content, folder / f"ckpt_{step}.pt")
        if step == 500:
            optimizer.param_groups[0]["lr"] = 0.02
        chosen = torch.randint(0, 128, (16,))
        loss = torch.nn.functional.cross_entropy(net(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return folder


def test_the_report_names_what_was_trained(run):
    done = smdlens("analyze", run)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "9 snapshots, steps 0–800" in done.stdout
    assert "SGD momentum 0.9" in done.stdout and "weight decay 0.005" in done.stdout
    assert "2 of 8 tensors scale-invariant, per channel" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_json_is_valid_and_the_same_for_any_number_of_workers_and_from_python(run):
    one = smdlens("analyze", run, "--json", "--device", "cpu", "--workers", "1")
    two = smdlens("analyze", run, "--json", "--device", "cpu", "--workers", "2", "-v")
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    assert one.stdout == two.stdout
    data = json.loads(one.stdout)
    jsonschema.Draft202012Validator(SCHEMA).validate(data)
    assert data == package.analyze(str(run), device="cpu").to_dict()
    assert [s["step"] for s in data["run"]["snapshots"]] == list(range(0, 801, 100))
    assert data["run"]["optimizer"]["momentum"] == 0.9
    assert {t["name"] for t in data["tensors"] if t["role"] == "scale_invariant"} == {
        "0.weight",
        "3.weight",
    }


def test_norms_in_the_table_are_torch_norms(run):
    frame = package.analyze(run, device="cpu").intervals.filter(tensor="3.weight")
    assert frame.height == 8
    for row in frame.iter_rows(named=True):
        content = torch.load(run / f"ckpt_{row['step_to']}.pt", weights_only=True)
        expected = content["model"]["3.weight"].double().norm().item()
        assert row["norm_to"] == pytest.approx(expected, rel=1e-12)


def test_declared_values_win_and_their_source_is_shown(run):
    done = smdlens("analyze", run, "--weight-decay", "1e-3", "--json")
    groups = json.loads(done.stdout)["run"]["param_groups"]
    assert groups[0]["weight_decay"] == 1e-3 and "--weight-decay" in groups[0]["source"]


def test_include_and_steps_narrow_the_run(run):
    report = package.analyze(run, include=["3.*"], steps="200:600")
    assert set(report.tensors["tensor"]) <= {"3.weight"}
    assert report.series.steps == (200, 300, 400, 500, 600)


def test_files_as_arguments_are_one_run(run, tmp_path):
    files = sorted(run.glob("ckpt_[135]00.pt"))
    done = smdlens("analyze", *files, "-o", tmp_path / "i.parquet")
    assert done.returncode == 0, done.stderr
    frame = pl.read_parquet(tmp_path / "i.parquet")
    assert set(frame["step_to"]) == {300, 500}


def test_an_unreadable_snapshot_is_listed_and_the_rest_analysed(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    content = (copy / "ckpt_300.pt").read_bytes()
    (copy / "ckpt_300.pt").write_bytes(content[: len(content) // 2])
    done = smdlens("analyze", copy)
    assert done.returncode == 0, done.stderr
    assert "ckpt_300.pt" in done.stdout and "8 snapshots" in done.stdout


@pytest.mark.parametrize("make", ["missing", "empty", "single"])
def test_nothing_to_analyse_is_3_with_a_remedy(run, tmp_path, make):
    target = tmp_path / "x"
    if make != "missing":
        target.mkdir()
    if make == "single":
        shutil.copy(run / "ckpt_100.pt", target)
    done = smdlens("analyze", target)
    assert done.returncode == 3, done.stderr
    assert done.stdout == "" and done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) >= 2


def test_nothing_included_is_3(run):
    done = smdlens("analyze", run, "--include", "zzz*")
    assert done.returncode == 3 and "--include" in done.stderr


def test_inputs_are_not_modified(run):
    before = {p.name: (p.stat().st_mtime_ns, p.stat().st_size) for p in run.iterdir()}
    smdlens("analyze", run, "-q")
    assert before == {p.name: (p.stat().st_mtime_ns, p.stat().st_size) for p in run.iterdir()}


def test_open_checkpoint_gives_what_torch_saved(run):
    checkpoint = package.open_checkpoint(run / "ckpt_400.pt")
    saved = torch.load(run / "ckpt_400.pt", weights_only=True)
    assert (checkpoint.step, checkpoint.format) == (400, "torch-zip")
    assert {n: t[0] for n, t in checkpoint.tensors.items()} == {
        n: tuple(t.shape) for n, t in saved["model"].items()
    }
    for name, tensor in saved["model"].items():
        assert torch.equal(checkpoint.read(name), tensor)
    assert checkpoint.param_groups[0]["lr"] == 0.2
    assert checkpoint.param_groups[0]["momentum"] == 0.9
    buffer = saved["optimizer"]["state"][0]["momentum_buffer"]
    assert torch.equal(checkpoint.slots("0.weight")["momentum"], buffer)
    with pytest.raises(package.errors.InputError, match="no tensor of this name"):
        checkpoint.read("zzz")


def test_a_typo_in_a_keyword_is_a_type_error(run):
    with pytest.raises(TypeError):
        package.analyze(run, wieght_decay=1.0)
