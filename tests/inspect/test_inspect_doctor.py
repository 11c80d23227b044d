"""The doctor: one line per thing, and exit 2 where something needed is broken."""

import importlib.metadata
import os
from pathlib import Path

import numpy
import torch
from inspect_helpers import blocks  # noqa: F401  (adds the folder of cli_helpers)

from smdlens.report import health

from cli_helpers import smdlens  # isort: skip


def test_a_working_installation():
    done = smdlens("doctor")
    assert done.returncode == 0 and done.stderr == ""
    lines = {
        line.split()[1]: line
        for line in done.stdout.splitlines()
        if line[1:2] == "✓" and "device" not in line
    }
    assert torch.__version__ in lines["torch"] and numpy.__version__ in lines["numpy"]
    assert importlib.metadata.version("polars") in lines["polars"]
    assert "torch-zip" in lines["formats"] and "safetensors" in lines["formats"]
    assert "device cpu   works" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_an_ascii_terminal_is_named_and_served():
    done = smdlens("doctor", PYTHONIOENCODING="ascii")
    assert (
        done.returncode == 0
        and done.stdout.isascii()
        and "symbols are shown in ASCII" in done.stdout
    )


def test_a_home_that_cannot_be_written_is_no_noise():
    nowhere = "/proc/nowhere"
    done = smdlens("doctor", HOME=nowhere, XDG_CONFIG_HOME=nowhere, XDG_CACHE_HOME=nowhere)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_package_that_does_not_import_is_broken(tmp_path):
    (tmp_path / "polars.py").write_text("raise OSError('libpolars.so: cannot open')")
    done = smdlens("doctor", PYTHONPATH=f"{tmp_path}:{__import__('os').getcwd()}")
    assert done.returncode == 2
    assert "does not import: OSError: libpolars.so" in " ".join(done.stdout.split())
    assert "Traceback" not in done.stderr


def test_a_package_too_old_is_broken(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.2.3")
    assert health._package("numpy").broken
    assert not health._package("jinja2").broken


def test_a_broken_device_is_reported_not_raised(monkeypatch):
    def fails():
        raise RuntimeError("driver too old")

    monkeypatch.setattr(torch.cuda, "is_available", fails)
    (cuda,) = [f for f in health.look_around("utf-8") if f.name == "device cuda"]
    assert "driver too old" in cuda.text and not cuda.broken


def test_a_cache_that_cannot_be_written_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("SMDLENS_CACHE", str(tmp_path / "deep" / "cache"))
    look = {h.name: h.text for h in health.look_around("utf-8")}
    assert look["cache"] == f"measurements are kept in {tmp_path / 'deep' / 'cache'}"
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place) != tmp_path)
    look = {h.name: h.text for h in health.look_around("utf-8")}
    assert look["cache"].startswith("none: ") and "cannot be written" in look["cache"]
