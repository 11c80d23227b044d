"""From the raw content of a checkpoint to a snapshot: weights, optimizer, position, the rest."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smdlens.containers.limits import DEFAULT_LIMITS, Limits
from smdlens.errors import SnapshotUnsupportedError
from smdlens.snapshots.candidate import RawCheckpoint
from smdlens.snapshots.name_matching import Match
from smdlens.snapshots.optimizer_state import (
    find_optimizers,
    match_optimizer,
    most_updates,
    optimizer_record,
)
from smdlens.snapshots.records import OptimizerRecord, Snapshot
from smdlens.snapshots.resolve import is_tensor
from smdlens.snapshots.scalars import PlainConverter, ScalarReader
from smdlens.snapshots.steps import Position, position_of
from smdlens.snapshots.weight_trees import RawTree, find_trees, preference, select_tree


class AveragedOnlyError(SnapshotUnsupportedError):
    """The file holds averaged weights (EMA, SWA) and no others."""


class NoWeightsError(SnapshotUnsupportedError):
    """The file holds no weights at all."""


@dataclass(frozen=True, slots=True)
class Assembled:
    """A snapshot, and what only the series needs of it."""

    snapshot: Snapshot
    position: Position
    notes: tuple[str, ...]


def assemble(
    raw: RawCheckpoint,
    files: tuple[str, ...],
    names: tuple[str, ...],
    weights_key: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Assembled:
    """Interpret one raw checkpoint.

    Args:
        raw: Its content.
        files: Its files as the report shall show them.
        names: Its name, then its folders' names up to the run folder, for the step.
        weights_key: Dotted key of the weight tree the user asks for.
        limits: Bounds.

    Raises:
        AveragedOnlyError: Only averaged weights.
        NoWeightsError: No weights at all.
        InputError: `weights_key` names no tree.
    """
    subject = str(raw.files[0])
    trees = find_trees(raw.root)
    optimizers = find_optimizers(raw.root)
    tree, note, chosen, notes = _choose(raw, trees, optimizers, weights_key, subject)
    with ScalarReader(raw.stamps) as numbers:
        plain = PlainConverter(numbers, limits)
        record: OptimizerRecord | None = None
        if chosen is not None:
            key, value, class_name, match = chosen
            record = optimizer_record(key, value, class_name, match, numbers, plain)
        counts = [
            count
            for _, value, _ in ([chosen[:3]] if chosen is not None else optimizers)
            if (count := most_updates(value, numbers)) is not None
        ]
        position = position_of(raw.root, names, max(counts, default=None), numbers)
        taken = {t.key.partition(".")[0] for t in trees} | {
            key.partition(".")[0] for key, _, _ in optimizers
        }
        scalars = _scalars(raw.root, taken, plain)
    weights = tree.resolve()
    snapshot = Snapshot(
        step=position.step,
        epoch=position.epoch,
        step_source=position.source,
        files=files,
        format=raw.format,
        # Interning: the same names come again in every snapshot of the run.
        tensors={sys.intern(name): ref for name, ref in weights.tensors.items()},
        tree_key=tree.key,
        tree_note=note,
        trees=tuple((t.key, len(t.tensors), t.averaged) for t in trees),
        optimizer=record,
        scalars=scalars,
        stamps=raw.stamps,
        network=raw.network,
    )
    return Assembled(snapshot, position, notes)


_Chosen = tuple[str, Any, str, Match]


def _choose(
    raw: RawCheckpoint,
    trees: list[RawTree],
    optimizers: list[tuple[str, Any, str]],
    weights_key: str | None,
    subject: str,
) -> tuple[RawTree, str, _Chosen | None, tuple[str, ...]]:
    """The weight tree, why, the optimizer that belongs to it, and observations."""
    if not trees:
        raise NoWeightsError(
            "no weights in this file",
            subject=subject,
            expected="a mapping of names to floating-point tensors",
        )
    asked = select_tree(trees, weights_key, subject)
    pool = [asked] if asked is not None else [t for t in trees if not t.averaged]
    if not pool:
        raise AveragedOnlyError(
            "only averaged weights in this file",
            subject=subject,
            found=", ".join(repr(t.key) for t in trees),
            remedy="Analyse the raw weights, or name this tree with --weights.",
        )
    pool.sort(key=preference)
    scored: list[tuple[float, int, RawTree, _Chosen]] = []
    for rank, tree in enumerate(pool):
        for key, value, class_name in optimizers:
            match = match_optimizer(value, tree, raw.ordered)
            scored.append((-match.quality, rank, tree, (key, value, class_name, match)))
    scored.sort(key=lambda item: item[:2])
    if scored and -scored[0][0] > 0:
        _, _, tree, chosen = scored[0]
        note = _note(tree, trees, asked, f"the optimizer {chosen[0]!r} belongs to it")
        others = [key for key, _, _ in optimizers if key != chosen[0]]
        notes = (
            (f"{len(others) + 1} optimizers; {chosen[0]!r} covers the weights best",)
            if others
            else ()
        )
        return tree, note, chosen, notes
    tree = pool[0]
    best = scored[0][3] if scored else None
    note = _note(tree, trees, asked, "it has the most weights")
    return tree, note, best, ()


def _note(tree: RawTree, trees: list[RawTree], asked: RawTree | None, why: str) -> str:
    if asked is not None:
        return "chosen with --weights"
    others = [t for t in trees if t is not tree]
    if not others:
        return "the only weight tree"
    averaged = [t.key for t in others if t.averaged]
    raw = [t.key for t in others if not t.averaged]
    parts = []
    if raw:
        parts.append(f"chosen over {', '.join(map(repr, raw[:5]))}: {why}")
    if averaged:
        parts.append(f"averaged weights left aside: {', '.join(map(repr, averaged[:5]))}")
    return "; ".join(parts)


def _scalars(root: Any, taken: set[str], plain: PlainConverter) -> Mapping[str, Any]:
    """Top-level entries that hold neither weights nor optimizer state."""
    if not isinstance(root, Mapping):
        return {}
    result = {}
    for key, value in root.items():
        if not isinstance(key, str) or key in taken or not key:
            continue
        if is_tensor(value) and value.shape not in ((), (1,)):
            continue
        converted = plain.convert(value)
        if converted is not None:
            result[key] = converted
    return result
