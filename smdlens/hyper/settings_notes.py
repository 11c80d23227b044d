"""Where a trainer's settings and the optimizer's state disagree, and what they leave open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from smdlens.hyper.optimizer import SAVED, kind_from_keys, last_record, number, saved_betas
from smdlens.hyper.settings import Settings
from smdlens.snapshots.records import GroupRecord, SnapshotSeries
from smdlens.vocabulary import OptimizerKind

Note = tuple[str, str, str]
_OPEN = frozenset({OptimizerKind.UNKNOWN, OptimizerKind.OTHER})


def settings_notes(series: SnapshotSeries, settings: Sequence[Settings]) -> list[Note]:
    """Contradictions between settings and saved state, and settings that change in a run."""
    record = last_record(series)
    notes: list[Note] = []
    if record is not None:
        saved_kind = kind_from_keys(record)
        for one in settings:
            rule = one.rule
            if rule is not None and not {rule[0], saved_kind[0]} & _OPEN and rule != saved_kind:
                notes.append(_disagree(one, "optimizer", one.optimizer, saved_kind[0].value))
            for name, key in (("weight_decay", "weight_decay"), ("lr", "initial_lr")):
                notes.extend(_against_groups(one, name, key, record.groups))
            if saved_kind[0] is OptimizerKind.SGD:
                notes.extend(_against_groups(one, "momentum", "momentum", record.groups))
    remedy = "Give what they say by option if it is missing."
    notes += [("SMD010", one.note, remedy) for one in settings if one.note]
    return [*notes, *_changing_momentum(series)]


def written_rate(settings: Sequence[Settings]) -> str:
    """What settings say of a rate that cannot be followed over the run, as evidence."""
    for one in settings:
        if one.lr is None:
            continue
        kind = next(
            (v for k in ("sched", "lr_scheduler_type", "lr_scheduler", "scheduler")
             if isinstance(v := one.values.get(k), str)),
            None,
        )  # fmt: skip
        text = f"; {one.source} says lr {one.lr:g}"
        return f"{text} under the schedule {kind[:40]!r}" if kind else text
    return ""


def _against_groups(
    one: Settings, name: str, key: str, groups: Sequence[GroupRecord]
) -> list[Note]:
    written: float | None = getattr(one, name)
    saved = [value for group in groups if (value := number(group.values, key)) is not None]
    if written is None or not saved:
        return []
    if any(np.isclose(written, value, rtol=1e-6, atol=0.0) for value in saved):
        return []
    # Groups at a multiple of the written rate (per-layer rates) are no contradiction of it.
    if name == "lr" and len(set(saved)) > 1:
        return []
    shown = " and ".join(f"{value:g}" for value in sorted(set(saved))[:3])
    return [_disagree(one, name.replace("_", " "), f"{written:g}", shown)]


def _disagree(one: Settings, what: str, written: str | None, saved: str) -> Note:
    return (
        "SMD010",
        f"{one.source} says {what} {written}, the {SAVED} say {saved}; the latter is used",
        "Check that the settings belong to this run; an option overrules both.",
    )


def _changing_momentum(series: SnapshotSeries) -> list[Note]:
    """A momentum that differs between snapshots (a one-cycle schedule cycles it)."""
    seen: list[float] = []
    for snapshot in series.snapshots:
        if snapshot.optimizer is not None and snapshot.optimizer.groups:
            value = _momentum(snapshot.optimizer.groups[0].values)
            if value is not None:
                seen.append(value)
    if len(seen) < 2 or max(seen) - min(seen) <= 1e-6:
        return []
    return [
        (
            "SMD019",
            f"the momentum changes during the run, between {min(seen):g} and {max(seen):g}; "
            "the last saved value is used throughout",
            "Judge the stages in which it was that; one-cycle schedules: cycle_momentum=False.",
        )
    ]


def _momentum(values: Mapping[str, Any]) -> float | None:
    betas = saved_betas(values)
    return betas[0] if betas is not None else number(values, "momentum")
