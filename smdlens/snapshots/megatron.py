"""Megatron-LM's own layout: iter_0000100/mp_rank_00/model_optim_rng.pt.

A single model-parallel rank is read; slices of several would have to be merged along axes that the
files do not name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from smdlens.containers.files import FileStamp, contained
from smdlens.containers.limits import Limits
from smdlens.errors import SnapshotCorruptError, SnapshotUnsupportedError
from smdlens.snapshots.candidate import Candidate, RawCheckpoint, candidate_folder, is_folder
from smdlens.snapshots.hf_folder import torch_file
from smdlens.snapshots.megatron_optimizer import NOTE, UNPLACED, distributed_state
from smdlens.snapshots.records import TensorRef
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
        files, stamps = [*raw.files], dict(raw.stamps)
        if _SPREAD in candidate_folder(folder).names:
            spread = torch_file(folder / _SPREAD, limits)
            files.append(folder / _SPREAD)
            stamps |= spread.stamps
            root |= _distributed(root, spread.root, stamps, str(folder / _SPREAD))
        return RawCheckpoint(self.name, root, tuple(files), stamps)


def _distributed(
    root: Mapping[str, Any], content: Any, stamps: Mapping[str, FileStamp], subject: str
) -> dict[str, Any]:
    """The float32 weights and slots of the distributed optimizer, in place of the copies."""
    model = root.get("model")
    weights = model if isinstance(model, Mapping) else {}
    found = distributed_state(content, weights, stamps, subject)
    if found is None:
        return {"conversion": UNPLACED}
    masters = {name: parts["param"] for name, parts in found.items()}
    slots = {
        name: {slot: ref for slot, ref in parts.items() if slot != "param"}
        for name, parts in found.items()
    }
    groups = _groups(root.get("optimizer"), found)
    for group in groups:
        for name in group["params"]:
            if "step" in group:
                slots[name]["step"] = group["step"]
    return {
        "model": {**weights, **masters},
        "weights_source": NOTE,
        "optimizer": {"state": slots, "param_groups": groups},
    }


def _groups(optimizer: Any, found: Mapping[str, Mapping[str, TensorRef]]) -> list[dict[str, Any]]:
    """Settings of the groups, which do not list their parameters.

    Megatron decays all but biases and vectors, unless told otherwise: with two groups that differ
    by `wd_mult` alone it is known which is which.
    """
    held = optimizer.get("optimizer", optimizer) if isinstance(optimizer, Mapping) else None
    given = held.get("param_groups") if isinstance(held, Mapping) else None
    groups = [g for g in given if isinstance(g, Mapping)] if isinstance(given, list) else []
    settings = [
        {k: v for k, v in g.items() if type(k) is str and k not in ("params", "param_names")}
        for g in groups
    ]
    plain = [n for n, parts in found.items() if _is_vector(n, parts["param"])]
    decayed = [n for n in found if n not in plain]
    multiples = [g.get("wd_mult") for g in settings]
    if len(settings) == 1:
        return [{**settings[0], "params": list(found)}]
    if sorted(map(str, multiples)) == ["0.0", "1.0"]:
        return [{**g, "params": decayed if g["wd_mult"] == 1.0 else plain} for g in settings]
    return [{"params": list(found)}]


def _is_vector(name: str, ref: TensorRef) -> bool:
    return len(ref.shape) == 1 or name.endswith(".bias")


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
