"""Signs that a folder of shards was not written to its end."""

from __future__ import annotations

from smdlens.snapshots.candidate import Candidate


def missing_marker(candidate: Candidate) -> str | None:
    """What a folder of shards lacks; None where it is no such folder."""
    names = candidate.names
    if ".metadata" not in names and any(n.endswith(".distcp") for n in names):
        return ".metadata is missing: torch.distributed.checkpoint writes it last"
    if any("mp_rank_" in n and n.endswith("_optim_states.pt") for n in names):
        return "the file of the model is missing: DeepSpeed saves one beside the optimizer's"
    return None
