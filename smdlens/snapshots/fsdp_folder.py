"""Checkpoint folders of the Trainer and accelerate with FSDP: one sharded folder for each part.

`pytorch_model_fsdp_0/` and `optimizer_0/` are folders of torch.distributed.checkpoint; the rest
lies beside them as in any folder of the Trainer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from smdlens.containers.files import FileStamp, contained
from smdlens.containers.limits import Limits
from smdlens.errors import SnapshotTruncatedError
from smdlens.snapshots.candidate import Candidate, RawCheckpoint, candidate_folder
from smdlens.snapshots.dcp import METADATA, read_dcp
from smdlens.snapshots.hf_folder import read_parts

_WEIGHTS = "pytorch_model_fsdp_0"
_OPTIMIZER = "optimizer_0"


class FsdpFolderReader:
    """Reader of folders whose weights are a sharded folder of a fixed name."""

    name = "fsdp-folder"

    def recognises(self, candidate: Candidate) -> bool:
        """Whether the folder of the weights is there."""
        return _WEIGHTS in candidate.names

    def read(self, candidate: Candidate, limits: Limits) -> RawCheckpoint:
        """Read the sharded folders' headers and the small files beside them."""
        root: dict[str, Any] = {}
        files: list[Path] = []
        stamps: dict[str, FileStamp] = {}
        for name in (_WEIGHTS, _OPTIMIZER):
            if name not in candidate.names:
                continue
            folder = contained(candidate.path, name, subject=str(candidate.path))
            if METADATA not in candidate_folder(folder).names:
                raise SnapshotTruncatedError(
                    "the sharded folder was not finished",
                    subject=str(folder),
                    expected=f"a file {METADATA}, which is written last",
                    remedy="Wait for the trainer to finish, or leave the folder out.",
                )
            part, part_files, part_stamps = read_dcp(folder, limits)
            root |= part
            files += part_files
            stamps |= part_stamps
        read_parts(candidate, root, files, stamps, limits)
        return RawCheckpoint(self.name, root, tuple(files), stamps)
