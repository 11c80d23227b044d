"""The reading rooms cannot run input: they import and use nothing that could."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = [*sorted((ROOT / "smdlens/containers").glob("*.py"))]
ROOMS += sorted((ROOT / "smdlens/snapshots").glob("*.py"))

# Modules through which bytes could become code, processes or connections.
FORBIDDEN_MODULES = {
    "pickle", "_pickle", "marshal", "shelve", "importlib", "runpy", "ctypes", "subprocess",
    "socket", "mmap", "torch", "numpy", "zipfile", "tarfile", "builtins", "operator", "code",
}  # fmt: skip
FORBIDDEN_NAMES = {"eval", "exec", "compile", "__import__", "globals", "setattr", "open", "vars"}


def test_reading_needs_no_framework() -> None:
    script = (
        "import sys, smdlens.snapshots; print(*sorted(set(sys.modules) & "
        "{'torch', 'numpy', 'polars', 'matplotlib', 'pickle', 'safetensors'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.split() == []


def test_no_module_that_could_run_input_is_imported() -> None:
    assert len(ROOMS) > 20
    for path in ROOMS:
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.partition(".")[0] not in FORBIDDEN_MODULES, (path, name)
            if isinstance(node, ast.Name):
                assert node.id not in FORBIDDEN_NAMES, (path, node.id, node.lineno)


def test_attributes_are_looked_up_by_constant_names_only() -> None:
    """`getattr` appears once: from the interpreter's own table of opcodes to its methods."""
    uses = [
        path.name
        for path in ROOMS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Name) and node.id == "getattr"
    ]
    assert uses == ["inert_pickle.py"]
