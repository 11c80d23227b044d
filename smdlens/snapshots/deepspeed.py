"""DeepSpeed's folders (global_stepN): one file of the model, one of the optimizer for every rank.

Under ZeRO the weights analysed are the float32 ones the optimizer steps, not their 16-bit copies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smdlens.containers.files import FileStamp, contained, open_regular
from smdlens.containers.limits import Limits
from smdlens.errors import (
    SnapshotCorruptError,
    SnapshotError,
    SnapshotTruncatedError,
    SnapshotUnsupportedError,
)
from smdlens.snapshots.candidate import Candidate, RawCheckpoint, candidate_folder, is_folder
from smdlens.snapshots.hf_folder import has_trainer_state, read_parts, torch_file
from smdlens.snapshots.records import TensorRef
from smdlens.snapshots.resolve import is_tensor
from smdlens.snapshots.zero_partitions import shapes_of
from smdlens.snapshots.zero_state import (
    ZeroState,
    fragments,
    partitioned_state,
    spread_state,
    zero_stage,
)

_FILE = re.compile(
    r"(?:(?:bf16|fp16)_)?(?:zero_pp_rank_(?P<rank>\d{1,6})_)?mp_rank_(?P<slice>\d{1,6})"
    r"(?:_\d{1,6})?_(?P<kind>model|optim)_states\.pt"
)
_LATEST = "latest"
# Entries of the model's file that are taken apart here, or say nothing about training.
_TAKEN = frozenset(
    {"module", "optimizer", "param_shapes", "frozen_param_shapes", "frozen_param_fragments",
     "shared_params", "buffer_names", "random_ltd", "data_sampler"}
)  # fmt: skip


class DeepSpeedReader:
    """Reader of DeepSpeed's checkpoint folders, alone or inside one of the Trainer."""

    name = "deepspeed"

    def recognises(self, candidate: Candidate) -> bool:
        """A folder with files named as DeepSpeed names them, or the Trainer's around one."""
        return _has_model(candidate.names) or _inner(candidate) is not None

    def read(self, candidate: Candidate, limits: Limits) -> RawCheckpoint:
        """Read the headers of all ranks' files."""
        inner = None if _has_model(candidate.names) else _inner(candidate)
        root, files, stamps = _read(inner or candidate, limits)
        if inner is not None:
            read_parts(candidate, root, files, stamps, limits)
        return RawCheckpoint(self.name, root, tuple(files), stamps)


def _has_model(names: frozenset[str]) -> bool:
    return any(m["kind"] == "model" for n in names if (m := _FILE.fullmatch(n)))


def _inner(candidate: Candidate) -> Candidate | None:
    """DeepSpeed's folder inside one of the Trainer, by the name in the file `latest`."""
    if not has_trainer_state(candidate) or _LATEST not in candidate.names:
        return None
    try:
        with open_regular(candidate.path / _LATEST) as file:
            name = file.read(0, min(file.size, 200)).decode("utf-8", "replace").strip()
        if name not in candidate.names or not is_folder(candidate.path / name):
            return None
        inner = candidate_folder(contained(candidate.path, name, subject=file.path))
    except SnapshotError:
        return None
    return inner if _has_model(inner.names) else None


_Found = tuple[dict[str, Any], list[Path], dict[str, FileStamp]]


def _read(candidate: Candidate, limits: Limits) -> _Found:
    folder, subject = candidate.path, str(candidate.path)
    models, optims = _files(candidate, "model"), _files(candidate, "optim")
    files: list[Path] = []
    stamps: dict[str, FileStamp] = {}

    def mapping(name: str) -> Mapping[Any, Any]:
        raw = torch_file(folder / name, limits)
        files.append(folder / name)
        stamps.update(raw.stamps)
        if not isinstance(raw.root, Mapping):
            raise SnapshotCorruptError("not a mapping of states", subject=str(folder / name))
        return raw.root

    model = [mapping(name) for name in models]
    kept = {k: v for k, v in model[0].items() if type(k) is str and v is not None}
    root: dict[str, Any] = {k: v for k, v in kept.items() if k not in _TAKEN}
    if not optims:
        _require(len(models) == 1, subject, "the optimizer's files", "none")
        # Without ZeRO the model's file holds everything.
        root |= {k: model[0][k] for k in ("module", "optimizer") if k in model[0]}
        return root, files, stamps
    optim = [mapping(name) for name in optims]
    states = [_state(o, subject) for o in optim]
    _check_ranks(model[0], states, subject)
    groups = shapes_of(model[0].get("param_shapes"), subject)
    if zero_stage(states[0]) >= 3:
        _require(len(models) == len(optims), subject, f"{len(optims)} files of the model", "fewer")
        zero = spread_state(states, groups, subject)
        zero.masters |= _frozen(model, subject)
    else:
        zero = partitioned_state(states, groups, subject)
    root |= {k: v for k, v in optim[0].items() if k in ("ds_config", "ds_version")}
    root["weights_source"] = "float32 weights of the optimizer, joined from its ranks"
    root["module"] = _weights(model[0], zero)
    root["optimizer"] = {"state": zero.state, "param_groups": zero.param_groups}
    return root, files, stamps


def _files(candidate: Candidate, kind: str) -> list[str]:
    """Files of a kind in the order of their ranks.

    Raises:
        SnapshotUnsupportedError: Tensor-parallel slices.
        SnapshotTruncatedError: A rank between others is missing.
    """
    found: dict[int, str] = {}
    for name in sorted(candidate.names):
        match = _FILE.fullmatch(name)
        if match is None or match["kind"] != kind:
            continue
        if int(match["slice"]) > 0:
            raise SnapshotUnsupportedError(
                "the model is cut into tensor-parallel slices",
                subject=str(candidate.path),
                expected="mp_rank_00 alone",
                found=name,
                remedy="Merge the slices with DeepSpeed's own tools first.",
            )
        found[int(match["rank"] or 0)] = name
    missing = set(range(len(found))) - set(found)
    _require(not missing, str(candidate.path), f"rank {min(missing, default=0)}", "later ranks")
    return [found[rank] for rank in sorted(found)]


def _state(optim: Mapping[Any, Any], subject: str) -> Mapping[Any, Any]:
    state = optim.get("optimizer_state_dict")
    if not isinstance(state, Mapping):
        raise SnapshotCorruptError("a rank's file without an optimizer state", subject=subject)
    return state


def _check_ranks(
    model: Mapping[Any, Any], states: Sequence[Mapping[Any, Any]], subject: str
) -> None:
    declared = states[0].get("partition_count")
    if isinstance(declared, (list, tuple)):
        declared = max((n for n in declared if type(n) is int), default=None)
    if type(declared) is not int:
        declared = model.get("dp_world_size")
    if type(declared) is int:
        _require(declared == len(states), subject, f"{declared} ranks", f"{len(states)} ranks")


def _frozen(model: Sequence[Mapping[Any, Any]], subject: str) -> dict[str, TensorRef]:
    declared = model[0].get("frozen_param_shapes")
    parts = [m.get("frozen_param_fragments") for m in model]
    if not declared or not all(isinstance(p, Mapping) for p in parts):
        return {}
    (shapes,) = shapes_of(declared, subject)
    return dict(fragments([p for p in parts if isinstance(p, Mapping)], shapes, subject))


def _weights(model: Mapping[Any, Any], zero: ZeroState) -> dict[str, Any]:
    """All tensors in the model's order, float32 weights in place of their copies."""
    module, shared = model.get("module"), model.get("shared_params")
    aliases = shared if isinstance(shared, Mapping) else {}
    copies = module if isinstance(module, Mapping) else {}
    tensors: dict[str, Any] = {}
    for name, value in copies.items():
        if name in zero.masters:
            tensors[name] = zero.masters[name]
        # Stage 3 leaves empty tensors where a parameter is spread over the ranks.
        elif is_tensor(value) and name not in aliases and 0 not in value.shape:
            tensors[name] = value
    return tensors | {n: t for n, t in zero.masters.items() if n not in tensors}


def _require(good: bool, subject: str, expected: str, found: str) -> None:
    if not good:
        raise SnapshotTruncatedError(
            "files of some ranks are missing",
            subject=subject,
            expected=expected,
            found=found,
            remedy="Wait for the trainer to finish, or copy all files of the folder.",
        )
