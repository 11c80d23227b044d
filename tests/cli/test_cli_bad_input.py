"""Runs that cannot be analysed, or only in part: a clear message, the right code, the rest."""

import json
import shutil
from dataclasses import dataclass

import pytest
import torch

from smdlens.cli.app import _run


def network(width=8):
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, width, 3, bias=False),
        torch.nn.BatchNorm2d(width),
        torch.nn.Conv2d(width, 4, 3, bias=False),
        torch.nn.BatchNorm2d(4),
    )


def train(folder, *, net=None, state=True, steps=range(0, 301, 50), change=None):
    """A short run on random images; `change(model state, step)` may edit what is saved."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    net = network() if net is None else net
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=5e-3)
    for step in range(max(steps) + 1):
        if step in steps:
            weights = dict(net.state_dict())
            weights = weights if change is None else change(weights, step)
            content = {"model": weights, "step": step}
            if state:
                content["optimizer"] = optimizer.state_dict()
            torch.save(content, folder / f"ckpt_{step}.pt")
        optimizer.zero_grad()
        net(torch.randn(4, 3, 7, 7)).square().mean(dim=(2, 3)).logsumexp(1).sum().backward()
        optimizer.step()
    return folder


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "good")


def copy_of(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def refused(done, code, *says):
    """Nothing on stdout, one message that says what and what to do, no traceback."""
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ") and "Traceback" not in done.stderr
    assert "Internal" not in done.stderr and "Warning" not in done.stderr
    for text in says:
        assert text in done.stderr


def analysed(done):
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    return json.loads(done.stdout)


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(capsys):
    """The command line without a process of its own; a warning would be an error here."""

    def runs(folder, *options, form="--json"):
        arguments = ["analyze", folder, "--no-progress", form, *options]
        code = _run([str(a) for a in arguments if a])
        return Done(code, *capsys.readouterr())

    return runs


def test_a_path_that_does_not_exist(run, tmp_path):
    refused(run(tmp_path / "nowhere"), 3, "no such file or folder", "nowhere")


def test_an_empty_folder(run, tmp_path):
    refused(run(tmp_path), 3, "too few checkpoints", "at least 2", "0 usable")


def test_a_folder_of_other_files(run, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "ckpt_1.pt").write_text("this is not a checkpoint, however it is called " * 9)
    refused(run(tmp_path), 3, "0 usable", "not_a_checkpoint")


def test_one_snapshot_names_the_trainers_options(run, good, tmp_path):
    shutil.copy(good / "ckpt_300.pt", tmp_path)
    done = run(tmp_path)
    refused(done, 3, "save_top_k", "save_total_limit", "--checkpoint-hist")


def test_steps_that_leave_one_snapshot(run, good):
    refused(run(good, "--steps", "40:60"), 3, "Widen --steps")


@pytest.mark.parametrize("kept", [0, 3, 40, 0.1, 0.5, 0.999])
def test_a_truncated_snapshot_is_listed_and_the_rest_analysed(run, good, tmp_path, kept):
    folder = copy_of(good, tmp_path)
    whole = (folder / "ckpt_100.pt").read_bytes()
    size = kept if isinstance(kept, int) else int(len(whole) * kept)
    (folder / "ckpt_100.pt").write_bytes(whole[:size])
    data = analysed(run(folder))
    assert [s["step"] for s in data["run"]["snapshots"]] == [0, 50, 150, 200, 250, 300]
    (skipped,) = data["run"]["skipped"]
    assert skipped["file"] == "ckpt_100.pt"
    assert skipped["reason"] in ("unreadable", "unfinished") and skipped["detail"]
    assert len(data["intervals"]) > 0


def test_all_truncated(run, good, tmp_path):
    folder = copy_of(good, tmp_path)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:1000])
    refused(run(folder), 3, "0 usable")


def test_a_flipped_byte_in_a_header_is_no_traceback(run, good, tmp_path):
    folder = copy_of(good, tmp_path)
    content = bytearray((folder / "ckpt_150.pt").read_bytes())
    content[-30] ^= 0xFF
    (folder / "ckpt_150.pt").write_bytes(bytes(content))
    analysed(run(folder))


def test_a_tensor_that_changes_its_shape(run, tmp_path):
    """Another network's checkpoints in the same folder: the longer half is kept, and it is said."""

    def wider(weights, step):
        return weights if step < 250 else dict(network(16).state_dict())

    data = analysed(run(train(tmp_path / "run", change=wider)))
    assert [s["step"] for s in data["run"]["snapshots"]] == [0, 50, 100, 150, 200]
    assert {s["reason"] for s in data["run"]["skipped"]} == {"different_tensors"}
    assert any(f["rule"] == "SMD021" for f in data["findings"])


def test_a_tensor_that_appears_half_way(run, tmp_path):
    """A head added for fine-tuning: what all snapshots share is analysed, and it is said."""

    def with_head(weights, step):
        return weights if step < 150 else {**weights, "head.weight": torch.ones(2, 4)}

    folder = train(tmp_path / "run", change=with_head)
    data = analysed(run(folder))
    assert len(data["run"]["snapshots"]) >= 2
    told = json.dumps(data["findings"]) + json.dumps(data["run"]["skipped"])
    assert "head.weight" in told or "1 " in told
    assert "head.weight" not in {i["tensor"] for i in data["intervals"] if i["step_from"] < 100}


def test_nan_weights_are_told_and_the_rest_judged(run, tmp_path):
    def broken(weights, step):
        if step < 200:
            return weights
        return {**weights, "0.weight": torch.full_like(weights["0.weight"], float("nan"))}

    done = run(train(tmp_path / "run", change=broken))
    data = analysed(done)
    assert "NaN" not in done.stdout.replace("are NaN or infinite", "") and "Inf" not in done.stdout
    (finding,) = [f for f in data["findings"] if f["rule"] == "SMD023"]
    assert finding["subject"] == "0.weight" and "step 200" in finding["message"]
    states = {t["tensor"]: t["state"] for t in data["stages"][-1]["tensors"]}
    assert states["0.weight"] == "diverging" and states["2.weight"] != "diverging"


def test_missing_hyper_parameters_name_the_options(run, tmp_path):
    folder = train(tmp_path / "run", state=False)
    data = analysed(run(folder))
    remedies = " ".join(f["remedy"] or "" for f in data["findings"])
    for option in ("--lr", "--schedule", "--weight-decay", "--optimizer"):
        assert option in remedies
    assert data["summary"]["equilibrium"]["undetermined"] == 2
    row = next(i for i in data["intervals"] if i["tensor"] == "0.weight")
    assert row["norm_to"] > 0 and row["angle_rad"] > 0 and row["ratio"] is None
    given = run(folder, "--lr", "0.1", "--momentum", "0.9", "--weight-decay", "5e-3")
    assert all(i["ratio"] is not None for i in analysed(given)["intervals"])


def test_a_network_without_normalisation_says_so(run, tmp_path):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Tanh(), torch.nn.Conv2d(8, 4, 3))
    folder = train(tmp_path / "run", net=net)
    data = analysed(run(folder))
    assert "does not bind" in data["summary"]["headline"]
    assert {t["role"] for t in data["tensors"]} == {"not_scale_invariant"}
    assert len(data["intervals"]) == 12
    shown = run(folder, form="")
    assert shown.returncode == 0 and "does not bind" in shown.stdout


def test_everything_frozen(run, tmp_path):
    def same(weights, step):
        return {k: torch.ones_like(v) * (2 if k.endswith("var") else 1) for k, v in weights.items()}

    data = analysed(run(train(tmp_path / "run", change=same)))
    assert {i["angle_rad"] for i in data["intervals"]} == {0.0}


@pytest.mark.parametrize(
    ("text", "says"),
    [("step,lr\n0,fast\n", "line 2"), ("epoch,lr\n0,0.1\n", "step,lr"), ("", "empty")],
)
def test_a_schedule_that_cannot_be_used_is_a_usage_error(run, good, tmp_path, text, says):
    (tmp_path / "lr.csv").write_text(text)
    refused(run(good, "--schedule", tmp_path / "lr.csv"), 2, says)


def test_a_weight_tree_that_is_not_there(run, good):
    refused(run(good, "--weights", "ema.module"), 2, "ema.module", "model")


def test_two_sequences_in_one_folder_ask_for_one(run, good, tmp_path):
    shutil.copytree(good, tmp_path / "runs" / "a")
    shutil.copytree(good, tmp_path / "runs" / "b")
    refused(run(tmp_path / "runs"), 2, "a", "b")


def test_only_integer_tensors(run, tmp_path):
    for step in (1, 2, 3):
        torch.save({"model": {"ids": torch.arange(9)}, "step": step}, tmp_path / f"ckpt_{step}.pt")
    refused(run(tmp_path), 3)


def test_steps_far_apart_do_not_exhaust_memory(run, good, tmp_path):
    """Steps may count samples or be time stamps; two files must not ask for 100 GB of rates."""
    for at, step in (("ckpt_250.pt", 0), ("ckpt_300.pt", 10**14)):
        content = torch.load(good / at, weights_only=True)
        torch.save({**content, "step": step}, tmp_path / f"ckpt_{step}.pt")
    done = run(tmp_path)
    assert done.returncode in (0, 2, 3), done.stderr
    assert "Traceback" not in done.stderr and "Internal" not in done.stderr
