"""Commands and their output in the documentation, found and run again.

`python tests/docs/docs_helpers.py` writes today's output into the pages. Read the difference.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_BLOCK = re.compile(r"^```(?P<kind>\w+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
# How long reading took is nobody's promise.
_SECONDS = re.compile(r"in \d+(\.\d+)? s\b(\s\([\d.]+\s[kMG]?B/s\))?")


def blocks(text, kind):
    """Bodies of the fenced blocks of one kind."""
    return [m["body"] for m in _BLOCK.finditer(text) if m["kind"] == kind]


def commands(body):
    """(command line, expected output) of a console block."""
    parts = re.split(r"^\$ (.*)\n", body, flags=re.MULTILINE)
    assert parts[0] == "", "a console block starts with a command"
    return list(zip(parts[1::2], parts[2::2], strict=True))


def environment(folder):
    """Without a terminal's habits, and with an empty cache: every run is a first run."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if k not in ("COLUMNS", "CI", "NO_COLOR", "SMDLENS_CACHE")
    }
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
            "XDG_CACHE_HOME": str(folder / "cache")}  # fmt: skip


def run(command, folder):
    """Output (stdout, then stderr) of a command line typed in the project's folder.

    `folder` stands in for the folder that output goes to: a `-o NAME` is written there.
    """
    words = shlex.split(command)
    if words[0] == "echo":
        raise AssertionError("use `smdlens ...; echo $?` as one line")
    follow = words[-2:] == ["echo", "$?"]
    if follow:
        words = words[:-2]
        words[-1] = words[-1].rstrip(";")
    assert words[0] == "smdlens", command
    words = [str(folder / word) if words[at - 1] == "-o" else word for at, word in enumerate(words)]
    done = subprocess.run(
        [sys.executable, "-m", "smdlens", *words[1:]],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(folder),
        timeout=120,
    )
    text = done.stdout + done.stderr
    return text + f"{done.returncode}\n" if follow else text


def steady(text):
    """Output without what changes from run to run."""
    return _SECONDS.sub("in 0.1 s", text)


def without_trailing_space(text):
    return "".join(line.rstrip() + "\n" for line in text.splitlines())


def renew(page):
    """The page's text with today's output in every console block."""

    def again(match):
        if match["kind"] != "console":
            return match[0]
        body = ""
        for command, _ in commands(match["body"]):
            with tempfile.TemporaryDirectory() as fresh:
                output = without_trailing_space(steady(run(command, Path(fresh))))
            body += f"$ {command}\n" + output
        return f"```console\n{body}```"

    return _BLOCK.sub(again, page.read_text())


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(renew(page))
