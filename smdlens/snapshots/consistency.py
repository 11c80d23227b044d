"""Make the snapshots of a series comparable: one set of tensors, one mapping of the optimizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from smdlens.snapshots.placing import Opened
from smdlens.snapshots.records import OptimizerRecord, Skipped, Snapshot
from smdlens.vocabulary import SkipReason
from smdlens.wording import count_of


def keep_same_tensors(
    opened: Sequence[Opened],
) -> tuple[list[Opened], list[Skipped], list[str]]:
    """Leave out snapshots of another network; keep the tensors all others share.

    A snapshot is of another network when it shares less than half of the tensors, shapes included,
    of the largest agreeing set. Where some tensors changed shape during the run (a head replaced,
    a vocabulary resized half-way), they are left out rather than a third or more of the
    snapshots, if that leaves more tensors times snapshots; a stray file goes itself.
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
    foreign = [_foreign(o.snapshot, shapes) for o in opened]
    reshaped = [_reshaped(o.snapshot, shapes) for o in opened]
    of_this = [names for names, why in zip(reshaped, foreign, strict=True) if not why]
    changed = {name for names in of_this for name in names}
    odd = sum(1 for names in of_this if names)
    give_up_tensors = 3 * odd >= len(of_this) and len(changed) * len(of_this) < odd * len(shapes)
    kept: list[Opened] = []
    skipped: list[Skipped] = []
    for o, names, detail in zip(opened, reshaped, foreign, strict=True):
        if names and (detail or not give_up_tensors):
            found = o.snapshot.tensors[names[0]].shape
            detail = f"tensor {names[0]!r} has shape {found}, in most snapshots {shapes[names[0]]}"
        if detail:
            skipped.append(Skipped(o.ref.label, SkipReason.DIFFERENT_TENSORS, detail))
        else:
            kept.append(o)
    notes = []
    if give_up_tensors:
        kept = [_restrict(o, set(o.snapshot.tensors) - changed) for o in kept]
        notes.append(_note(changed, "of another shape in some snapshots"))
        shapes = {name: shape for name, shape in shapes.items() if name not in changed}
    common = set(shapes)
    for o in kept:
        common &= set(o.snapshot.tensors)
    every = {name for o in kept for name in o.snapshot.tensors}
    if every - common:
        kept = [_restrict(o, common) for o in kept]
        notes.append(_note(every - common, "not in every snapshot"))
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


def _note(names: set[str], why: str) -> str:
    shown = ", ".join(map(repr, sorted(names)[:5])) + (" ..." if len(names) > 5 else "")
    return f"{count_of(len(names), 'tensor')} not analysed, {why}: {shown}"


def _reshaped(snapshot: Snapshot, shapes: dict[str, tuple[int, ...]]) -> list[str]:
    """Names of the tensors that have another shape here, in the file's order."""
    return [
        name for name, ref in snapshot.tensors.items() if shapes.get(name, ref.shape) != ref.shape
    ]


def _foreign(snapshot: Snapshot, shapes: dict[str, tuple[int, ...]]) -> str:
    """Why a snapshot is of another network, or an empty string."""
    shared = sum(1 for name, ref in snapshot.tensors.items() if shapes.get(name) == ref.shape)
    if shared * 2 < len(shapes):
        return f"shares {shared} of {count_of(len(shapes), 'tensor')} with most snapshots"
    return ""


def _restrict(o: Opened, names: set[str]) -> Opened:
    tensors = {n: ref for n, ref in o.snapshot.tensors.items() if n in names}
    return replace(o, snapshot=replace(o.snapshot, tensors=tensors))
