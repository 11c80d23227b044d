"""Checkpoints to inspect, and a count of the bytes that reading them took."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))

from smdlens.report.inspection import inspect_checkpoint
from smdlens.report.inspection_json import dumps
from smdlens.report.terminal.inspection import render


def blocks(count=4, width=8):
    """A network of alike blocks, like a transformer's layers."""
    torch.manual_seed(0)
    block = [torch.nn.Conv2d(width, width, 3, bias=False), torch.nn.BatchNorm2d(width)]
    return torch.nn.ModuleDict(
        {
            "stem": torch.nn.Conv2d(3, width, 3),
            "layers": torch.nn.ModuleList(
                [torch.nn.Sequential(*(type(m)(*_arguments(m, width)) for m in block))
                 for _ in range(count)]
            ),
            "head": torch.nn.Linear(width, 5),
        }
    )  # fmt: skip


def _arguments(module, width):
    return (width, width, 3) if isinstance(module, torch.nn.Conv2d) else (width,)


def text_of(path, *, width=80, verbose=False, encoding="utf-8", **options):
    """What the terminal would show."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    console = Console(
        file=stream, width=width, color_system=None, markup=False, emoji=False, highlight=False
    )
    render(inspect_checkpoint(str(path), **options), console, verbose=verbose)
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)


def json_of(path, checks=(), **options):
    return json.loads(dumps(inspect_checkpoint(str(path), **options), checks))


class CountedReads:
    """Counts the bytes that positional reads return; any other way of reading is not ours."""

    def __init__(self, monkeypatch):
        self.nbytes = 0
        real = os.pread

        def counted(fd, length, offset):
            data = real(fd, length, offset)
            self.nbytes += len(data)
            return data

        monkeypatch.setattr(os, "pread", counted)
