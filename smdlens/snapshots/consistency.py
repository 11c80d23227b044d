"""Make the snapshots of a series comparable: one set of tensors, one mapping of the optimizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from smdlens.snapshots.placing import Opened
from smdlens.snapshots.records import OptimizerRecord, Skipped, Snapshot
from smdlens.vocabulary import SkipReason


def keep_same_tensors(
    opened: Sequence[Opened],
) -> tuple[list[Opened], list[Skipped], list[str]]:
    """Leave out snapshots of another network; keep the tensors all others share.

    A snapshot is of another network when a tensor has another shape than in most snapshots, or
    when it shares less than half of the tensors of the largest agreeing set.
    """
    if len(opened) < 2:
        return list(opened), [], []
    signatures = [
        frozenset((name, ref.shape) for name, ref in o.snapshot.tensors.items()) for o in opened
    ]
    votes = Counter(signatures)
    # Later snapshots decide a tie: they are what the run became.
    reference = max(votes, key=lambda s: (votes[s], _last_index(signatures, s)))
    shapes = dict(reference)
    kept: list[Opened] = []
    skipped: list[Skipped] = []
    for o, signature in zip(opened, signatures, strict=True):
        detail = "" if signature == reference else _difference(o.snapshot, shapes)
        if detail:
            skipped.append(Skipped(o.ref.label, SkipReason.DIFFERENT_TENSORS, detail))
        else:
            kept.append(o)
    common = set(shapes)
    for o in kept:
        common &= set(o.snapshot.tensors)
    every = {name for o in kept for name in o.snapshot.tensors}
    notes = []
    if every - common:
        kept = [_restrict(o, common) for o in kept]
        missing = sorted(every - common)
        shown = ", ".join(repr(n) for n in missing[:5]) + (" ..." if len(missing) > 5 else "")
        notes.append(f"{len(missing)} tensors are not in every snapshot, so not analysed: {shown}")
    return kept, skipped, notes


def share_parameter_names(snapshots: Sequence[Snapshot]) -> tuple[Snapshot, ...]:
    """Give unmapped parameter groups the names that a sibling snapshot could decide.

    A first checkpoint has no buffers to tell shapes by; the numbering of parameters does not
    change within a run.
    """
    donors: dict[tuple[int, ...], OptimizerRecord] = {}
    for snapshot in snapshots:
        record = snapshot.optimizer
        if record is not None and record.groups and all(g.names is not None for g in record.groups):
            donors.setdefault(_counts(record), record)
    result = []
    for snapshot in snapshots:
        record = snapshot.optimizer
        if record is not None and not record.slots:
            donor = donors.get(_counts(record))
            if donor is not None and any(g.names is None for g in record.groups):
                groups = tuple(
                    replace(g, names=d.names)
                    for g, d in zip(record.groups, donor.groups, strict=True)
                )
                note = f"as in another snapshot: {donor.note}"
                snapshot = replace(snapshot, optimizer=replace(record, groups=groups, note=note))
        result.append(snapshot)
    return tuple(result)


def _counts(record: OptimizerRecord) -> tuple[int, ...]:
    return tuple(group.count for group in record.groups)


def _last_index(signatures: Sequence[object], signature: object) -> int:
    return max(i for i, s in enumerate(signatures) if s == signature)


def _difference(snapshot: Snapshot, shapes: dict[str, tuple[int, ...]]) -> str:
    shared = 0
    for name, ref in snapshot.tensors.items():
        expected = shapes.get(name)
        if expected is None:
            continue
        if expected != ref.shape:
            return f"tensor {name!r} has shape {ref.shape}, in most snapshots {expected}"
        shared += 1
    if shared * 2 < len(shapes):
        return f"shares {shared} of {len(shapes)} tensors with most snapshots"
    return ""


def _restrict(o: Opened, names: set[str]) -> Opened:
    tensors = {n: ref for n, ref in o.snapshot.tensors.items() if n in names}
    return replace(o, snapshot=replace(o.snapshot, tensors=tensors))
