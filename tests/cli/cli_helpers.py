"""Runs the command line as users do: in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))

ROOT = Path(__file__).parents[2]


def environment(**extra):
    left_out = ("COLUMNS", "CI", "NO_COLOR", "PYTHONUNBUFFERED")
    kept = {k: v for k, v in os.environ.items() if k not in left_out}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **extra}


def smdlens(*arguments, cwd=None, **extra):
    return subprocess.run(
        [sys.executable, "-m", "smdlens", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(**extra),
        timeout=120,
        check=False,
    )


# A program in which the analysis is replaced: the door is tested, not the rooms behind it.
STAND_IN = """
import sys
sys.path.insert(0, {report!r})
import report_helpers, smdlens
{body}
smdlens.analyze = analyze
from smdlens.cli.app import main
main(sys.argv[1:])
"""


def stand_in(body):
    report = str(ROOT / "tests" / "report")
    return [sys.executable, "-c", STAND_IN.format(report=report, body=body)]
