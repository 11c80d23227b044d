"""Megatron-LM's own layout: iter_0000100/mp_rank_00/model_optim_rng.pt.

A single model-parallel rank is read; slices of several would have to be merged along axes that the
files do not name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from smdlens.containers.files import contained
from smdlens.containers.limits import Limits
from smdlens.errors import SnapshotCorruptError, SnapshotUnsupportedError
from smdlens.snapshots.candidate import Candidate, RawCheckpoint, candidate_folder, is_folder
from smdlens.snapshots.hf_folder import torch_file
from smdlens.snapshots.resolve import is_tensor

_RANK = re.compile(r"mp_rank_\d{2,3}(?:_\d{3}){0,2}")
_FILE = "model_optim_rng.pt"
_SPREAD = "distrib_optim.pt"
_DEEPEST = 12


class MegatronReader:
    """Reader of iteration folders of Megatron-LM."""

    name = "megatron"

    def recognises(self, candidate: Candidate) -> bool:
        """A folder of folders named for model-parallel ranks."""
        ranks = _ranks(candidate)
        if not ranks or not is_folder(candidate.path / ranks[0]):
            return False
        return (candidate.path / ranks[0] / _FILE).is_file()

    def read(self, candidate: Candidate, limits: Limits) -> RawCheckpoint:
        """Read the headers of the one rank's file."""
        ranks = _ranks(candidate)
        if len(ranks) > 1:
            raise SnapshotUnsupportedError(
                "the model is cut into model-parallel slices",
                subject=str(candidate.path),
                expected="mp_rank_00 alone",
                found=", ".join(ranks[:4]),
                remedy="Merge the slices with Megatron's own tools, or save with torch_dist.",
            )
        folder = contained(candidate.path, ranks[0], subject=str(candidate.path))
        raw = torch_file(folder / _FILE, limits)
        if not isinstance(raw.root, Mapping):
            raise SnapshotCorruptError("not a mapping of states", subject=str(folder / _FILE))
        root = {str(k): v for k, v in raw.root.items() if type(k) is str}
        if isinstance(root.get("model"), Mapping):
            root["model"] = dict(_flatten(root["model"], "", 0))
        if _SPREAD in candidate_folder(folder).names:
            root["optimizer_note"] = f"{_SPREAD} is not read: it names no parameters"
        return RawCheckpoint(self.name, root, raw.files, raw.stamps)


def _ranks(candidate: Candidate) -> list[str]:
    return sorted(name for name in candidate.names if _RANK.fullmatch(name))


def _flatten(value: Mapping[Any, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Tensors of nested modules (language_model.encoder ...) by dotted names."""
    for key, item in value.items():
        if type(key) is not str:
            continue
        name = f"{prefix}.{key}" if prefix else key
        if is_tensor(item):
            yield name, item
        elif isinstance(item, Mapping) and depth < _DEEPEST:
            yield from _flatten(item, name, depth + 1)
