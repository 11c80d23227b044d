"""docs/calibration.md, made of the recorded results."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE.parents[1] / "docs" / "calibration.md"
# What was run, in the order of the page.
RUNS = {
    "before": "before, first draft of the population",
    "development": "now, development seeds",
    "confirmation": "now, other seeds",
}


def results() -> dict[str, dict[str, Any]]:
    """Recorded results by label, those there are."""
    return {
        label: json.loads((RESULTS / f"{label}.json").read_text())
        for label in RUNS
        if (RESULTS / f"{label}.json").exists()
    }


def share(count: int, of: int) -> str:
    """A share with its binomial 95% error, in percent."""
    if of == 0:
        return "-"
    p = count / of
    return f"{100 * p:.1f} ± {196 * math.sqrt(max(p * (1 - p), 0.25 / of) / of):.1f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def coverage_table(found: dict[str, dict[str, Any]]) -> str:
    """One row per optimizer and recorded run."""
    rows = []
    for optimizer in ("SGD", "momentum", "Nesterov", "AdamW"):
        for label, result in found.items():
            n, inside, below, above, width = result["coverage"][optimizer]["all"]
            rows.append([optimizer, RUNS[label], f"{n}", share(inside, n),
                         f"{100 * below / n:.1f} / {100 * above / n:.1f}",
                         f"{100 * width:.2g} %"])  # fmt: skip
    return table(
        ["optimizer", "run", "intervals", "covered, %", "truth below / above, %",
         "median half-width of q"], rows,
    )  # fmt: skip


def class_table(coverage: dict[str, Any], name: str, title: str) -> str:
    optimizers = [key for key in coverage if key != "missing"]
    keys = sorted(
        {key for optimizer in optimizers for key in coverage[optimizer][name]},
        key=lambda key: (int(key) if key.isdigit() else 0, key),
    )
    rows = [
        [_NAMES.get((name, key), key)]
        + [share(*coverage[o][name].get(key, [0, 0])[1::-1]) for o in optimizers]
        for key in keys
    ]
    return table([title, *optimizers], rows)


_NAMES = {("state", "True"): "optimizer state saved", ("state", "False"): "weights alone"}


def state_tables(result: dict[str, Any]) -> str:
    states = result["states"]
    rows = [
        [key.replace(" | ", ", "), f"{n}", share(wrong, n), share(open_, n)]
        for key, (n, wrong, open_) in states["by_optimizer"].items()
    ]
    total = [sum(column) for column in zip(*states["by_optimizer"].values(), strict=True)]
    n, wrong, open_ = total
    rows.append(["**all**", f"{n}", share(wrong, n), share(open_, n)])
    first = table(["optimizer, saved", "tensors and stages", "wrong, %", "undetermined, %"], rows)
    kinds = table(
        ["family", "tensor", "tensors and stages", "wrong", "undetermined"],
        [
            [*key.split(" | "), *(f"{x}" for x in counts)]
            for key, counts in states["by_kind"].items()
        ],
    )
    wrongs = table(
        ["right, called", "tensors"], [[key, f"{n}"] for key, n in states["wrong"].items()]
    )
    return f"{first}\n\n{kinds}\n\nEvery wrong one:\n\n{wrongs}"


def undecidable_table(found: dict[str, dict[str, Any]]) -> str:
    rows = []
    for label, result in found.items():
        for case, (n, decided) in result.get("undecidable", {}).items():
            rows.append([case, RUNS[label], f"{n}", f"{decided}"])
    return table(["taken away", "run", "tensors and stages", "decided anyway"], sorted(rows))


def holdout_table(path: Path) -> str:
    rows = json.loads(path.read_text())
    return table(
        ["run", "saved", "intervals", "median error of the angle", "95th percentile", "covered"],
        [
            [row["run"], row["source"], f"{row['intervals']}", f"{100 * row['median_error']:.2f} %",
             f"{100 * row['p95_error']:.2f} %", f"{row['coverage']:.2f}"]
            for row in rows
        ],
    )  # fmt: skip


def render() -> str:
    """The page: its template filled with what was recorded."""
    found = results()
    newest = found.get("confirmation") or found["development"]
    parts = {
        "coverage": coverage_table(found),
        "gaps": class_table(newest["coverage"], "gap", "updates between snapshots"),
        "dtypes": class_table(newest["coverage"], "dtype", "stored as"),
        "schedules": class_table(newest["coverage"], "schedule", "schedule"),
        "saved": class_table(newest["coverage"], "state", "saved"),
        "states": state_tables(newest),
        "undecidable": undecidable_table(
            {label: result for label, result in found.items() if label != "before"}
        ),
    }
    for name in ("before", "after", "second"):
        path = RESULTS / f"holdout_{name}.json"
        if path.exists():
            parts[f"holdout_{name}"] = holdout_table(path)
    text = (HERE / "page.md").read_text()
    for name, part in parts.items():
        text = text.replace("{{" + name + "}}", part)
    return text


def write() -> None:
    """Writes the page."""
    PAGE.write_text(render())
