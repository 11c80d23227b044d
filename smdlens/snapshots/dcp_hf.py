"""The sharded Hugging Face export of torch.distributed.checkpoint: one safetensors file per rank.

Every file says in its metadata at which offsets of the whole tensors its pieces begin; the whole
shapes are what the pieces of all files cover. Weights only.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from smdlens.containers.files import FileStamp
from smdlens.containers.json_header import parse_json
from smdlens.containers.limits import Limits
from smdlens.errors import SnapshotCorruptError, SnapshotTruncatedError
from smdlens.snapshots.candidate import Candidate, RawCheckpoint
from smdlens.snapshots.chunks import Chunk, PieceBudget, join_chunks
from smdlens.snapshots.records import TensorRef
from smdlens.snapshots.safetensors import read_header

_SHARD = re.compile(r"shard-(\d{5})-model-\d{5}-of-\d{5}\.safetensors")
_INFO = "DCP_SHARDING_INFO"


class DcpHfReader:
    """Reader of folders of such shards."""

    name = "dcp-safetensors"

    def recognises(self, candidate: Candidate) -> bool:
        """A folder with files named as the export names them."""
        return any(_SHARD.fullmatch(name) for name in candidate.names)

    def read(self, candidate: Candidate, limits: Limits) -> RawCheckpoint:
        """Read the headers of all shards and join what they hold."""
        folder = candidate.path
        names = sorted(name for name in candidate.names if _SHARD.fullmatch(name))
        ranks = {int(name[6:11]) for name in names}
        if ranks != set(range(1, max(ranks) + 1)):
            missing = min(set(range(1, max(ranks))) - ranks)
            raise SnapshotTruncatedError(
                "files of some ranks are missing",
                subject=str(folder),
                expected=f"shard-{missing:05d}-...",
                found=", ".join(names[:4]),
                remedy="Wait for the trainer to finish, or copy all files of the folder.",
            )
        pieces: dict[str, dict[tuple[int, ...], Chunk]] = {}
        stamps: dict[str, FileStamp] = {}
        for name in names:
            tensors, metadata, stamp = read_header(folder / name, limits)
            stamps |= stamp
            offsets = _offsets(metadata, folder / name, limits)
            for key, ref in tensors.items():
                place = _place(offsets.get(key), ref, folder / name)
                # Several ranks may have saved the same piece.
                pieces.setdefault(key, {})[place] = Chunk(place, ref)
        budget = PieceBudget(str(folder), limits)
        # Ranks hold different tensors: sorted names are seen for what they are.
        joined = {key: _join(key, list(pieces[key].values()), budget) for key in sorted(pieces)}
        files = tuple(folder / name for name in names)
        return RawCheckpoint(self.name, {"model": joined}, files, stamps, ordered=False)


def _offsets(metadata: dict[str, str], path: Path, limits: Limits) -> dict[str, Any]:
    text = metadata.get(_INFO)
    if text is None:
        raise _corrupt(path, f"no {_INFO} in its metadata")
    info = parse_json(text.encode(), subject=str(path), limits=limits)
    if not isinstance(info, dict):
        raise _corrupt(path, f"{_INFO} is not an object")
    return info


def _place(info: Any, ref: TensorRef, path: Path) -> tuple[int, ...]:
    offsets = info.get("saved_offsets") if isinstance(info, dict) else None
    if not isinstance(offsets, list) or not all(map(_is_offset, offsets)):
        offsets = []
    if len(offsets) != len(ref.shape):
        raise _corrupt(path, f"no sound offsets of tensor {ref.name[:100]!r}")
    return tuple(offsets)


def _is_offset(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _join(name: str, chunks: list[Chunk], budget: PieceBudget) -> TensorRef:
    dimensions = len(chunks[0].offsets)
    if any(len(c.offsets) != dimensions for c in chunks):
        raise _corrupt(Path(budget.subject), f"pieces of {name[:100]!r} of several dimensions")
    shape = tuple(
        max(c.offsets[axis] + c.tensor.shape[axis] for c in chunks) for axis in range(dimensions)
    )
    if math.prod(shape) >= 1 << 62:
        raise _corrupt(Path(budget.subject), f"tensor {name[:100]!r} of an impossible size")
    return join_chunks(name, shape, chunks[0].tensor.dtype, chunks, budget)


def _corrupt(path: Path, found: str) -> SnapshotCorruptError:
    return SnapshotCorruptError(
        "not a sound shard of torch.distributed.checkpoint",
        subject=str(path),
        found=found,
        remedy="Copy the checkpoint again, or leave it out.",
    )
