"""Records of the held-out corpus -> a summary kept beside this file, and the table of the docs.

python tests/symmetry/held_out_table.py --column now RECORDS.jsonl ...
"""

import argparse
import json
from pathlib import Path

HERE = Path(__file__).parent
SUMMARY = HERE / "held_out_summary.json"
PAGE = HERE.parents[1] / "docs" / "symmetry.md"
BEGIN, END = "<!-- measured -->\n", "<!-- end of measured -->"
FROM_GRAPH = (
    "tensors", "false", "relevant", "missed", "irrelevant", "irrelevant_found", "basis", "unsound",
    "pieces", "false_pieces", "per_channel", "coarse",
)  # fmt: skip
FROM_NAMES = (
    "names_right", "names_false", "names_missed", "names_irrelevant_right",
    "names_irrelevant_false",
)  # fmt: skip
COLUMNS = {"first": "first run", "now": "now"}


def summary(records):
    """Sums over the records of one run."""
    known = [r for r in records if "unmeasured" not in r]
    solved = [r for r in known if "untraced" not in r]

    def total(field, among=solved):
        return sum(r[field] if isinstance(r[field], int) else len(r[field]) for r in among)

    trace, solve = (sum(r[f] for r in solved) for f in ("trace_s", "solve_s"))
    return {
        "networks": len(records),
        "written": sum(r["half"] == "written" for r in records),
        "measured": len(known),
        "solved": len(solved),
        **{field: total(field) for field in FROM_GRAPH},
        **{field: total(field, known) for field in FROM_NAMES},
        "trace_mean_s": round(trace / len(solved), 2),
        "trace_max_s": round(max(r["trace_s"] for r in solved), 2),
        "solve_mean_s": round(solve / len(solved), 3),
        "solve_max_s": round(max(r["solve_s"] for r in solved), 2),
        "solve_per_trace": round(solve / trace, 3),
    }


def names_precision(s):
    return s["names_right"] / (s["names_right"] + s["names_false"])


def names_recall(s):
    return s["names_right"] / (s["names_right"] + s["names_missed"])


def _share(part, whole):
    return f"{part} of {whole} ({100 * part / whole:.1f} %)"


ROWS = (
    ("networks (of them hand-written)", lambda s: f"{s['networks']} ({s['written']})"),
    ("of these, truth could be measured", lambda s: f"{s['measured']}"),
    ("of these, traced and solved", lambda s: _share(s["solved"], s["measured"])),
    ("tensors compared", lambda s: f"{s['tensors']:,}"),
    ("tensors called invariant that are not", lambda s: f"{s['false']}"),
    ("pieces (channels, heads, groups) claimed", lambda s: f"{s['pieces']:,}"),
    ("tensors with a false piece", lambda s: f"{s['false_pieces']}"),
    ("vectors of the null spaces", lambda s: f"{s['basis']:,}"),
    ("of these, not confirmed by rescaling", lambda s: f"{s['unsound']}"),
    (
        "invariant tensors that are not irrelevant, found",
        lambda s: _share(s["relevant"] - s["missed"], s["relevant"]),
    ),
    ("irrelevant tensors, found", lambda s: _share(s["irrelevant_found"], s["irrelevant"])),
    (
        "invariant per channel, found per channel",
        lambda s: _share(s["per_channel"] - s["coarse"], s["per_channel"]),
    ),
    (
        "tracing, mean and longest",
        lambda s: f"{s['trace_mean_s']} s, {s['trace_max_s']} s",
    ),
    ("solving, mean and longest", lambda s: f"{s['solve_mean_s']} s, {s['solve_max_s']} s"),
    ("solving / tracing, all together", lambda s: f"{100 * s['solve_per_trace']:.1f} %"),
    ("names alone: precision", lambda s: f"{100 * names_precision(s):.1f} %"),
    ("names alone: recall", lambda s: f"{100 * names_recall(s):.1f} %"),
)


def table(summaries):
    """Markdown of all columns."""
    names = [name for name in COLUMNS if name in summaries]
    lines = [
        f"| | {' | '.join(COLUMNS[name] for name in names)} |",
        f"|---|{'---|' * len(names)}",
    ]
    for title, show in ROWS:
        lines.append(f"| {title} | {' | '.join(show(summaries[name]) for name in names)} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", nargs="+", type=Path)
    parser.add_argument("--column", choices=COLUMNS, default="now")
    arguments = parser.parse_args()
    # A network measured again replaces its earlier record.
    found = [json.loads(line) for path in arguments.records for line in path.open()]
    records = list({record["name"]: record for record in found}.values())
    summaries = json.loads(SUMMARY.read_text()) if SUMMARY.exists() else {}
    summaries[arguments.column] = summary(records)
    SUMMARY.write_text(json.dumps(summaries, indent=1) + "\n")
    if PAGE.exists():
        before, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(before + BEGIN + table(summaries) + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
