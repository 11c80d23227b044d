"""Hostile graph files under an armed audit hook: programs are followed, nothing in them happens."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"

# Follows every file once unarmed (modules are imported when they are needed), then again armed.
# Source is parsed, which the interpreter calls "compile"; running it would be an event "exec".
CHILD = r"""
import json, resource, sys
import smdlens
from smdlens.errors import SmdlensError

given = json.loads(sys.stdin.read())
def follow(path):
    try:
        found = smdlens.scale_symmetry(path).tensors.values()
        return "|".join(sorted({tensor.role.value for tensor in found}))
    except SmdlensError as error:
        str(error)
        return type(error).__name__

for path in given["warm"]:
    follow(path)
events, current = [], ""
QUIET = ("object.__", "os.listdir", "os.scandir", "sys._getframe", "code.__new__", "builtins.id",
         "compile", "gc.", "ctypes.", "array.__new__", "cpython.", "id")

def hook(event, args):
    if event == "open":
        mode, flags = args[1], args[2] or 0
        if mode in (None, "r", "rb") and not flags & 0o3:
            return
    if event == "import" and (args[0] in sys.modules or args[0].startswith(("torch", "smdlens"))):
        return
    if not event.startswith(QUIET):
        events.append([current, event, repr(args)[:200]])

sys.addaudithook(hook)
results = {}
for name, path in given["attacks"].items():
    current = name
    results[name] = follow(path)
if given.get("raw"):
    current = "raw"
    exec(given["raw"])
print(json.dumps({"events": list(events), "results": results,
                  "peak_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""

SCRIPTS = {
    "open": "_9 = open('{mark}', 'w')",
    "import": "_9 = __import__('smdlens_attack_module')",
    "import-line": "import smdlens_attack_module",
    "system": "_9 = __import__('os').system('touch {mark}')",
    "torch-save": "_9 = torch.save(weight, '{mark}')",
    "torch-load": "_9 = torch.load('{mark}')",
    "from-file": "_9 = torch.from_file('{mark}', True, 8)",
    "ops": "_9 = ops.smdlens_attack_module.run('{mark}')",
    "library": "_9 = torch.ops.load_library('{mark}')",
    "attribute": "_9 = weight.__class__.__init__.__globals__",
    "method": "_9 = (weight).numpy()",
    "lambda": "_9 = (lambda: 1)()",
    "comprehension": "_9 = [x for x in weight]",
    "decorator": "@torch.jit.script\n    def f():\n      pass",
    "python": "_9 = ops.prim.PythonOp('{mark}')",
    "memory": "_9 = torch.zeros([1 << 40])",
    "loop": "while True:\n      _9 = 1",
}


def _torchscript(path: Path, line: str) -> None:
    """A small traced network with another line in its source."""
    held = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.LayerNorm(6))
        torch.jit.save(torch.jit.trace(net.eval(), (torch.randn(2, 4),)), held)
    with zipfile.ZipFile(held) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if "/linear" in name and name.endswith(".py"):
                text = data.decode()
                assert text.count("    weight = self.weight\n") == 1
                after = f"    weight = self.weight\n    {line}\n"
                data = text.replace("    weight = self.weight\n", after).encode()
            target.writestr(name, data)


def _saved_model(folder: Path, name: str, op: bytes) -> Path:
    """A SavedModel whose activations are other operators of as many letters."""
    with tarfile.open(GOLDEN / "saved_models" / "keras.tar.xz") as archive:
        members = [m for m in archive.getmembers() if m.name.startswith("resnet/")]
        archive.extractall(folder / name, members, filter="data")
    program = folder / name / "resnet" / "saved_model.pb"
    data = program.read_bytes()
    assert data.count(b"\x12\x04Relu") > 2 and len(op) == 4
    program.write_bytes(data.replace(b"\x12\x04Relu", b"\x12\x04" + op))
    return folder / name / "resnet"


def _attacks(folder: Path, mark: Path) -> dict[str, str]:
    made: dict[str, Path] = {}
    for name, line in SCRIPTS.items():
        made[f"script-{name}"] = folder / f"{name}.pt"
        _torchscript(made[f"script-{name}"], line.replace("{mark}", str(mark)))
    for number, op in enumerate((b"PyFn", b"Exec")):
        made[f"saved-model-{number}"] = _saved_model(folder, f"sm{number}", op)
    text = gzip.decompress((GOLDEN / "stablehlo" / "residual.mlir.gz").read_bytes()).decode()
    call = f'stablehlo.custom_call @"{mark}"('
    made["hlo-custom-call"] = folder / "call.mlir"
    made["hlo-custom-call"].write_text(text.replace("stablehlo.tanh %", f"{call}%"))
    program: Any = json.loads(
        gzip.decompress((GOLDEN / "paddle_graphs" / "residual.json.gz").read_bytes())
    )
    for operator in program["program"]["regions"][0]["blocks"][0]["ops"]:
        if operator["#"] == "1.relu":
            operator["#"] = "1.py_func"
            operator["A"] = [{"N": "file", "AT": {"#": "0.a_str", "D": str(mark)}}]
    made["paddle-py-func"] = folder / "program.json"
    made["paddle-py-func"].write_text(json.dumps(program))
    return {name: str(path) for name, path in made.items()}


def _run(folder: Path, given: dict[str, Any]) -> Any:
    path = os.pathsep.join([str(ROOT), str(folder)])
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps(given), capture_output=True, text=True, timeout=300, cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the armed child saw while it followed every attack."""
    folder = tmp_path_factory.mktemp("graph_attacks")
    mark = folder / "mark"
    (folder / "smdlens_attack_module.py").write_text(f"open({str(mark)!r}, 'w')")
    attacks = _attacks(folder, mark)
    _torchscript(folder / "warm.pt", "_9 = 1")
    shutil.copy(GOLDEN / "one_network" / "flax_program.mlir", folder / "warm.mlir")
    warm = [
        str(folder / "warm.pt"), str(folder / "warm.mlir"),
        str(GOLDEN / "one_network" / "paddle_program.json"),
        str(GOLDEN / "one_network" / "tensorflow_saved_model" / "step_40"),
    ]  # fmt: skip
    found = _run(folder, {"attacks": attacks, "warm": [*warm, *attacks.values()]})
    return {**found, "mark": mark.exists(), "attacks": sorted(attacks)}


def test_nothing_in_a_graph_file_happens(report: Any) -> None:
    assert report["events"] == []
    assert report["mark"] is False
    assert report["peak_kib"] < 1536 * 1024


def test_every_program_is_refused_or_seen_as_unknown(report: Any) -> None:
    results = report["results"]
    assert sorted(results) == report["attacks"]
    scripts = {n: r for n, r in results.items() if n.startswith("script-")}
    harmless = {"script-memory"}  # a tensor without storage takes no memory
    assert {n for n, r in scripts.items() if r != "GraphError"} <= harmless, scripts
    others = {n: r for n, r in results.items() if n not in scripts}
    assert len(others) == 4 and all("not_scale_invariant" in r for r in others.values()), others


def test_the_hook_would_have_seen_it(tmp_path: Path) -> None:
    """The oracle of this file: code that runs under the same hook is caught."""
    mark = tmp_path / "mark"
    raw = f"import colorsys; open({str(mark)!r}, 'w').close()"
    events = {
        event for _, event, _ in _run(tmp_path, {"attacks": {}, "warm": [], "raw": raw})["events"]
    }
    assert {"exec", "open", "import"} <= events and mark.exists()
