"""DeepSpeed's folders (global_stepN): one file of the model, one of the optimizer for every rank.

Under ZeRO the weights analysed are the float32 ones the optimizer steps, not their 16-bit copies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
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
from smdlens.snapshots.deepspeed_pipeline import (
    expert_weights,
    experts_optimizer,
    is_pipeline,
    joined_optimizers,
    layer_weights,
)
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
    files: list[Path] = []
    stamps: dict[str, FileStamp] = {}

    def mapping(name: str) -> Mapping[Any, Any]:
        raw = torch_file(folder / name, limits)
        files.append(folder / name)
        stamps.update(raw.stamps)
        if not isinstance(raw.root, Mapping):
            raise SnapshotCorruptError("not a mapping of states", subject=str(folder / name))
        return raw.root

    pipeline = is_pipeline(candidate.names)
    stages = _by_stage(candidate, "model", split=pipeline)
    model = [mapping(name) for names in stages for name in names]
    kept = {k: v for k, v in model[0].items() if type(k) is str and v is not None}
    root: dict[str, Any] = {k: v for k, v in kept.items() if k not in _TAKEN}
    weights = layer_weights(candidate.names, mapping, subject) if pipeline else {}
    experts = expert_weights(candidate.names, mapping, subject)
    by_stage = _by_stage(candidate, "optim", split=pipeline)
    if not by_stage:
        _require(pipeline or len(model) == 1, subject, "the optimizer's files", "none")
        # Without ZeRO the model's file holds everything.
        own = model[0].get("module")
        root["module"] = {**(own if isinstance(own, Mapping) else {}), **weights, **experts}
        optimizers = [m["optimizer"] for m in model if m.get("optimizer") is not None]
        joined = joined_optimizers(optimizers) if len(optimizers) > 1 else None
        if not optimizers and (alone := experts_optimizer(candidate.names)) is not None:
            optimizers = [mapping(alone).get("optimizer")]
        if optimizers:
            root["optimizer"] = joined if joined is not None else optimizers[0]
        return root, files, stamps
    _require(len(by_stage) == len(stages), subject, f"{len(stages)} stages", "fewer")
    zero = ZeroState()
    for models, names in zip(_split(model, stages), by_stage, strict=True):
        optim = [mapping(name) for name in names]
        root |= {k: v for k, v in optim[0].items() if k in ("ds_config", "ds_version")}
        zero.add(_zero(models, optim, subject))
    root["weights_source"] = "float32 weights of the optimizer, joined from its ranks"
    experts = {n: t for n, t in experts.items() if n not in zero.masters}
    root["module"] = _weights(model[0] if not pipeline else {"module": weights}, zero) | experts
    root["optimizer"] = {"state": zero.state, "param_groups": zero.param_groups}
    return root, files, stamps


def _zero(
    model: Sequence[Mapping[Any, Any]], optim: Sequence[Mapping[Any, Any]], subject: str
) -> ZeroState:
    """What the ranks of one stage hold together."""
    states = [_state(o, subject) for o in optim]
    _check_ranks(model[0], states, subject)
    groups = shapes_of(model[0].get("param_shapes"), subject)
    if zero_stage(states[0]) < 3:
        return partitioned_state(states, groups, subject)
    _require(len(model) == len(optim), subject, f"{len(optim)} files of the model", "fewer")
    zero = spread_state(states, groups, subject)
    zero.masters |= _frozen(model, subject)
    return zero


def _split(
    model: Sequence[Mapping[Any, Any]], stages: Sequence[Sequence[str]]
) -> Iterator[Sequence[Mapping[Any, Any]]]:
    at = 0
    for names in stages:
        yield model[at : at + len(names)]
        at += len(names)


def _by_stage(candidate: Candidate, kind: str, *, split: bool) -> list[list[str]]:
    """Files of a kind by stage of the pipeline, each in the order of the ranks.

    Raises:
        SnapshotUnsupportedError: Tensor-parallel slices, which are no stages.
        SnapshotTruncatedError: A rank or a stage between others is missing.
    """
    found: dict[int, dict[int, str]] = {}
    for name in sorted(candidate.names):
        match = _FILE.fullmatch(name)
        if match is None or match["kind"] != kind:
            continue
        if int(match["slice"]) > 0 and not split:
            raise SnapshotUnsupportedError(
                "the model is cut into tensor-parallel slices",
                subject=str(candidate.path),
                expected="mp_rank_00 alone",
                found=name,
                remedy="Merge the slices with DeepSpeed's own tools first.",
            )
        found.setdefault(int(match["slice"]), {})[int(match["rank"] or 0)] = name
    _complete("stage", found, candidate)
    for ranks in found.values():
        _complete("rank", ranks, candidate)
    return [[found[stage][rank] for rank in sorted(found[stage])] for stage in sorted(found)]


def _complete(word: str, found: Mapping[int, Any], candidate: Candidate) -> None:
    missing = set(range(len(found))) - set(found)
    least = min(missing, default=0)
    _require(not missing, str(candidate.path), f"{word} {least}", f"later {word}s")


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
