"""Checkpoint folders: Hugging Face Trainer's checkpoint-N, accelerate's, and shards with an index.

A folder is one checkpoint when it holds weights under one of the usual fixed names. Parts beside
the weights appear under fixed keys: `optimizer`, `lr_scheduler`, `trainer_state`, `training_args`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smdlens.containers.files import FileStamp, contained
from smdlens.containers.json_header import read_json
from smdlens.containers.limits import Limits
from smdlens.errors import SnapshotCorruptError
from smdlens.snapshots.candidate import Candidate, RawCheckpoint, Reader, candidate_file
from smdlens.snapshots.resolve import is_tensor
from smdlens.snapshots.safetensors import read_header, read_optimizer
from smdlens.snapshots.torch_legacy import TorchLegacyReader
from smdlens.snapshots.torch_zip import TorchZipReader

_SAFE = "model.safetensors"
_WEIGHTS = (
    f"{_SAFE}.index.json", _SAFE, "pytorch_model.bin.index.json", "pytorch_model.bin",
    "pytorch_model_fsdp.bin", "diffusion_pytorch_model.safetensors", "adapter_model.safetensors",
)  # fmt: skip
_PARTS = {
    "optimizer.pt": "optimizer",
    "optimizer.bin": "optimizer",
    "scheduler.pt": "lr_scheduler",
    "scheduler.bin": "lr_scheduler",
    "training_args.bin": "training_args",
}
_MLX_OPTIMIZER = "optimizer.safetensors"
_TRAINER_STATE = "trainer_state.json"
# What Trainer writes between the weights and trainer_state.json.
_TRAINER_PARTS = ("optimizer.pt", "scheduler.pt", "rng_state.pth")
_Weights = tuple[Mapping[str, Any], list[Path], dict[str, FileStamp], bool]
_TORCH_READERS: tuple[Reader, ...] = (TorchZipReader(), TorchLegacyReader())


class HfFolderReader:
    """Reader of checkpoint folders with fixed file names."""

    name = "hf-folder"

    def recognises(self, candidate: Candidate) -> bool:
        """Whether one of the fixed names of weights is in the folder."""
        return any(name in candidate.names for name in _WEIGHTS)

    def read(self, candidate: Candidate, limits: Limits) -> RawCheckpoint:
        """Read the weights' headers and the small files beside them."""
        folder = candidate.path
        weights = next(name for name in _WEIGHTS if name in candidate.names)
        tensors, files, stamps, ordered = _weights(folder, weights, limits)
        root: dict[str, Any] = {"model": tensors}
        read_parts(candidate, root, files, stamps, limits)
        return RawCheckpoint(self.name, root, tuple(files), stamps, ordered)


def read_parts(
    candidate: Candidate,
    root: dict[str, Any],
    files: list[Path],
    stamps: dict[str, FileStamp],
    limits: Limits,
) -> None:
    """Add what lies beside the weights to a checkpoint's content, files and stamps."""
    folder = candidate.path
    for name, key in _PARTS.items():
        if name in candidate.names and key not in root:
            part = torch_file(folder / name, limits)
            root[key] = part.root
            files.append(folder / name)
            stamps |= part.stamps
    if _MLX_OPTIMIZER in candidate.names and "optimizer" not in root:
        root |= read_optimizer(folder / _MLX_OPTIMIZER, limits, files, stamps)
    if _TRAINER_STATE in candidate.names:
        path = folder / _TRAINER_STATE
        root["trainer_state"] = read_json(str(path), limits=limits, allow_nan=True)
        files.append(path)


def is_unfinished(candidate: Candidate, trained_by_trainer: bool) -> bool:
    """Whether a Trainer was interrupted while it wrote the folder.

    Args:
        candidate: The folder.
        trained_by_trainer: Whether a folder beside it has a trainer_state.json.
    """
    if _TRAINER_STATE in candidate.names:
        return False
    return trained_by_trainer or any(name in candidate.names for name in _TRAINER_PARTS)


def has_trainer_state(candidate: Candidate) -> bool:
    """Whether the folder was finished by Hugging Face Trainer."""
    return _TRAINER_STATE in candidate.names


def _weights(folder: Path, name: str, limits: Limits) -> _Weights:
    path = folder / name
    if name.endswith(".index.json"):
        return _sharded(folder, path, limits)
    if name.endswith(".safetensors"):
        tensors, _, stamps = read_header(path, limits)
        return tensors, [path], stamps, False
    raw = torch_file(path, limits)
    return _flat(raw), [path], dict(raw.stamps), True


def _sharded(folder: Path, index: Path, limits: Limits) -> _Weights:
    content = read_json(str(index), limits=limits)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
        raise SnapshotCorruptError("the index has no weight_map of names", subject=str(index))
    names = list(dict.fromkeys(weight_map.values()))
    if len(names) > limits.index_files:
        raise SnapshotCorruptError(
            "the index names too many files",
            subject=str(index),
            expected=f"at most {limits.index_files}",
            found=str(len(names)),
        )
    shards: dict[str, Mapping[str, Any]] = {}
    files = [index]
    stamps: dict[str, FileStamp] = {}
    for name in names:
        path = contained(folder, name, subject=str(index))
        files.append(path)
        if name.endswith(".safetensors"):
            shards[name], _, stamp = read_header(path, limits)
            stamps |= stamp
        else:
            raw = torch_file(path, limits)
            shards[name] = _flat(raw)
            stamps |= raw.stamps
    tensors: dict[str, Any] = {}
    for tensor, name in weight_map.items():
        if tensor not in shards[name]:
            raise SnapshotCorruptError(
                f"tensor {tensor!r} is not in the file the index names",
                subject=str(index),
                found=name[:200],
            )
        tensors[tensor] = shards[name][tensor]
    return tensors, files, stamps, False


def torch_file(path: Path, limits: Limits) -> RawCheckpoint:
    """Read a file that `torch.save` wrote, in either of its two layouts."""
    candidate = candidate_file(path)
    for reader in _TORCH_READERS:
        if reader.recognises(candidate):
            return reader.read(candidate, limits)
    raise SnapshotCorruptError("not a file written by torch.save", subject=str(path))


def _flat(raw: RawCheckpoint) -> Mapping[str, Any]:
    if isinstance(raw.root, Mapping):
        return {k: v for k, v in raw.root.items() if isinstance(k, str) and is_tensor(v)}
    raise SnapshotCorruptError("not a mapping of names to tensors", subject=str(raw.files[0]))
