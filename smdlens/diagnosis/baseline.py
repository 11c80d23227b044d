"""An earlier report to hold a run against: nothing may have become worse."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smdlens.errors import InputError
from smdlens.vocabulary import HELD_STATES, State

# How far a state is from a held equilibrium; undetermined ones cannot be compared.
_WORSE_STILL = {State.LEAVING: 3, State.PERIODIC: 3, State.DIVERGING: 4}
_APPROACHING = frozenset({State.APPROACHING_FROM_ABOVE, State.APPROACHING_FROM_BELOW})


@dataclass(frozen=True, slots=True)
class Before:
    """What the earlier report says of a tensor in a stage."""

    state: State
    ratio: float | None


@dataclass(frozen=True, slots=True)
class Baseline:
    """An earlier report by (stage index, tensor)."""

    path: str
    entries: Mapping[tuple[int, str], Before]


def badness(state: State) -> int | None:
    """0 where equilibrium holds, more the further from it; None where it is not known."""
    if state is State.UNDETERMINED:
        return None
    if state in HELD_STATES:
        return 0
    return 2 if state in _APPROACHING else _WORSE_STILL.get(state, 1)


def read_baseline(path: str) -> Baseline:
    """Reads a JSON report written by `smdlens ... -o FILE.json`.

    Raises:
        InputError: It cannot be read, or is no report of a schema this version knows.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not JSON"
        raise InputError(
            f"the baseline cannot be read ({reason})",
            subject=path,
            remedy="Write one with: smdlens analyze RUN -o baseline.json",
        ) from None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != "1.0":
        raise _bad(path, found=f"schema_version {version!r}")
    try:
        return Baseline(path, dict(_entries(content)))
    except (KeyError, TypeError, ValueError):
        raise _bad(path, found="stages that cannot be read") from None


def _bad(path: str, found: str) -> InputError:
    return InputError(
        "the baseline is no smdlens report",
        subject=path,
        expected="a JSON report with schema_version '1.0'",
        found=found,
        remedy="Write one with: smdlens analyze RUN -o baseline.json",
    )


def _entries(content: Mapping[str, Any]) -> list[tuple[tuple[int, str], Before]]:
    found = []
    for stage in content["stages"]:
        for row in stage["tensors"]:
            ratio = row["ratio"]
            before = Before(State(row["state"]), None if ratio is None else float(ratio))
            found.append(((int(stage["index"]), str(row["tensor"])), before))
    return found
