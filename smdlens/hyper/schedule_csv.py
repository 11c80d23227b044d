"""A declared schedule: CSV with the columns step,lr[,weight_decay]."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from smdlens.errors import InputError

_COLUMNS = "step,lr[,weight_decay]"


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """`lr` (and `weight_decay`, if given) in force from update `step` until the next row."""

    step: int
    lr: float
    weight_decay: float | None


def read_schedule(path: Path) -> tuple[ScheduleRow, ...]:
    """Rows of a schedule file in increasing step order.

    A row holds from its step until the next row's. Rows may stand in any order; a repeated step,
    a missing column or a value that is no number is refused.

    Raises:
        InputError: Naming the file, the line, what was expected and what was found.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "the schedule cannot be read",
            subject=str(path),
            expected=f"a UTF-8 CSV file with the columns {_COLUMNS}",
            found=type(error).__name__,
            remedy="Check the path given to --schedule.",
        ) from error
    reader = csv.reader(text.splitlines())
    header = [name.strip().lower() for name in next(reader, [])]
    if "step" not in header or "lr" not in header:
        raise _bad(path, 1, f"the columns {_COLUMNS}", ",".join(header) or "an empty file")
    at_step, at_lr = header.index("step"), header.index("lr")
    at_decay = header.index("weight_decay") if "weight_decay" in header else None
    rows: dict[int, ScheduleRow] = {}
    for number, cells in enumerate(reader, start=2):
        if not any(cell.strip() for cell in cells):
            continue
        try:
            step_value = float(cells[at_step])
            lr = float(cells[at_lr])
            cell = cells[at_decay].strip() if at_decay is not None else ""
            decay = float(cell) if cell else None
        except (ValueError, IndexError):
            raise _bad(path, number, "numbers", ",".join(cells)) from None
        if not step_value >= 0 or not step_value.is_integer():
            raise _bad(path, number, "a whole step of 0 or more", cells[at_step])
        values = [lr] if decay is None else [lr, decay]
        if not all(math.isfinite(value) and value >= 0.0 for value in values):
            raise _bad(path, number, "finite rates of 0 or more", ",".join(cells))
        step = int(step_value)
        if step in rows:
            raise _bad(path, number, "each step once", f"step {step} again")
        rows[step] = ScheduleRow(step, lr, decay)
    if not rows:
        raise _bad(path, 2, "at least one row", "none")
    return tuple(rows[step] for step in sorted(rows))


def _bad(path: Path, line: int, expected: str, found: str) -> InputError:
    return InputError(
        f"line {line} of the schedule cannot be used",
        subject=str(path),
        expected=expected,
        found=found,
        remedy=f"A schedule is a CSV file with the columns {_COLUMNS}.",
    )
