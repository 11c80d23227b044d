"""GGUF files (ggml, llama.cpp, MLX): floating-point tensors as they are, quantised ones by name."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from smdlens.containers.files import FileStamp, reading
from smdlens.containers.gguf_header import MAGIC, GgufTensor, read_gguf_header
from smdlens.containers.limits import Limits
from smdlens.errors import SnapshotUnsupportedError
from smdlens.snapshots.candidate import Candidate, RawCheckpoint
from smdlens.snapshots.mlx import from_mlx, is_optimizer_state, optimizer_beside, with_state
from smdlens.snapshots.records import Extent, TensorRef

_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
    "I32": "int32", "I16": "int16", "I8": "int8",
}  # fmt: skip
# Counters that ggml's own trainer keeps among the settings.
_COUNTERS = {"training.iteration_count": "iteration"}
_WHY = "quantised weights are not measured: their angles would be those of the rounding"


class GgufReader:
    """Reader of GGUF files."""

    name = "gguf"

    def recognises(self, candidate: Candidate) -> bool:
        """The four letters it begins with."""
        return candidate.head.startswith(MAGIC)

    def read(self, candidate: Candidate, limits: Limits) -> RawCheckpoint:
        """Read the header; settings appear as metadata, quantised tensors as a list of types."""
        with reading(candidate.path) as file:
            header = read_gguf_header(file, limits)
        tensors = {
            t.name: _tensor(t, str(candidate.path)) for t in header.tensors if t.type in _DTYPES
        }
        quantised = {t.name: t.type for t in header.tensors if t.type not in _DTYPES}
        # Norms and biases stay floating point in a quantised file: alone they show no training.
        if not any(len(t.shape) > 1 for t in tensors.values()) and quantised:
            kinds = Counter(quantised.values()).most_common(4)
            raise SnapshotUnsupportedError(
                _WHY,
                subject=str(candidate.path),
                expected="weights as F64, F32, BF16 or F16",
                found=", ".join(f"{count} tensors of type {kind}" for kind, count in kinds),
                remedy="Convert the original checkpoint with --outtype f32, or analyse that.",
            )
        flattened = from_mlx(tensors)
        mlx = "optimizer" in flattened
        files, stamps = [candidate.path], {file.path: file.stamp}
        beside = optimizer_beside(candidate.path)
        if beside is not None and not mlx and beside.suffix == candidate.path.suffix:
            state = _tensors(beside, limits, stamps)
            if is_optimizer_state(state):
                flattened, mlx = flattened | with_state(state), True
                files.append(beside)
        root: dict[str, Any] = flattened if mlx else {"": tensors}
        if header.settings:
            root["__metadata__"] = header.settings
        root |= {k: header.settings[n] for n, k in _COUNTERS.items() if n in header.settings}
        if quantised:
            root["quantised"] = quantised
            root["conversion"] = f"{len(quantised)} of {len(header.tensors)} tensors: {_WHY}"
        return RawCheckpoint(self.name, root, tuple(files), stamps, ordered=not mlx)


def _tensors(path: Path, limits: Limits, stamps: dict[str, FileStamp]) -> dict[str, TensorRef]:
    """Floating-point and integer tensors of another GGUF file; none where it is none."""
    with reading(path) as file:
        if file.size < len(MAGIC) or file.read(0, len(MAGIC)) != MAGIC:
            return {}
        header = read_gguf_header(file, limits)
    stamps[file.path] = file.stamp
    return {t.name: _tensor(t, str(path)) for t in header.tensors if t.type in _DTYPES}


def _tensor(tensor: GgufTensor, path: str) -> TensorRef:
    extents = (Extent(path, tensor.offset, tensor.nbytes),) if tensor.nbytes else ()
    return TensorRef(tensor.name, tensor.shape, _DTYPES[tensor.type], extents)
