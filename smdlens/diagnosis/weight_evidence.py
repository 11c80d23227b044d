"""What the weights themselves say about a tensor's role."""

from __future__ import annotations

import dataclasses

from smdlens.motion.records import Motion
from smdlens.symmetry.records import Evidence, ScaleGroups, TensorSymmetry
from smdlens.vocabulary import INVARIANT_ROLES, EvidenceKind, Role

FROZEN_NORM = (
    "its running statistics never change: the batch norm was frozen and does not normalise"
)


def with_weight_evidence(groups: ScaleGroups, motion: Motion) -> ScaleGroups:
    """Scale groups after the weights had their say.

    A batch norm whose running statistics never change over the run was frozen: it multiplies by a
    constant, and nothing in front of it is scale-invariant, whatever names or graph say.
    """
    return dataclasses.replace(
        groups,
        tensors={
            name: _without_frozen_norm(tensor, motion.frozen_statistics)
            for name, tensor in groups.tensors.items()
        },
    )


def _without_frozen_norm(tensor: TensorSymmetry, frozen: frozenset[str]) -> TensorSymmetry:
    norm = tensor.norm
    if norm is None or norm.running_var not in frozen or tensor.role not in INVARIANT_ROLES:
        return tensor
    evidence = Evidence(EvidenceKind.WEIGHTS, f"`{norm.running_var}`: {FROZEN_NORM}")
    return dataclasses.replace(
        tensor,
        role=Role.NOT_SCALE_INVARIANT,
        granularity=None,
        groups=1,
        norm=None,
        evidence=(*tensor.evidence, evidence),
    )
