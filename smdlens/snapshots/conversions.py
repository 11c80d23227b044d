"""What was shown in other terms than a file has it: axes, names, an optimizer's convention."""

from __future__ import annotations

from smdlens.snapshots.records import SnapshotSeries

_WEIGHTS, _NOTES = "weights_source", "conversion"
# A file may hold an entry of that name itself.
_LONGEST, _MOST = 300, 20


def conversions(series: SnapshotSeries) -> tuple[str, ...]:
    """Every conversion that a reader made in the series, each once, in order."""
    found: dict[str, None] = {}
    for snapshot in series.snapshots:
        source, notes = (snapshot.scalars.get(key) for key in (_WEIGHTS, _NOTES))
        if isinstance(source, str):
            found[f"weights: {source}"[:_LONGEST]] = None
        if isinstance(notes, str):
            found |= dict.fromkeys(note[:_LONGEST] for note in notes.split("; ") if note)
    return tuple(found)[:_MOST]
