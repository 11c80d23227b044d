"""Signs that a folder of shards was not written to its end."""

from __future__ import annotations

from smdlens.snapshots.candidate import Candidate


def missing_marker(candidate: Candidate) -> str | None:
    """What a folder of shards lacks; None where it is no such folder."""
    if ".metadata" not in candidate.names and any(n.endswith(".distcp") for n in candidate.names):
        return ".metadata is missing: torch.distributed.checkpoint writes it last"
    return None
