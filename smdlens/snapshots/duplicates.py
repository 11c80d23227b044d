"""Several checkpoints of one step: which stays, and whether the run was restarted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from smdlens.containers.files import open_regular
from smdlens.errors import SnapshotError
from smdlens.snapshots.extent_bytes import read_extent
from smdlens.snapshots.placing import Opened
from smdlens.snapshots.records import Skipped, Snapshot, TensorRef
from smdlens.snapshots.steps import natural_key
from smdlens.vocabulary import SkipReason
from smdlens.wording import count_of

_COMPARED_TENSORS = 8
_COMPARED_BYTES = 1 << 16


def keep_one_per_step(
    opened: Sequence[Opened],
) -> tuple[list[Opened], list[Skipped], list[str]]:
    """Of the checkpoints of one step keep the complete one, then the first in natural order.

    Args:
        opened: Ordered along the axis.

    Returns:
        Those kept, those left out, and a note where files of one step hold different weights.
    """
    kept: list[Opened] = []
    skipped: list[Skipped] = []
    differing: list[tuple[str, str, float]] = []
    for position, group in groupby(opened, key=_position):
        first, *rest = sorted(group, key=_rank)
        kept.append(first)
        for other in rest:
            same = same_weights(first.snapshot, other.snapshot)
            reason = (
                SkipReason.BEST_OR_LAST_COPY if other.ref.is_copy else SkipReason.DUPLICATE_STEP
            )
            words = "the same weights as" if same else "other weights than"
            skipped.append(
                Skipped(other.ref.label, reason, f"step {position:g}: {words} {first.ref.label}")
            )
            if not same:
                differing.append((first.ref.label, other.ref.label, position))
    return kept, skipped, _restarts(differing)


def _restarts(differing: Sequence[tuple[str, str, float]]) -> list[str]:
    """One note on (kept, left out, step) of files with different weights, if there are any."""
    if not differing:
        return []
    used, other, position = differing[0]
    told = f"restart: {used} and {other} are both of step {position:g} and hold different weights"
    more = len({step for _, _, step in differing}) - 1
    if not more:
        return [f"{told}; {used} is used"]
    return [
        f"{told}, and so it is at {count_of(more, 'more step')}; the first file of each is used. "
        "If these are two runs, give smdlens the files of one"
    ]


def same_weights(a: Snapshot, b: Snapshot) -> bool:
    """Whether two snapshots hold the same weights, from samples of their largest tensors."""
    if {n: t.shape for n, t in a.tensors.items()} != {n: t.shape for n, t in b.tensors.items()}:
        return False
    largest = sorted(a.tensors.values(), key=lambda t: -t.nbytes)[:_COMPARED_TENSORS]
    by_name = {ref.name: name for name, ref in a.tensors.items()}
    try:
        for ref in largest:
            other = b.tensors[by_name[ref.name]]
            if (ref.dtype, ref.strides) != (other.dtype, other.strides):
                return False
            if _sample(ref) != _sample(other):
                return False
    except SnapshotError:
        return False
    return True


def _sample(ref: TensorRef) -> bytes:
    if not ref.extents:
        return b""
    extent = ref.extents[0]
    with open_regular(extent.path) as file:
        return read_extent(file, extent, _COMPARED_BYTES)


def _position(o: Opened) -> float:
    snapshot = o.snapshot
    return float(snapshot.step if snapshot.step is not None else round(snapshot.epoch or 0))


def _rank(o: Opened) -> tuple[bool, bool, tuple[tuple[int, int, str], ...]]:
    return (o.ref.is_copy, o.snapshot.optimizer is None, natural_key(o.ref.label))
