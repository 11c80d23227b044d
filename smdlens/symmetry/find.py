"""The door of the room: which tensors of a run live on a sphere, and who says so."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from fnmatch import fnmatchcase

from smdlens.errors import NothingToAnalyseError
from smdlens.snapshots.records import SnapshotSeries
from smdlens.symmetry.from_names import scale_groups_from_names
from smdlens.symmetry.records import ScaleGroups


def find_scale_groups(
    series: SnapshotSeries, *, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> ScaleGroups:
    """Scale groups of the tensors that every snapshot of the run holds.

    Args:
        series: The run; names and shapes of its last snapshot decide.
        include: Globs; when given, only tensors that match one are analysed.
        exclude: Globs of tensors to leave out.

    Raises:
        NothingToAnalyseError: No tensor is left.
    """
    last = series.snapshots[-1].tensors
    groups = scale_groups_from_names(last)
    kept = {
        name: symmetry
        for name, symmetry in groups.tensors.items()
        if (not include or any(fnmatchcase(name, glob) for glob in include))
        and not any(fnmatchcase(name, glob) for glob in exclude)
    }
    if not kept:
        raise NothingToAnalyseError(
            "no tensor is left to analyse",
            subject=series.path,
            expected="at least one floating-point weight",
            found=f"{len(groups.tensors)} tensors before --include and --exclude"
            if groups.tensors
            else f"{len(last)} tensors, none of a floating-point dtype",
            remedy="Check --include and --exclude, or choose another weight tree with --weights.",
        )
    return dataclasses.replace(groups, tensors=kept)
