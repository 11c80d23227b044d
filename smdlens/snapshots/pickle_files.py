"""Plain pickles of NumPy arrays: PaddlePaddle's .pdparams, MegEngine's, and anyone's own.

The pickle goes through the inert interpreter; the arrays inside it stay in the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smdlens.containers.files import FileStamp, reading
from smdlens.containers.limits import Limits
from smdlens.containers.pickle_bytes import load_pickle_in_place
from smdlens.snapshots.candidate import Candidate, RawCheckpoint
from smdlens.snapshots.flax_tree import from_flax, looks_like_flax
from smdlens.snapshots.megengine import from_megengine, looks_like_megengine
from smdlens.snapshots.paddle import (
    from_paddle,
    joined_parts,
    looks_like_paddle,
    optimizer_beside,
)
from smdlens.snapshots.pickled_arrays import ArrayPlacer

# A dict, or one of the dicts of `collections`, right behind protocol and frame.
_HEAD = re.compile(
    rb"\x80[\x02-\x05](?:\x95.{8})?(?:\}|c(?:collections)\n|\x8c\x0bcollections)", re.DOTALL
)


class PickleReader:
    """Reader of pickled dicts of arrays."""

    name = "pickle"

    def recognises(self, candidate: Candidate) -> bool:
        """A pickle whose first value is a dict."""
        return _HEAD.match(candidate.head) is not None

    def read(self, candidate: Candidate, limits: Limits) -> RawCheckpoint:
        """Read the pickle but for its arrays, and the optimizer's file beside Paddle's weights."""
        files: list[Path] = []
        stamps: dict[str, FileStamp] = {}
        root = _load(candidate.path, limits, files, stamps)
        if isinstance(root, Mapping):
            root = {k: v for k, v in root.items() if type(k) in (str, int)}
            root = joined_parts(root, str(candidate.path))
            beside = optimizer_beside(candidate.path)
            if looks_like_paddle(root):
                state = None
                if beside is not None:
                    state = _load(beside, limits, files, stamps)
                    state = joined_parts(state, str(beside)) if type(state) is dict else None
                root = from_paddle(root, state)
            elif looks_like_megengine(root):
                root = from_megengine(root)
            elif looks_like_flax(root):
                root = from_flax(root)
        return RawCheckpoint(self.name, root, tuple(files), stamps)


def _load(path: Path, limits: Limits, files: list[Path], stamps: dict[str, FileStamp]) -> Any:
    with reading(path) as file:
        value = load_pickle_in_place(file, limits)
    files.append(path)
    stamps[file.path] = file.stamp
    return ArrayPlacer(file.path).place(value)
