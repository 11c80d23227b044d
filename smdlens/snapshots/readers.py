"""The one list of formats smdlens reads."""

from __future__ import annotations

import os
from pathlib import Path

from smdlens.containers.limits import DEFAULT_LIMITS, Limits
from smdlens.errors import SnapshotTruncatedError, SnapshotUnsupportedError
from smdlens.snapshots.candidate import (
    Candidate,
    RawCheckpoint,
    Reader,
    candidate_file,
    candidate_folder,
    is_folder,
)
from smdlens.snapshots.dcp import DcpReader
from smdlens.snapshots.dcp_hf import DcpHfReader
from smdlens.snapshots.deepspeed import DeepSpeedReader
from smdlens.snapshots.flax_msgpack import FlaxMsgpackReader
from smdlens.snapshots.fsdp_folder import FsdpFolderReader
from smdlens.snapshots.gguf import GgufReader
from smdlens.snapshots.hf_folder import HfFolderReader
from smdlens.snapshots.keras_files import KerasArchiveReader, KerasH5Reader
from smdlens.snapshots.megatron import MegatronReader
from smdlens.snapshots.mxnet import MxnetReader
from smdlens.snapshots.numpy_files import NpyReader, NpzReader
from smdlens.snapshots.onnx_weights import OnnxReader
from smdlens.snapshots.orbax import OrbaxReader
from smdlens.snapshots.paddle_inference import PaddleInferenceReader
from smdlens.snapshots.pickle_files import PickleReader
from smdlens.snapshots.pt2 import Pt2Reader
from smdlens.snapshots.safetensors import SafetensorsReader
from smdlens.snapshots.saved_model import SavedModelReader
from smdlens.snapshots.tensorflow_bundle import TensorFlowReader
from smdlens.snapshots.torch_legacy import TorchLegacyReader
from smdlens.snapshots.torch_tar import TorchTarReader
from smdlens.snapshots.torch_zip import TorchZipReader

READERS: tuple[Reader, ...] = (
    KerasArchiveReader(),
    Pt2Reader(),
    TorchZipReader(),
    TorchLegacyReader(),
    SafetensorsReader(),
    NpzReader(),
    NpyReader(),
    GgufReader(),
    MxnetReader(),
    PickleReader(),
    PaddleInferenceReader(),
    KerasH5Reader(),
    FlaxMsgpackReader(),
    TensorFlowReader(),
    OnnxReader(),
    TorchTarReader(),
    OrbaxReader(),
    SavedModelReader(),
    DcpReader(),
    DcpHfReader(),
    FsdpFolderReader(),
    DeepSpeedReader(),
    MegatronReader(),
    HfFolderReader(),
)


def look(path: Path) -> Candidate:
    """A candidate for a file or folder."""
    return candidate_folder(path) if is_folder(path) else candidate_file(path)


def reader_for(candidate: Candidate) -> Reader | None:
    """The reader that recognises the candidate, or None."""
    return next((r for r in READERS if r.recognises(candidate)), None)


def read_checkpoint(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> RawCheckpoint:
    """Read one checkpoint file or folder; raises a subclass of `SnapshotError`."""
    candidate = look(Path(path))
    reader = reader_for(candidate)
    if reader is not None:
        return reader.read(candidate, limits)
    if not candidate.is_folder and candidate.size < 16:
        raise SnapshotTruncatedError(
            "too short to be a checkpoint", subject=str(path), found=f"{candidate.size} bytes"
        )
    raise SnapshotUnsupportedError(
        "not a checkpoint format that smdlens reads",
        subject=str(path),
        expected="one of " + ", ".join(r.name for r in READERS),
        found="a folder" if candidate.is_folder else f"a file that starts {candidate.head[:8]!r}",
    )
