"""One checkpoint in a terminal: what it is, what the trainer used, what is in it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from smdlens.containers.checksums import FileCheck
from smdlens.names import shorten
from smdlens.report.inspection import Inspection
from smdlens.report.numbers import bytes_text, exact, rate
from smdlens.report.tensor_tree import elements, tensor_tree
from smdlens.report.terminal.grid import Column, show_table
from smdlens.report.terminal.pen import SYMBOLS, Pen
from smdlens.snapshots.records import GroupRecord
from smdlens.vocabulary import Outcome
from smdlens.wording import count_of

_MOST_LINES = 100
_MOST_GROUPS = 12
_MOST_SCALARS = 16
_RATES = ("lr", "initial_lr", "weight_decay", "momentum", "betas", "nesterov", "dampening")


def render(
    inspection: Inspection,
    console: Console,
    *,
    checks: Sequence[FileCheck] = (),
    verbose: bool = False,
) -> None:
    """Prints an inspection; with `verbose` every line of the tree and every group."""
    pen = Pen(console, verbose=verbose)
    _head(inspection, pen)
    _tree(inspection, pen)
    _optimizer(inspection, pen)
    _settings(inspection, pen)
    _scalars(inspection.snapshot.scalars, pen)
    _checks(checks, pen)


def _head(inspection: Inspection, pen: Pen) -> None:
    snapshot = inspection.snapshot
    total = sum(inspection.sizes.values())
    count = f" in {len(inspection.sizes)} files" if len(inspection.sizes) > 1 else ""
    pen.pieces([inspection.path, snapshot.format, f"{bytes_text(total)}{count}"], "bold")
    if snapshot.step is not None:
        when = [f"step {exact(snapshot.step)} ({snapshot.step_source})"]
    elif snapshot.epoch is not None:
        when = [f"step unknown, epoch {snapshot.epoch:g} ({snapshot.step_source})"]
    else:
        when = ["step and epoch unknown"]
    if snapshot.step is not None and snapshot.epoch is not None:
        when.append(f"epoch {snapshot.epoch:g}")
    pen.pieces(when)
    pen.pieces(
        [
            f"weights {snapshot.tree_key or 'at the top level'!r}: "
            f"{count_of(len(snapshot.tensors), 'tensor')}, "
            f"{exact(elements(snapshot.tensors))} elements",
            snapshot.tree_note,
        ]
    )
    if len(snapshot.trees) > 1:
        for key, tensors, averaged in snapshot.trees:
            what = "averaged weights" if averaged else "weights"
            pen.line(f"{key or 'top level'}: {what}, {count_of(tensors, 'tensor')}", "dim")


def _tree(inspection: Inspection, pen: Pen) -> None:
    lines = tensor_tree(inspection.snapshot.tensors)
    shown = lines if pen.verbose else lines[:_MOST_LINES]
    rows = []
    for line in shown:
        name = "  " * line.depth + line.name
        if line.tensor is not None:
            shape = "×".join(map(str, line.tensor.shape)) or "scalar"
            row = (name, shape, line.tensor.dtype, bytes_text(line.nbytes))
        else:
            alike = f"{line.repeats} alike, " if line.repeats > 1 else ""
            of = "" if line.vectors is None else f" of {line.vectors}"
            row = (
                name,
                f"{alike}{count_of(line.count, 'tensor')}{of}",
                "",
                bytes_text(line.nbytes),
            )
        rows.append(row)
    pen.blank()
    columns = [
        Column("tensor", flexible=True),
        Column("shape", flexible=True),
        Column("dtype", optional=True),
        Column("size", right=True, optional=True),
    ]
    show_table(pen, columns, rows)
    if len(shown) < len(lines):
        pen.line(f"and {len(lines) - len(shown)} lines more: add -v, or --json", "dim")


def _optimizer(inspection: Inspection, pen: Pen) -> None:
    record, rule = inspection.snapshot.optimizer, inspection.optimizer
    pen.blank()
    if record is None:
        pen.line("no optimizer state in this checkpoint", indent=0)
        return
    name = rule.name or rule.kind.value
    kind = "" if rule.decoupled is None else ", decoupled decay" if rule.decoupled else ", L2 decay"
    slots = [f"{slot.replace('_', ' ')} of {n}" for slot, n in inspection.slot_counts.items()]
    pen.pieces(
        [
            f"optimizer {record.key!r}: {name}{kind} ({rule.source})",
            f"{inspection.trained} parameters",
            ", ".join(slots) or "no buffers",
            f"names: {record.note or 'not known'}",
        ]
    )
    groups = record.groups if pen.verbose else record.groups[:_MOST_GROUPS]
    for group in groups:
        pen.line(_group(group))
    if len(groups) < len(record.groups):
        pen.line(f"and {len(record.groups) - len(groups)} groups more: add -v, or --json", "dim")


def _group(group: GroupRecord) -> str:
    values = [
        f"{key.replace('_', ' ')} {_value(value)}"
        for key in _RATES
        if (value := group.values.get(key)) is not None
        and value is not False
        and (value or key != "dampening")
    ]
    names = "" if group.names is not None else ", which ones is not known"
    return f"group {group.index}: {', '.join([*values, count_of(group.count, 'tensor')])}{names}"


def _settings(inspection: Inspection, pen: Pen) -> None:
    for one in inspection.settings:
        said = {
            "optimizer": one.optimizer,
            "lr": one.lr,
            "weight decay": one.weight_decay,
            "momentum": one.momentum,
            "betas": one.betas,
        }
        facts = [f"{key} {_value(value)}" for key, value in said.items() if value is not None]
        pen.pieces([f"{one.source}: {', '.join(facts)}"])
    for _, text, remedy in inspection.notes:
        symbol, style = SYMBOLS[Outcome.WARN]
        pen.item(symbol, style, [pen.text(text), pen.text(remedy, "dim")])


def _scalars(scalars: Mapping[str, Any], pen: Pen) -> None:
    if not scalars:
        return
    facts = [f"{key} {_brief(value)}" for key, value in scalars.items()]
    more = f"and {len(facts) - _MOST_SCALARS} more" if len(facts) > _MOST_SCALARS else ""
    pen.blank()
    pen.pieces(["also in it: " + facts[0], *facts[1:_MOST_SCALARS], *([more] if more else [])])


def _brief(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({len(value)} entries)"
    if isinstance(value, (list, tuple)):
        return f"({len(value)} items)"
    return _value(value)


def _value(value: Any) -> str:
    if isinstance(value, float):
        return rate(value) if math.isfinite(value) else str(value)
    if isinstance(value, (list, tuple)):
        return "/".join(map(_value, value[:4])) + ("/…" if len(value) > 4 else "")
    return shorten(str(value), 40)


def _checks(checks: Sequence[FileCheck], pen: Pen) -> None:
    if not checks:
        return
    pen.blank()
    words = {
        "ok": "CRC-32 of every entry right",
        "mismatch": "CRC-32 WRONG",
        "not stored": "written without CRC-32",
        "none": "",
    }
    for check in checks:
        symbol, style = SYMBOLS[Outcome.FAIL if check.failed else Outcome.PASS]
        facts = [words[check.crc]] if words[check.crc] else []
        if check.mismatches:
            facts.append(f"entries {', '.join(check.mismatches[:5])}")
        if check.manifest is not None:
            facts.append(f"manifest: {check.manifest}")
        lines = [pen.text(f"{check.label}{': ' if facts else ''}{', '.join(facts)}")]
        pen.item(symbol, style, [*lines, pen.text(f"sha256 {check.sha256}", "dim")])
