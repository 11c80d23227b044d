"""Confirms the graph's answer by running the model: rescaling, and Euler's identity.

L(k w) = L(w) for all k gives <w, dL/dw> = 0, for each piece that may be scaled on its own; one
backward pass tests every piece of every tensor. All claims of "this scale does nothing" are tried
at once, each piece by a factor of its own; where the outputs change, halves are tried until the
wrong ones are found. Claims of "this scale matters" need a gradient with a radial part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from torch import nn

from smdlens.errors import GraphError
from smdlens.symmetry.epsilon import epsilon_effects, in_words, worst
from smdlens.symmetry.records import Evidence, TensorSymmetry
from smdlens.symmetry.scale_symmetry import Disagreement, EpsilonEffect, ScaleSymmetry
from smdlens.symmetry.verify_claims import Claims, Verdict
from smdlens.symmetry.verify_experiment import Experiment
from smdlens.vocabulary import EvidenceKind, Role


def verified(
    symmetry: ScaleSymmetry,
    model: nn.Module,
    args: Sequence[object] = (),
    kwargs: Mapping[str, object] | None = None,
) -> ScaleSymmetry:
    """The answer with numeric evidence and what disagrees with it.

    Where the two disagree on a role it becomes unknown; where only the pieces are smaller than
    said, the granularity is left open. Both answers stay in the evidence.

    Raises:
        GraphError: The model cannot be run.
    """
    try:
        claims = Claims(symmetry, lambda seed: Experiment(model, args, kwargs, seed))
        verdicts = claims.verdicts()
        epsilon = epsilon_effects(symmetry, Experiment(model, args, kwargs, seed=None))
    except GraphError:
        raise
    except Exception as error:
        raise GraphError(
            f"the model cannot be run in float64: {type(error).__name__}: {error}",
            subject=type(model).__name__,
            remedy="Leave out --verify.",
        ) from error
    tensors = {
        name: _judged(tensor, verdicts[name], epsilon.get(name))
        for name, tensor in symmetry.tensors.items()
    }
    against = tuple(
        Disagreement(name, verdict.detail)
        for name, verdict in verdicts.items()
        if verdict.against_role or verdict.against_pieces
    )
    notes = [*symmetry.notes, *filter(None, [worst(epsilon)])]
    return dataclasses.replace(
        symmetry,
        tensors=tensors,
        epsilon=epsilon,
        disagreements=against,
        notes=tuple(notes),
    )


def _judged(
    tensor: TensorSymmetry, verdict: Verdict, epsilon: EpsilonEffect | None
) -> TensorSymmetry:
    details = [verdict.detail]
    if epsilon is not None and not verdict.against_role:
        details.insert(0, in_words(epsilon))
    evidence = tuple(Evidence(EvidenceKind.NUMERIC, detail) for detail in details)
    tensor = dataclasses.replace(tensor, evidence=(*tensor.evidence, *evidence))
    if verdict.against_role:
        return dataclasses.replace(
            tensor,
            role=Role.UNKNOWN,
            granularity=None,
            groups=1,
            parts=(),
            joint_with=(),
            norm=None,
            clock=False,
        )
    if verdict.against_pieces:
        return dataclasses.replace(tensor, granularity=None, groups=1)
    return tensor
